"""Trust: clocks, sensors and the energy of phases, each figure against a known truth."""
