"""The word error rate as a metric of Hugging Face Evaluate."""
