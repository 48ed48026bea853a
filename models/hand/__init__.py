"""Layer models written by hand from the architecture: the other opinion, never derived from a trace."""
