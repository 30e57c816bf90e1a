"""The figures that joulelab promises, each measured beside its alternative in the same run."""
