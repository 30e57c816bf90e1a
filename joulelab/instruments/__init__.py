"""Instruments: things that read physical quantities. One file a meter family; only the sampler opens them."""
