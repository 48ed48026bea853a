"""What one decoder layer of a Hugging Face model costs, taken out of the model as it is.

python examples/decoder_layer.py
"""

import torch
from transformers import DynamicCache, LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

from fxmeter import annotate_module


def main() -> None:
    """Price a prompt through the layer, then one token with that prompt in the layer's cache."""
    config = LlamaConfig(num_hidden_layers=1, attn_implementation="eager")
    with torch.device("meta"):
        layer, rotary = LlamaDecoderLayer(config, layer_idx=0), LlamaRotaryEmbedding(config)
        for name, past, new in (("prefill", 0, 2048), ("decode", 2048, 1)):
            cache = DynamicCache(config=config)
            if past:
                cache.update(torch.empty(1, 32, past, 128), torch.empty(1, 32, past, 128), 0)
            hidden = torch.empty(1, new, config.hidden_size)
            angles = rotary(hidden, torch.arange(past, past + new)[None])
            stage = annotate_module(layer, hidden, position_embeddings=angles, past_key_values=cache)
            print(f"{name:8} {stage.cost.matmul_flops:,} matmul FLOPs, {stage.cost.kv_bytes:,} bytes of KV")
            for path in ("self_attn", "mlp", "input_layernorm"):
                print(f"    {path:16} {stage.modules[path].cost.io_bytes:,} bytes moved")


if __name__ == "__main__":
    main()
