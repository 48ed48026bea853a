"""Every rule that fxmeter ships, by kind. Importing this package registers them."""

from fxmeter.annotators.rules import (
    attention,
    attention_kernels,
    convolutions,
    elementwise,
    indexers,
    movement,
    products,
    reductions,
    resampling,
    scans,
)

__all__ = [
    "attention",
    "attention_kernels",
    "convolutions",
    "elementwise",
    "indexers",
    "movement",
    "products",
    "reductions",
    "resampling",
    "scans",
]
