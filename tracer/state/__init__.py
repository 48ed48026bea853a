"""What a model holds: its modules, their attributes, its cache."""
