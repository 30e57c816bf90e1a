"""The backbone: starting, recording, sampling, reducing, and how far the fits can be trusted."""
