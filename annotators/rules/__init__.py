"""Every rule that fxmeter ships, by kind. Importing this package registers them."""

from annotators.rules import elementwise, movement, products, reductions, resampling, scans

__all__ = ["elementwise", "movement", "products", "reductions", "resampling", "scans"]
