"""A small config of every causal-LM type, with every kind of layer that the type's default config has.

The default config is shrunk by field name, and keeps as many layers as two full periods of its layer pattern take.
What a name cannot tell (widths that must fit one another, defaults that leave a kind of layer out) is in ``FIELDS``.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from fxmeter.tracer.load.decoder import DecoderWithHead

HIDDEN, HEADS, HEAD_DIM, VOCABULARY, WINDOW = 64, 4, 16, 128, 8
MOST_LAYERS = 24


def _named(names: str, size: int) -> dict[str, int]:
    return dict.fromkeys(names.split(), size)


SIZES: dict[str, int] = {
    **_named("hidden_size d_model n_embd emb_dim dim embedding_dim lru_width embedding_size", HIDDEN),
    **_named("input_embedding_size output_embedding_size word_embed_proj_dim attention_hidden_size", HIDDEN),
    **_named("num_attention_heads n_head n_heads num_heads attention_heads decoder_attention_heads", HEADS),
    **_named("encoder_attention_heads num_encoder_attention_heads num_decoder_attention_heads", HEADS),
    **_named("swa_num_attention_heads linear_num_heads index_n_heads", HEADS),
    **_named("head_dim d_head dim_head swa_head_dim linear_head_dim attention_head_size global_head_dim", HEAD_DIM),
    **_named("kv_channels v_head_dim qk_nope_head_dim linear_key_head_dim linear_value_head_dim", HEAD_DIM),
    **_named("index_head_dim mamba_d_head mamba_headdim mamba_head_dim rel_extent", HEAD_DIM),
    **_named("hidden_size_per_layer_input laurel_rank adapter_rank", HEAD_DIM),
    **_named("intermediate_size ffn_dim d_inner dff dim_ff feed_forward_size encoder_ffn_dim", 96),
    **_named("decoder_ffn_dim ffn_hidden_size dense_intermediate_size intermediate_size_mlp", 96),
    **_named("moe_intermediate_size expert_ffn_hidden_size shared_expert_intermediate_size", 32),
    **_named("shared_experts_intermediate_size moe_shared_expert_intermediate_size", 32),
    **_named("num_experts n_routed_experts num_local_experts moe_num_experts", 8),
    **_named("vocab_size unpadded_vocab_size vocab_size_per_layer_input", VOCABULARY),
    **_named("sliding_window window_size sliding_window_size local_attention", WINDOW),
    **_named("attention_window_size attention_chunk_size floor_scale index_topk", WINDOW),
    **_named("q_lora_rank o_lora_rank kv_lora_rank router_hidden_size hc_lowrank", 32),
    **_named("state_size mamba_d_state ssm_state_size time_step_rank mamba_dt_rank", 8),
    **_named("chunk_size mamba_chunk_size mamba_n_heads mamba_num_heads", 8),
    **_named("qk_rope_head_dim rotary_dim", 8),
    **_named("n_group num_expert_group mamba_n_groups n_groups mamba_ngroups", 2),
    **_named("encoder_layers num_encoder_layers decoder_layers num_decoder_layers", 2),
    **_named("max_position_embeddings n_positions n_ctx max_seq_len max_target_positions", 256),
    "zero_expert_num": 4,
    "topk_group": 1,
    "qk_head_dim": 24,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "sep_token_id": 3,
    "cls_token_id": 1,
}
"""Field → size in a small config, where the default is a whole number."""

LAYER_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_blocks")
AT_MOST_TWO = ("num_experts_per_tok", "moe_topk", "moe_k", "num_experts_per_token", "top_k_experts")
KV_HEADS = ("num_key_value_heads", "swa_num_key_value_heads", "num_kv_heads", "num_global_key_value_heads")

LANGUAGE = {"languages": ["en_XX"], "default_language": "en_XX"}
BLT_PART = {
    "hidden_size": HIDDEN,
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS,
    "head_dim": HEAD_DIM,
    "intermediate_size": 96,
    "max_position_embeddings": 256,
}
FIELDS: dict[str, dict[str, Any]] = {
    # every kind of layer, where the default has one
    "bamba": {"attn_layer_indices": [1, 3], "num_hidden_layers": 4, "mamba_d_head": 16},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"] * 2, "num_hidden_layers": 4},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2, "num_hidden_layers": 4, "num_dense_layers": 1},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "num_layers": 4},
    "nemotron_h": {"layers_block_type": ["mamba", "moe", "attention", "mlp"] * 2},
    # fields that the default leaves open
    "deepseek_v2": {"num_experts_per_tok": 2, "n_group": None, "topk_group": None, "topk_method": "greedy"},
    "dots1": {"n_shared_experts": 1, "n_routed_experts": 8, "num_experts_per_tok": 2, "n_group": 2},
    "marian": {"decoder_vocab_size": VOCABULARY},
    "minimax": {"block_size": WINDOW},
    "nemotron": {"num_key_value_heads": 2},
    "qwen4_exp_text": {
        "indexer_n_heads": HEADS,
        "indexer_head_dim": HEAD_DIM,
        "indexer_kv_heads": 1,
        "indexer_budget": 8,
        "indexer_compress_ratio": 4,
    },
    "xmod": LANGUAGE,
    # widths that must fit one another
    "falcon_h1": {"mamba_d_ssm": 8 * HEAD_DIM, "mamba_n_heads": 8, "mamba_d_head": HEAD_DIM},
    "glm5_next_text": {"qk_rope_head_dim": 0, "head_dim": 0, "qk_head_dim": HEAD_DIM, "index_kpool": 4},
    "mistral4": {"qk_nope_head_dim": 8, "qk_head_dim": HEAD_DIM, "head_dim": HEAD_DIM},
    "mamba2": {"num_heads": 8, "head_dim": HEAD_DIM, "n_groups": 2},
    "xlstm": {"qk_dim_factor": 1.0},
    "reformer": {"axial_pos_shape": [16, 16], "axial_pos_embds_dim": [32, 32]},
    "zamba": {"attention_hidden_size": 2 * HIDDEN, "attention_head_dim": 2 * HEAD_DIM, "mamba_dt_rank": 8},
    "zamba2": {
        "attention_hidden_size": 2 * HIDDEN,
        "attention_head_dim": 2 * HEAD_DIM,
        "mamba_headdim": HEAD_DIM,
        "num_hidden_layers": 6,
        "layers_block_type": ["mamba", "mamba", "hybrid"] * 2,
        "hybrid_layer_ids": [2, 5],
    },
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 96},
    },
    "blt": {
        "encoder_hash_byte_group_vocab": 64,
        "patcher_config": {**BLT_PART, "num_hidden_layers": 2},
        "encoder_config": {**BLT_PART, "hidden_size_global": 2 * HIDDEN, "num_hidden_layers": 1},
        "decoder_config": {**BLT_PART, "hidden_size_global": 2 * HIDDEN, "num_hidden_layers": 2},
        "global_config": {**BLT_PART, "hidden_size": 2 * HIDDEN, "head_dim": 32, "num_hidden_layers": 2},
    },
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2]}}
    },
    # a block for each codebook stands in the batch
    "musicgen_decoder": {"num_codebooks": 1},
    "musicgen_melody_decoder": {"num_codebooks": 1},
}
"""Type → fields that the procedure above cannot find."""


def default_config(model_type: str) -> PreTrainedConfig:
    """The type's default config, or that of the text decoder inside it."""
    config = CONFIG_MAPPING[model_type]()
    text = config.get_text_config(decoder=True)
    return config if type(text) is type(config) else text


