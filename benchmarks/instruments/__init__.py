"""Instruments: how fast their streams are decoded, and how punctual many of them are at once."""
