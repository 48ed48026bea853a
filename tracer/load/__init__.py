"""From a name, a file or a config to a model on meta."""
