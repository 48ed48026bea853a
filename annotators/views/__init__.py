"""What a person sees at a terminal: rich tables of what was computed below. No arithmetic."""
