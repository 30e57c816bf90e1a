"""Models, verdicts, the inference space and the Mapper."""
