"""Whether a model that was made of another still computes the same: inputs, evidence, verdicts."""
