"""SCPI meters: one engine, and a description for each model."""
