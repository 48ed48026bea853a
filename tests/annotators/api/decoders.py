"""Random small decoders of many families, for laws that hold for every one."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

ROUTED = {
    "mixtral": ("num_local_experts", {}),
    "qwen3_moe": ("num_experts", {"moe_intermediate_size": 16}),
    "gpt_oss": ("num_local_experts", {}),
    "deepseek_v3": ("n_routed_experts", {"moe_intermediate_size": 16, "n_group": 2, "topk_group": 1}),
}
WINDOWED = ("gemma2", "gemma3_text", "gpt_oss", "mistral")
GROUPED = ("llama", "qwen3", "olmo2", "mixtral", "qwen3_moe", *WINDOWED)
FAMILIES = tuple(dict.fromkeys((*GROUPED, "deepseek_v3", "jamba", "qwen3_next", "mamba", "bloom", "gpt2")))
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


@st.composite
def decoders(draw: Any, families: tuple[str, ...] = FAMILIES) -> dict[str, Any]:
    """The fields of a config.json: valid, small, of one of ``families``."""
    family = draw(st.sampled_from(families))
    fields = {"model_type": family, "vocab_size": draw(st.integers(3, 90)), **TOKENS}
    layers = draw(st.integers(1, 4))
    return fields | _FIELDS.get(family, _grouped)(draw, family, layers)


def _grouped(draw: Any, family: str, layers: int) -> dict[str, Any]:
    """Attention with grouped queries; windows in some layers, routed experts, where the family has them."""
    kv_heads, groups, head_dim = draw(st.integers(1, 3)), draw(st.integers(1, 3)), 2 * draw(st.integers(1, 12))
    fields: dict[str, Any] = {
        "num_hidden_layers": layers,
        "hidden_size": kv_heads * groups * 8 * draw(st.integers(1, 3)),
        "intermediate_size": 8 * draw(st.integers(1, 9)),
        "num_attention_heads": kv_heads * groups,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
    }
    if family == "olmo2":
        fields |= {"hidden_size": kv_heads * groups * head_dim}
    if family in WINDOWED:
        fields |= {"sliding_window": draw(st.integers(2, 12))}
    if family in ROUTED:
        fields |= _experts(draw, family)
    return fields


def _experts(draw: Any, family: str) -> dict[str, Any]:
    name, more = ROUTED[family]
    return {name: 2 * draw(st.integers(1, 4)), "num_experts_per_tok": draw(st.integers(1, 2)), **more}


def _latent(draw: Any, family: str, layers: int) -> dict[str, Any]:
    """A compressed cache and routed experts behind dense layers."""
    heads = draw(st.integers(1, 4))
    return {
        "num_hidden_layers": layers,
        "hidden_size": 8 * heads * draw(st.integers(1, 3)),
        "intermediate_size": 8 * draw(st.integers(1, 9)),
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "q_lora_rank": draw(st.sampled_from([None, 8, 24])),
        "kv_lora_rank": 8 * draw(st.integers(1, 4)),
        "qk_rope_head_dim": 2 * draw(st.integers(1, 4)),
        "qk_nope_head_dim": 2 * draw(st.integers(1, 8)),
        "v_head_dim": 2 * draw(st.integers(1, 8)),
        "first_k_dense_replace": draw(st.integers(0, 2)),
        "n_shared_experts": 1,
        **_experts(draw, family) | {"n_routed_experts": 4 * draw(st.integers(1, 3))},
    }


def _hybrid(draw: Any, family: str, layers: int) -> dict[str, Any]:
    """State-space layers with attention and experts in some places."""
    return {
        "num_hidden_layers": 2 * layers,
        "hidden_size": 16 * draw(st.integers(1, 3)),
        "intermediate_size": 8 * draw(st.integers(1, 9)),
        "num_attention_heads": 4,
        "num_key_value_heads": draw(st.sampled_from([1, 2, 4])),
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": draw(st.integers(0, 1)),
        "mamba_d_state": draw(st.integers(2, 6)),
        "mamba_dt_rank": 2,
    }


def _delta(draw: Any, family: str, layers: int) -> dict[str, Any]:
    """Linear attention by the gated delta rule, full attention in every second layer, experts in all."""
    heads = draw(st.sampled_from([1, 2]))
    return {
        "num_hidden_layers": 2 * layers,
        "layer_types": ["linear_attention", "full_attention"] * layers,
        "hidden_size": 16 * draw(st.integers(1, 3)),
        "intermediate_size": 32,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
        "num_attention_heads": 4,
        "num_key_value_heads": draw(st.sampled_from([1, 2])),
        "head_dim": 16,
        "linear_num_key_heads": heads,
        "linear_num_value_heads": heads * draw(st.integers(1, 2)),
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "num_experts": 4,
        "num_experts_per_tok": 2,
    }


def _states(draw: Any, family: str, layers: int) -> dict[str, Any]:
    """State-space layers alone."""
    return {
        "num_hidden_layers": layers,
        "hidden_size": 8 * draw(st.integers(1, 6)),
        "state_size": draw(st.integers(2, 6)),
        "time_step_rank": draw(st.integers(1, 4)),
    }


def _early(draw: Any, family: str, layers: int) -> dict[str, Any]:
    """Attention code of its own, as many key heads as query heads."""
    heads = draw(st.integers(1, 4))
    return {"n_layer": layers, "hidden_size": 8 * heads * draw(st.integers(1, 3)), "n_head": heads}


def _gpt2(draw: Any, family: str, layers: int) -> dict[str, Any]:
    fields = _early(draw, family, layers)
    return {"n_layer": layers, "n_embd": fields["hidden_size"], "n_head": fields["n_head"], "n_positions": 128}


_FIELDS = {
    "deepseek_v3": _latent,
    "jamba": _hybrid,
    "qwen3_next": _delta,
    "mamba": _states,
    "bloom": _early,
    "gpt2": _gpt2,
}
