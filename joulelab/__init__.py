"""Measure what language-model inference costs in seconds and joules, and fit models that can be trusted."""

__version__ = "0.1.0"
