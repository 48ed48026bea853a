"""Model and scenario in, a ``torch.fx`` graph with real shapes out. Knows nothing of cost."""

from tracer.attention import ATTENTIONS, Attention
from tracer.loading import load_config, load_model
from tracer.passes import record, record_call
from tracer.recording import CacheEntry, Recording, Weight
from tracer.spec import Spec, Storage

__all__ = [
    "ATTENTIONS",
    "Attention",
    "CacheEntry",
    "Recording",
    "Spec",
    "Storage",
    "Weight",
    "load_config",
    "load_model",
    "record",
    "record_call",
]
