"""Heads that a model caches once for every query head, and an engine once."""

from __future__ import annotations

import pytest
from transformers import AutoConfig

from fxmeter import annotate, closed_form, decode, deploy, load_model, prefill

SERVING = deploy(kernels="serving")
SIZES = {"hidden_size": 64, "num_attention_heads": 8, "num_hidden_layers": 2, "vocab_size": 40}


def falcon(**more):
    return load_model(AutoConfig.for_model("falcon", **SIZES, **more))


def test_heads_that_are_repeated_are_kept_read_and_written_once():
    """Two heads of eight wide, cached for each of eight query heads."""
    model = falcon(new_decoder_architecture=True, num_kv_heads=2)
    own, served = (annotate(model, decode(100, batch=3), deployment=d).cost for d in (deploy(), SERVING))
    token = 2 * 2 * 2 * 8 * 2  # layers, keys and values, heads, width, bytes
    assert served.kv_bytes == 3 * 101 * token
    assert served.kv_write_bytes == 3 * token
    assert (own.kv_bytes, own.kv_write_bytes, own.kv_read_bytes) == tuple(
        4 * amount for amount in (served.kv_bytes, served.kv_write_bytes, served.kv_read_bytes)
    )
    assert own.matmul_flops == served.matmul_flops
    assert closed_form(model, deployment=SERVING).at(batch=3, past_len=100) == served
    assert annotate(model, prefill(9), deployment=SERVING).cost.kv_bytes == 9 * token


@pytest.mark.parametrize("more", [{"multi_query": True}, {"multi_query": False}])
def test_heads_that_differ_stay(more):
    model = falcon(new_decoder_architecture=False, **more)
    own, served = (annotate(model, decode(100), deployment=d).cost.kv_bytes for d in (deploy(), SERVING))
    assert own == served
