"""Protocols yield steps; the runner plays them on a device and records what happens."""
