"""Every rule that fxmeter ships, by kind. Importing this package registers them."""

from fxmeter.annotators.rules import elementwise, indexers, movement, products, reductions, resampling, scans

__all__ = ["elementwise", "indexers", "movement", "products", "reductions", "resampling", "scans"]
