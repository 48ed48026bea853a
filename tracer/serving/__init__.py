"""What a serving engine runs in place of a model's own code: hooks that find what they replace by its shape."""
