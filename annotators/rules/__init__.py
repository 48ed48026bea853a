"""Every rule that fxmeter ships, by kind. Importing this package registers them."""

from fxmeter.annotators.rules.arithmetic import (
    elementwise,
    gradients,
    losses,
    normalizations,
    pooling,
    reductions,
    resampling,
    scans,
    transforms,
)
from fxmeter.annotators.rules.matrix import (
    attention,
    convolutions,
    indexers,
    linear_algebra,
    products,
    torch_attention,
)
from fxmeter.annotators.rules.memory import collectives, indexing, movement

__all__ = [
    "attention",
    "collectives",
    "convolutions",
    "elementwise",
    "gradients",
    "indexers",
    "indexing",
    "linear_algebra",
    "losses",
    "movement",
    "normalizations",
    "pooling",
    "products",
    "reductions",
    "resampling",
    "scans",
    "torch_attention",
    "transforms",
]
