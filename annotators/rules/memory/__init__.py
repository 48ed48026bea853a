"""What moves, picks or sends elements, and computes nothing."""
