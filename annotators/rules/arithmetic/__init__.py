"""Arithmetic on elements: pointwise, reduced, normalised, pooled, transformed, scanned, and their gradients."""
