"""Pictures of what was computed below, with matplotlib."""
