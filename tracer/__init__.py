"""Model and scenario in, a ``torch.fx`` graph with real shapes out. Knows nothing of cost."""

from fxmeter.tracer.capture.recording import CacheEntry, Recording, Weight
from fxmeter.tracer.graph.spec import Spec, Storage
from fxmeter.tracer.load.loading import load_config, load_model
from fxmeter.tracer.run.calls import record_call
from fxmeter.tracer.run.passes import record
from fxmeter.tracer.run.patches.attention import ATTENTIONS, Attention

if __name__ == "tracer":  # imported by its folder's name in a checkout: the same objects
    from fxmeter.checkout import stand_for

    stand_for(__name__)

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
