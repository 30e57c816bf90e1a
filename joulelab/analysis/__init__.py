"""Recorded runs and tables into phase energies, models and verdicts; touches no hardware."""