def small_config(model_type: str, **fields: Any) -> PreTrainedConfig:
    """A small config of the type; ``fields`` win over everything."""
    default = default_config(model_type)
    given: dict[str, Any] = {}
    values = default.to_dict()
    heads = next((values[n] for n in ("num_attention_heads", "n_head", "swa_num_attention_heads") if n in values), None)
    stated = {f.name: f.default for f in dataclasses.fields(type(default)) if type(f.default) is int}
    for name, value in {**stated, **values}.items():
        if name in default.attribute_map:
            continue
        if name == "head_dim" and value is not None and value == values.get("qk_rope_head_dim"):
            given[name] = SIZES["qk_rope_head_dim"]
            continue
        if name == "head_dim" and value is None:
            given[name] = HEAD_DIM
            continue
        if type(value) is int and name in SIZES:
            given[name] = SIZES[name]
        elif type(value) is int and name in AT_MOST_TWO:
            given[name] = min(value, 2)
        elif type(value) is int and name in KV_HEADS:
            given[name] = HEADS if value == heads else 1 if value == 1 else 2
    if values.get("is_decoder") is False:
        given["is_decoder"] = True
    if getattr(default, "is_encoder_decoder", False):
        given["is_encoder_decoder"] = False  # the decoder alone, as AutoModelForCausalLM builds it
    given.update(FIELDS.get(default.model_type, {}))
    given.update(fields)
    counted = next((name for name in LAYER_COUNTS if name in values), None)
    if counted is None or counted in given:
        return type(default)(**given)
    kinds = zip(kinds_of_layers(default), layers_as_built(type(default)(**given)), strict=False)
    return type(default)(**{**given, counted: two_periods(list(kinds))})


def layers_as_built(config: PreTrainedConfig) -> list[Any]:
    """For each layer the classes and parameter shapes in it; all alike where the model cannot be built.

    The first layers of a mixture of experts may be dense, which no per-layer list of the config says.
    """
    count = len(kinds_of_layers(config))
    try:
        with torch.device("meta"):
            model = DecoderWithHead.from_config(copy.deepcopy(config), dtype=torch.float32)
    except Exception:  # whatever transformers says is found, and shown, by whoever runs the small config
        return [()] * count
    stacks = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    return [tuple(map(_described, layers)) for layers in zip(*stacks, strict=True)] or [()] * count


def _described(layer: nn.Module) -> tuple[Any, ...]:
    return tuple(
        (type(module).__name__, *(tuple(p.shape) for p in module.parameters(recurse=False)))
        for module in layer.modules()
    )


def kinds_of_layers(config: PreTrainedConfig) -> list[tuple[Any, ...]]:
    """For each layer what the config's per-layer lists say about it."""
    count = next((getattr(config, n) for n in LAYER_COUNTS if isinstance(getattr(config, n, None), int)), 0)
    names = {*vars(config), "layer_types", "layers_block_type", "layers_num_experts"}
    lists = []
    for name in sorted(names):
        try:
            value = getattr(config, name, None)
        except Exception:  # a field that differs from layer to layer cannot be asked for
            continue
        if isinstance(value, (list, tuple)) and len(value) == count:
            lists.append([str(item) for item in value])
    return list(zip(*lists, strict=True)) if lists else [()] * count


def two_periods(kinds: list[tuple[Any, ...]]) -> int:
    """Layers up to the end of the second period of the pattern, whatever comes before the pattern included."""
    best = len(kinds)
    for period in range(1, len(kinds) // 2 + 1):
        start = next(
            q for q in range(len(kinds)) if all(kinds[i] == kinds[i + period] for i in range(q, len(kinds) - period))
        )
        best = min(best, start + 2 * period)
    return max(2, min(best, MOST_LAYERS)) if kinds else 2
