"""Write models/catalogue.json, the table that ``fxmeter models`` prints, from the models themselves: make catalogue"""

from __future__ import annotations

import json
from pathlib import Path

from fxmeter import annotate, decode, load_model
from fxmeter.annotators.stages.model_info import model_info
from fxmeter.models.presets import preset_names

TABLE = Path(__file__).parent.parent / "models" / "catalogue.json"


def entry(name: str) -> dict[str, object]:
    """What the loaded model says of itself; its cache with the whole context in it."""
    model = load_model(name)
    info = model_info(model)
    text = model.config.get_text_config(decoder=True)
    experts = max((getattr(module, "num_experts", 0) or 0 for module in model.modules()), default=0)
    context = info.max_positions
    return {
        "layers": info.layers,
        "experts": [experts, text.num_experts_per_tok] if experts > 1 else None,
        "parameters": info.parameters,
        "active_parameters": info.active_parameters,
        "context": context,
        "kv_bytes_at_context": None if context is None else annotate(model, decode(context - 1)).cost.kv_bytes,
        "format": info.weights,
    }


if __name__ == "__main__":
    rows = (f" {json.dumps(name)}: {json.dumps(entry(name))}" for name in preset_names())
    TABLE.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")
