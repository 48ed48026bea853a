"""What of torch and transformers stands in for what while a model is recorded."""
