"""Every rule that fxmeter ships, by kind. Importing this package registers them."""

from fxmeter.annotators.rules import (
    attention,
    convolutions,
    elementwise,
    indexers,
    movement,
    products,
    reductions,
    resampling,
    scans,
    sdpa_kernels,
)

__all__ = [
    "attention",
    "convolutions",
    "elementwise",
    "indexers",
    "movement",
    "products",
    "reductions",
    "resampling",
    "scans",
    "sdpa_kernels",
]
