"""The phoneme error rate as a metric of Hugging Face Evaluate."""
