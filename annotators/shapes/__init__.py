"""Which polynomial holds where: sizes as functions of batch and lengths, found from a few recordings."""
