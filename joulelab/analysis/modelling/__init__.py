"""Time and energy models: forms, fits, what is held out, verdicts, and what to measure next."""
