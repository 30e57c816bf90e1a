"""The inference space, prompt length x decode length at several histories: which device is best where, and why."""
