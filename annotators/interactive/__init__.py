"""What ``annotate`` gives at a prompt and in a notebook: a stage that shows itself, and answers questions."""
