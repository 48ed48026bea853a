"""Processes that share small models for real, over gloo on this machine: what each runs, and what it gets."""

from __future__ import annotations

import multiprocessing
import socket
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.distributed.configuration_utils import DistributedConfig
from transformers.distributed.expert_parallel import apply_expert_parallelism
from transformers.distributed.utils import TransformersDeviceMesh

from fxmeter import deploy
from fxmeter.tracer.shard import experts
from fxmeter.tracer.shard.plans import experts_plan as tracer_plan
from tests.tracer import tiny

BATCH, PROMPT = 2, 12
TOKENS = 16
EXPERTS = {**tiny.QWEN_MOE, "num_experts": 8, "num_hidden_layers": 1}
LATENT_HEADS = {f"model.layers.*.self_attn.{part}": "colwise" for part in ("q_b_proj", "kv_b_proj")} | {
    "model.layers.*.self_attn.o_proj": "rowwise"
}
MIXTRAL = {**tiny.LLAMA, "model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2}
CASES = {
    # name: (config, sizes and plan as transformers takes them)
    "llama": (tiny.LLAMA, {"tp_size": 2}),
    "qwen3_moe": (tiny.QWEN_MOE, {"tp_size": 2}),
    "mixtral": (MIXTRAL, {"tp_size": 2}),
    "deepseek_v3": (tiny.DEEPSEEK, {"tp_size": 2, "tp_plan": LATENT_HEADS}),
    "deepseek_v3, experts": (tiny.DEEPSEEK, {"tp_size": 2, "ep_size": 2, "tp_plan": LATENT_HEADS}),
}


class Log(TorchDispatchMode):
    """What one rank runs."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(kind.__module__.startswith("torch.distributed.") for kind in types):
            return NotImplemented
        out = func(*args, **(kwargs or {}))
        self.rows.append((str(func), tuple(tuple(t.shape) for t in tree_leaves(out) if isinstance(t, torch.Tensor))))
        return out


def build(fields: dict) -> nn.Module:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(
        AutoConfig.for_model(**fields), dtype=torch.float32, attn_implementation="eager"
    ).eval()


def shared(model, size: int, options: dict) -> nn.Module:
    """``model`` as transformers shards it."""
    config = DistributedConfig(**options)
    names = ("pp", "dp_replicate", "fsdp", "tp"), ("pp", "dp_replicate", "efsdp", "ep")
    sizes = (1, 1, size // config.tp_size, config.tp_size), (1, 1, size // config.ep_size, config.ep_size)
    meshes = (init_device_mesh("cpu", s, mesh_dim_names=n) for s, n in zip(sizes, names, strict=True))
    return model.maybe_distribute_model(model, config, TransformersDeviceMesh(*meshes))


def passes(model, ids):
    """Stage → arguments of a pass, afresh each time."""
    yield "prefill", lambda: {"input_ids": ids}
    yield (
        "decode",
        lambda: {"input_ids": ids[:, -1:], "past_key_values": model(input_ids=ids[:, :-1]).past_key_values},
    )


@torch.no_grad()
def whole_models(size: int) -> dict:
    """Case → (largest error of the logits, rows of (op, shapes of its results))."""
    found = {}
    ids = torch.randint(0, 40, (BATCH, PROMPT), generator=torch.Generator().manual_seed(1))
    for name, (fields, options) in CASES.items():
        whole, model = build(fields), shared(build(fields), size, options)
        for (stage, wanted), (_, own) in zip(passes(whole, ids), passes(model, ids), strict=True):
            expected = whole(**wanted()).logits
            model(**own())  # DTensor works out shapes when it first meets them
            arguments = own()
            with Log() as log:
                logits = model(**arguments).logits
            found[name, stage] = (logits - expected).abs().max().item(), log.rows
    return found


@torch.no_grad()
def balanced_experts(size: int) -> dict:
    """Exchange → (largest error of what the experts return, rows), each expert chosen equally often.

    Ranks have tokens of their own for an all-to-all, and the same tokens for an all-reduce.
    """
    found = {}
    experts.split = lambda rows, ranks: (
        [rows // ranks] * ranks
    )  # of this process, which ends: rows with data have a way
    for exchange, tp in (("all_to_all", 1), ("fxmeter_all_to_all", 1), ("fxmeter_all_reduce", size)):
        own = 0 if tp > 1 else dist.get_rank()
        hidden = torch.randn(TOKENS, EXPERTS["hidden_size"], generator=torch.Generator().manual_seed(own))
        chosen = torch.stack([torch.arange(TOKENS) % 8, (torch.arange(TOKENS) + 3) % 8], dim=1)
        weights = torch.rand(TOKENS, 2, generator=torch.Generator().manual_seed(own))
        whole, model = build(EXPERTS), build(EXPERTS)
        expected = whole.model.layers[0].mlp.experts(hidden, chosen, weights)
        meshes = (init_device_mesh("cpu", (size // n, n), mesh_dim_names=("rest", "own")) for n in (size, tp))
        apply_expert_parallelism(model, *(m["own"] for m in meshes), experts_plan(model), ep_implementation=exchange)
        with Log() as log:
            out = model.model.layers[0].mlp.experts(hidden, chosen, weights)
        found[exchange] = (out - expected).abs().max().item(), log.rows
    return found


def experts_plan(model) -> dict[str, str]:
    return tracer_plan(model, deploy(ep=2))


def run(size: int, work: Callable[[int], dict]) -> list[dict]:
    """What each of ``size`` processes found, by rank. They are forks: nothing is imported again."""
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [context.Process(target=_rank, args=(rank, size, port, work, answers)) for rank in range(size)]
    for process in ranks:
        process.start()
    found = dict(answers.get(timeout=120) for _ in ranks)
    for process in ranks:
        process.join(timeout=60)
    return [found[rank] for rank in range(size)]


def _rank(rank: int, size: int, port: int, work: Callable[[int], dict], answers) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)
    try:
        answers.put((rank, work(size)))
        dist.barrier()
    except Exception as error:
        answers.put((rank, error))
    dist.destroy_process_group()
