"""Decoder layers of transformers and their parts, each as a module with the tensors to call it with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.llama import modeling_llama as llama

HIDDEN, INTERMEDIATE = 256, 512
HEADS, KV_HEADS, HEAD_DIM = 4, 2, 64
COMMON: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "vocab_size": 128,
    "max_position_embeddings": 128,
}
DEEPSEEK: dict[str, Any] = {
    **COMMON,
    "num_key_value_heads": HEADS,
    "moe_intermediate_size": 128,
    "first_k_dense_replace": 1,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "n_shared_experts": 1,
    "q_lora_rank": 64,
    "kv_lora_rank": 64,
    "qk_rope_head_dim": 32,
    "qk_nope_head_dim": 64,
    "v_head_dim": 64,
}
GEMMA: dict[str, Any] = {
    **COMMON,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD_DIM,
    "layer_types": ["full_attention"] * 2,
}


@dataclass(frozen=True, slots=True)
class Size:
    """Sequences, and tokens in each."""

    batch: int = 2
    length: int = 64

    @property
    def tokens(self) -> int:
        """All of them."""
        return self.batch * self.length


@dataclass(frozen=True)
class Part:
    """A module and what it is called with."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def model_of(model_type: str, fields: dict[str, Any]) -> nn.Module:
    """A small causal language model with real float32 weights, eager attention."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **fields)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()


def llama_model() -> Any:
    """Grouped queries."""
    return model_of("llama", {**COMMON, "num_key_value_heads": KV_HEADS}).model


class Rotary(nn.Module):
    """Queries and keys turned by their positions."""

    def forward(self, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        return llama.apply_rotary_pos_emb(query, key, cos, sin)


class SoftmaxAttention(nn.Module):
    """The eager attention core."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        return llama.eager_attention_forward(self.attention, query, key, value, mask, self.attention.scaling)[0]


def hidden(size: Size) -> Tensor:
    """States between layers."""
    return torch.randn(size.batch, size.length, HIDDEN)


def mask(size: Size) -> Tensor:
    """An additive causal mask."""
    return torch.full((size.length, size.length), torch.finfo(torch.float32).min).triu(1)[None, None]


def heads(size: Size, count: int) -> Tensor:
    """Queries, keys or values as a projection leaves them: heads are a view of the hidden dimension."""
    return torch.randn(size.batch, size.length, count, HEAD_DIM).transpose(1, 2)


def rms_norm(size: Size) -> Part:
    """A norm's square, mean, root and scale."""
    return Part(llama_model().layers[0].input_layernorm, (hidden(size),), {})


def rotary(size: Size) -> Part:
    """Both halves of every head."""
    angles = torch.randn(1, size.length, HEAD_DIM)
    return Part(Rotary(), (heads(size, HEADS), heads(size, KV_HEADS), angles, angles + 1), {})


def attention(size: Size) -> Part:
    """Keys and values repeated, scores, mask, softmax, weighted sum."""
    core = SoftmaxAttention(llama_model().layers[0].self_attn)
    return Part(core, (heads(size, HEADS), heads(size, KV_HEADS), heads(size, KV_HEADS), mask(size)), {})


def swiglu(size: Size) -> Part:
    """Three products and a gate."""
    return Part(llama_model().layers[0].mlp, (hidden(size),), {})


def layer_norm_mlp(size: Size) -> Part:
    """A norm with mean and bias, two products with biases, GELU with tanh."""
    block = model_of("gpt2", {"n_embd": HIDDEN, "n_head": HEADS, "n_layer": 2, "vocab_size": 128}).transformer.h[0]
    return Part(nn.Sequential(block.ln_2, block.mlp), (hidden(size),), {})


def router(size: Size) -> Part:
    """Groups first, then experts."""
    return Part(model_of("deepseek_v3", DEEPSEEK).model.layers[1].mlp.gate, (hidden(size),), {})


def layer(size: Size, model: Any, index: int, rope_dim: int) -> Part:
    """A whole decoder layer, no cache."""
    angles = torch.randn(1, size.length, rope_dim)
    given = {"position_embeddings": (angles, angles + 1), "attention_mask": mask(size)}
    return Part(model.layers[index], (hidden(size),), given)


PARTS: dict[str, Callable[[Size], Part]] = {
    "RMSNorm (Llama)": rms_norm,
    "rotary embedding (Llama)": rotary,
    "softmax attention, eager (Llama, grouped queries)": attention,
    "SwiGLU MLP (Llama)": swiglu,
    "LayerNorm and GELU MLP (GPT-2)": layer_norm_mlp,
    "router (DeepSeek-V3)": router,
    "whole layer (Llama)": lambda size: layer(size, llama_model(), 0, HEAD_DIM),
    "whole layer (Gemma 3)": lambda size: layer(size, model_of("gemma3_text", GEMMA).model, 0, HEAD_DIM),
    "whole layer (DeepSeek-V3, dense)": lambda size: layer(size, model_of("deepseek_v3", DEEPSEEK).model, 0, 32),
    "whole layer (DeepSeek-V3, experts)": lambda size: layer(size, model_of("deepseek_v3", DEEPSEEK).model, 1, 32),
}
