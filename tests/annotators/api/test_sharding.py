"""One rank of a sharded model: what it does, holds and sends, against the model on one device."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import LlamaConfig, Qwen3MoeConfig

from fxmeter import annotate, closed_form, decode, deploy, generation, load_model, prefill
from fxmeter.annotators.pricing.graph import priced_nodes
from fxmeter.models.errors import DeploymentError, FxmeterError
from fxmeter.models.stage_cost import FIELDS
from fxmeter.tracer.load.loading import load_config
from tests.tracer import tiny

LAYERS, HIDDEN, FFN, KV, VOCABULARY, HEADS = 32, 4096, 14336, 1024, 128256, 32  # of Llama-3.1-8B


def ops_with_flops(stage):
    """(module, op) → FLOPs of each op that has any, in order."""
    found: dict[tuple[str, str], list[int]] = {}
    for node in priced_nodes(stage.graph):
        if node.cost.flops:
            found.setdefault((node.module, node.op), []).append(node.cost.flops * node.times)
    return found


@pytest.mark.parametrize("tp", [2, 8])
@pytest.mark.parametrize("scenario", [prefill(2048), decode(4096, batch=8)], ids=["prefill", "decode"])
def test_every_op_of_a_rank_is_a_share_or_replicated(preset_model, tp, scenario):
    model = preset_model("llama-3.1-8b")
    one, rank = annotate(model, scenario), annotate(model, scenario, deployment=deploy(tp=tp))
    whole, part = ops_with_flops(one), ops_with_flops(rank)
    assert whole.keys() == part.keys()
    pairs = [pair for key in whole for pair in zip(whole[key], part[key], strict=True)]
    replicated = sum(mine for all, mine in pairs if all == mine)
    assert all(mine in (all, all // tp) for all, mine in pairs)
    assert tp * rank.cost.flops - one.cost.flops == (tp - 1) * replicated > 0
    assert tp * rank.cost.matmul_flops == one.cost.matmul_flops
    norms = (2 * LAYERS + 1) * HIDDEN * 2
    assert tp * rank.cost.weight_bytes - one.cost.weight_bytes == (tp - 1) * norms
    assert tp * rank.cost.kv_bytes == one.cost.kv_bytes
    assert one.cost.network_bytes == 0


def test_all_reduces_and_the_gathering_of_logits(preset_model):
    """Two all-reduces a layer and one of the embedding, of all hidden states; the logits are gathered."""
    stage = annotate(preset_model("llama-3.1-8b"), prefill(2048), deployment=deploy(tp=8))
    hidden = 2048 * HIDDEN * 2
    summed = [node for node in priced_nodes(stage.graph) if "all_reduce" in node.op or "allreduce" in node.op]
    assert sum(node.times for node in summed) == 2 * LAYERS + 1
    assert sum(node.times * node.operands[0].nbytes for node in summed) == (2 * LAYERS + 1) * hidden == 1_090_519_040
    logits = 2048 * VOCABULARY * 2
    assert stage.cost.network_bytes == 2 * 1_090_519_040 * 7 // 8 + logits * 7 // 8
    assert not stage.uncosted


@pytest.mark.parametrize(
    ("name", "deployment"),
    [
        ("llama-3.1-8b", deploy(tp=4)),
        ("gpt-oss-20b", deploy(tp=8, ep=8)),
        ("qwen3-30b-a3b", deploy(ep=8)),
    ],
)
def test_a_folded_rank_costs_what_the_full_one_does(name, deployment):
    config = load_config(name)
    config.num_hidden_layers, config.layer_types = 4, (config.to_dict().get("layer_types") or [])[:4] or None
    model, scenario = load_model(config), decode(300, batch=8)
    folded, full = (annotate(model, scenario, deployment=deployment, fold=fold) for fold in (None, False))
    assert len(folded.fx_graph.nodes) < 0.6 * len(full.fx_graph.nodes)
    assert {field for field in FIELDS if getattr(folded.cost, field) != getattr(full.cost, field)} == set()


def test_heads_of_keys_and_values_are_copied_where_there_are_fewer_than_ranks(preset_model):
    """16 ranks, 8 heads: twice the projections of keys and values in all, one head on each rank."""
    model = preset_model("llama-3.1-8b")
    one, rank = annotate(model, prefill(2048)), annotate(model, prefill(2048), deployment=deploy(tp=16))
    assert 16 * rank.cost.matmul_flops - one.cost.matmul_flops == LAYERS * 2 * 2048 * HIDDEN * 2 * KV
    assert rank.cost.kv_bytes == LAYERS * 2 * 2048 * 128 * 2
    copies = LAYERS * 2 * KV * HIDDEN * 2
    assert 16 * rank.cost.weight_bytes - one.cost.weight_bytes == copies + 15 * (2 * LAYERS + 1) * HIDDEN * 2


def test_latent_attention_is_sharded_by_heads_and_experts_are_spread(preset_model):
    """DeepSeek-V3: eight ranks compute the low-rank projections and the router each for itself, and share the rest."""
    model, step = preset_model("deepseek-v3"), decode(4096, batch=8)
    one = annotate(model, step, deployment=deploy(kernels="serving"))
    rank = annotate(model, step, deployment=deploy(tp=8, ep=8, kernels="serving"))
    assert one.cost.matmul_flops == 1_142_864_609_280
    assert rank.cost.matmul_flops == 157_276_651_520
    latents, router = 61 * 7168 * (1536 + 512 + 64), 58 * 7168 * 256
    assert 8 * rank.cost.matmul_flops - one.cost.matmul_flops == 7 * 2 * 8 * (latents + router)
    assert rank.cost.kv_bytes == one.cost.kv_bytes


def test_sinks_are_sharded_with_their_heads_without_a_plan_of_transformers(preset_model):
    model = preset_model("gpt-oss-120b")
    one, rank = annotate(model, prefill(2048)), annotate(model, prefill(2048), deployment=deploy(tp=8, ep=8))
    router = 36 * 2 * 2048 * 2880 * 128
    assert 8 * rank.cost.matmul_flops - one.cost.matmul_flops == 7 * router
    assert 8 * rank.cost.kv_bytes == one.cost.kv_bytes
    assert sum(node.times for node in priced_nodes(rank.graph) if node.op == "c10d.allreduce_.default") == 36 * 2


def test_a_rank_has_whole_blocks_of_experts_inner_width(preset_model):
    """gpt-oss: 90 blocks of 32 among eight ranks, 12 for the first one; what it multiplies and stores is 384 wide."""
    model, width = preset_model("gpt-oss-20b"), 12 * 32
    rank = annotate(model, decode(100), deployment=deploy(tp=8))
    experts = rank.modules["model.layers.0.mlp.experts"].cost
    gate_up, down = 2 * width * (2880 // 2 + 90), 2880 * (width // 2 + 12)
    assert experts.weight_bytes == 32 * (gate_up + down + (2 * width + 2880) * 2)
    assert experts.matmul_flops == 4 * 2 * 2880 * (2 * width + width)
    assert any("2,880 is padded to 3,072" in assumed for assumed in rank.assumptions)
    whole = annotate(model, decode(100), deployment=deploy(tp=2))  # 45 blocks each
    assert not any("padded" in assumed for assumed in whole.assumptions)
    plain = annotate(model, decode(100), deployment=deploy(tp=8, weights="bfloat16"))
    assert plain.modules["model.layers.0.mlp.experts"].cost.matmul_flops == 4 * 2 * 2880 * 3 * 360


def test_tokens_go_to_experts_on_other_ranks_and_come_back(preset_model):
    """64 ranks with 8 sequences each: of 8 · 8 rows one goes to each rank, the same come in, in both exchanges."""
    model = preset_model("deepseek-v3")
    one = annotate(model, decode(4096, batch=8))
    rank = annotate(model, decode(4096, batch=8), deployment=deploy(ep=64))
    rows = 8 * 8 * 7168 * 2
    counts = 256 * 8
    assert rank.cost.network_bytes == 58 * (2 * rows + counts) * 63 // 64
    assert rank.cost.matmul_flops == one.cost.matmul_flops  # as many rows from others as go to others
    experts = rank.modules["model.layers.3.mlp.experts"].cost
    assert experts.weight_bytes * 64 == one.modules["model.layers.3.mlp.experts"].cost.weight_bytes
    touched = 4 * (1 - (1 - 8 / 256) ** (8 * 64))
    assert experts.weight_read_bytes == pytest.approx(experts.weight_bytes * touched / 4, rel=1e-8)


def test_closed_forms_know_ranks():
    model, deployment = load_model(LlamaConfig(**tiny.LLAMA)), deploy(tp=2)
    form = closed_form(model, deployment=deployment)
    assert form.at(batch=3, past_len=77) == annotate(model, decode(77, batch=3), deployment=deployment).cost
    batch = form.expressions["network_bytes"].free_symbols.pop()
    assert form.expressions["network_bytes"] == batch * (2 * (2 * 3 + 1) * 32 * 2 + 40 * 2) / 2
    assert form.reason is None


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("llama-3.1-8b", {"tp": 3}, "32 attention heads, which tp=3 ranks cannot share"),
        ("qwen2.5-7b", {"tp": 7}, "4 heads of keys and values, which tp=7 ranks cannot share"),
        ("llama-3.1-8b", {"tp": 32, "weights": "fp8-block"}, "cuts through the blocks of 128"),
        ("llama-3.1-8b", {"ep": 8}, "no experts"),
        ("whisper-large-v3", {"tp": 2}, "an encoder and a decoder, which are priced on one device"),
    ],
)
def test_what_cannot_be_shared_is_refused(preset_model, name, options, said):
    with pytest.raises(FxmeterError, match=said):
        annotate(preset_model(name), prefill(16), deployment=deploy(**options))
    assert not dist.is_initialized()


def test_a_process_group_of_the_users_own_is_left_alone(preset_model):
    dist.init_process_group("fake", store=FakeStore(), rank=1, world_size=4)
    try:
        with pytest.raises(DeploymentError, match="process group of its own"):
            annotate(preset_model("llama-3.1-8b"), prefill(16), deployment=deploy(tp=2))
        assert (dist.get_rank(), dist.get_world_size()) == (1, 4)
        assert annotate(preset_model("llama-3.1-8b"), prefill(16)).cost.network_bytes == 0
    finally:
        dist.destroy_process_group()


def test_the_model_is_unchanged_and_no_group_is_left(preset_model):
    model = preset_model("llama-3.1-8b")
    before, hook = annotate(model, prefill(16)).cost, sys.excepthook
    annotate(model, prefill(16), deployment=deploy(tp=2))
    assert not dist.is_initialized()
    assert sys.excepthook is hook
    assert annotate(model, prefill(16)).cost == before


@pytest.mark.parametrize(
    "sizes",
    [{"ep": 4}, {"tp": 2, "ep": 2}, {"tp": 4, "ep": 4}, {"tp": 2, "ep": 4}],
    ids=["all come back", "as many as are chosen", "rounded up", "a part of the tokens"],
)
@pytest.mark.parametrize("stage", ["prefill", "decode"])
def test_closed_forms_know_the_exchange_of_tokens(stage, sizes):
    """Two of four experts are chosen: four ranks that share B tokens compute ⌈B/2⌉ rows each, and of four ranks in
    pairs each sends ⌈B/2⌉ tokens."""
    model, deployment = load_model(Qwen3MoeConfig(**tiny.QWEN_MOE)), deploy(**sizes)
    form = closed_form(model, stage=stage, deployment=deployment)
    for batch, length in ((1, 77), (1, 1), (2, 2), (3, 77), (6, 13), (64, 301)):
        scenario = prefill(length, batch=batch) if stage == "prefill" else decode(length, batch=batch)
        at = {"query_len": length} if stage == "prefill" else {"past_len": length}
        assert form.at(batch=batch, **at) == annotate(model, scenario, deployment=deployment).cost
    assert form.reason is None


def test_the_rows_of_the_fullest_rank_are_a_floor_in_the_formula():
    """Three products of 2 · 32 · 16 for each row of an expert."""
    form = closed_form(load_model(Qwen3MoeConfig(**tiny.QWEN_MOE)), deployment=deploy(tp=4, ep=4))
    experts = form.modules["model.layers.0.mlp.experts"]
    rows = [experts.at(batch=batch, past_len=9).matmul_flops // (3 * 2 * 32 * 16) for batch in range(1, 8)]
    assert rows == [1, 1, 2, 2, 3, 3, 4]


def test_steps_with_a_rounded_number_of_rows_add_up():
    model, deployment = load_model(Qwen3MoeConfig(**tiny.QWEN_MOE)), deploy(tp=4, ep=4)
    steps = [annotate(model, decode(20 + step), deployment=deployment).cost.flops for step in range(9)]
    assert annotate(model, generation(20, steps=9), deployment=deployment).cost.flops == sum(steps)


def test_a_decoder_without_a_class_of_its_own_is_shared_by_the_plan_inside_it(preset_model):
    """DeepSeek-OCR: of 11 expert layers the router is what both ranks compute, and the norms what both hold."""
    model, step = preset_model("deepseek-ocr"), decode(1000, batch=8)
    one, rank = annotate(model, step), annotate(model, step, deployment=deploy(tp=2))
    assert 2 * rank.cost.matmul_flops - one.cost.matmul_flops == 11 * 2 * 8 * 1280 * 64
    assert 2 * rank.cost.kv_bytes == one.cost.kv_bytes


def test_what_shards_is_imported_by_sharded_passes_alone():
    """At the top of no file outside of its room, so that a pass on one device pays for none of it."""
    root = Path(__file__).parents[3]
    files = [file for floor in ("tracer", "annotators") for file in (root / floor).rglob("*.py")]
    asking = [
        file for file in files if "\nfrom fxmeter.tracer.shard" in file.read_text() and file.parent.name != "shard"
    ]
    assert asking == []
    assert "    from fxmeter.tracer.shard.rank import PADDING, rank_of" in (root / "tracer/run/passes.py").read_text()
