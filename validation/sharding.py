"""Ranks of every causal-LM type that transformers has a tensor-parallel plan for, against the model on one device.

    python -m validation.sharding [--tp N] [TYPE ...]

Of each type a small config is recorded folded and in full. Every op with FLOPs must be an N-th of the whole's or the
same on all ranks, so that N times the rank less the whole is (N − 1) times what is replicated; folded and full cost the
same.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from transformers import PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from fxmeter import annotate, decode, deploy, load_model, prefill
from fxmeter.annotators.pricing.graph import priced_nodes
from fxmeter.annotators.stages.rollup import AnnotatedStage
from fxmeter.models.errors import DeploymentError, FxmeterError
from fxmeter.models.scenario import Scenario
from fxmeter.models.stage_cost import FIELDS
from validation.small_configs import HEADS, KV_HEADS, SIZES, default_config, small_config

ON_RANKS_ALONE = {
    "identity_expert": "experts that hand on their input divide it by the number of ranks, which add it up"
}
"""Modules that compute on a rank and not on one device, by their names, and why."""

SCENARIOS = (prefill(24, batch=2), decode(40, batch=2))


Work: TypeAlias = tuple[int, int]
"""FLOPs of an op, and the numbers that it results in."""


@dataclass(frozen=True, slots=True)
class Held:
    """What was found of a type: ``refused`` in words, or ops, weights and caches that are neither a share nor
    replicated (``other``), the fields in which folded and full differ, and ops without a rule."""

    refused: str = ""
    other: tuple[str, ...] = ()
    unfolded: tuple[str, ...] = ()
    uncosted: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether all is as it should be."""
        return not (self.refused or self.other or self.unfolded or self.uncosted)


def types_with_a_plan() -> Iterator[str]:
    """The model types whose small config makes a model with a tensor-parallel plan for its layers."""
    for model_type in sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        try:
            config = small_config(model_type)
        except Exception:  # what cannot be built is shown by validation.coverage
            continue
        if getattr(config, "base_model_tp_plan", None):
            yield model_type


def config_for(model_type: str, tp: int) -> PreTrainedConfig:
    """A small config whose heads and widths ``tp`` ranks can share."""
    stated = default_config(model_type).to_dict()
    heads = [name for name, size in SIZES.items() if size == HEADS and "head" in name]
    heads += [name for name in KV_HEADS if stated.get(name) == stated.get("num_attention_heads")]
    heads = [name for name in heads if tp > HEADS and isinstance(stated.get(name), int)]
    config = small_config(model_type, **dict.fromkeys(heads, tp))
    for name, value in config.to_dict().items():
        if name in KV_HEADS and isinstance(value, int) and value < tp:
            setattr(config, name, tp)
    return config


def held(model_type: str, tp: int) -> Held:
    """Hold the ranks of a type's small model to the whole."""
    return held_config(config_for(model_type, tp), tp)


def held_config(config: PreTrainedConfig, tp: int) -> Held:
    """The same of any config's model."""
    try:
        return held_model(load_model(config, dtype=torch.float32), SCENARIOS, tp)
    except DeploymentError as error:
        return Held(refused=f"refused: {error}")
    except FxmeterError as error:
        return Held(refused=str(error))


def held_model(model: torch.nn.Module, scenarios: Sequence[Scenario], tp: int) -> Held:
    """The same of a model, in these passes."""
    found = [_held(model, scenario, tp) for scenario in scenarios]
    return Held("", *(tuple(dict.fromkeys(item for one in found for item in one[place])) for place in range(3)))


def _held(model: torch.nn.Module, scenario: Scenario, tp: int) -> tuple[list[str], list[str], list[str]]:
    one = annotate(model, scenario, fold=False)
    rank, full = (annotate(model, scenario, deployment=deploy(tp=tp), fold=fold) for fold in (None, False))
    unfolded = [name for name in FIELDS if getattr(rank.cost, name) != getattr(full.cost, name)]
    return [*_other(one, full, tp), *_other_bytes(one, full, tp)], unfolded, [item.op for item in rank.uncosted]


def _other(one: AnnotatedStage, rank: AnnotatedStage, tp: int) -> list[str]:
    """Work of a rank that is neither a share nor replicated, by module."""
    whole, part = _by_module(one), _by_module(rank)
    return [
        f"{module}, {kind}: {whole.get((module, kind))} on one device, {part.get((module, kind))} on a rank"
        for module, kind in dict.fromkeys([*whole, *part])
        if not _on_ranks_alone(module, whole.get((module, kind), []), part.get((module, kind), []))
        and not _shared(whole.get((module, kind), []), part.get((module, kind), []), tp)
    ]


def _other_bytes(one: AnnotatedStage, rank: AnnotatedStage, tp: int) -> list[str]:
    """Weights and caches of a rank that are neither a share nor replicated, and totals that they do not explain."""
    found = []
    for name, whole, part in (
        ("weight_bytes", *({weight.path: weight.nbytes for weight in s.recording.weights} for s in (one, rank))),
        ("kv_bytes", *({(each.layers, each.name): each.nbytes for each in s.recording.cache} for s in (one, rank))),
    ):
        odd = [key for key in dict.fromkeys([*whole, *part]) if part.get(key) not in _parts(whole.get(key, 0), tp)]
        again = sum(tp * nbytes - whole.get(key, 0) for key, nbytes in part.items())
        rest = tp * getattr(rank.cost, name) - getattr(one.cost, name) - again
        found += [f"{key}, {name}: {whole.get(key)} on one device, {part.get(key)} on a rank" for key in odd]
        found += [f"{name}: {rest} that no part explains"] if rest else []
    return found


def _on_ranks_alone(module: str, whole: Sequence[Work], part: Sequence[Work]) -> bool:
    """Whether a rank does what one device does not, one op for each number, where that is known."""
    return module.rpartition(".")[2] in ON_RANKS_ALONE and not whole and all(flops == n for flops, n in part)


def _shared(whole: Sequence[Work], part: Sequence[Work], tp: int) -> bool:
    if sorted(whole) == sorted(part):  # tables for kinds of layers come in the order of a set
        return True
    return len(whole) == len(part) and all(_is_share(a, b, tp) for a, b in zip(whole, part, strict=True))


def _is_share(whole: Work, part: Work, tp: int) -> bool:
    """Whether a rank does all of an op, or a share. Of a mean or a deviation over what is shared each rank finishes
    every result by itself: one op more, or two, for each."""
    (flops, results), (own, own_results) = whole, part
    finishing = tp * own - flops if results == own_results else 0
    return own in _parts(flops, tp) or finishing in [(tp - 1) * ops * results for ops in (1, 2)]


def _parts(whole: int, tp: int) -> tuple[int, int, int]:
    return whole, whole // tp, -(-whole // tp)


def _by_module(stage: AnnotatedStage) -> dict[tuple[str, str], list[Work]]:
    """(module, kind of FLOPs) → those of each op that has any. A product with a bias is one op or two."""
    found: dict[tuple[str, str], list[Work]] = {}
    for node in priced_nodes(stage.graph):
        for kind in ("matmul_flops", "vector_flops"):
            if amount := getattr(node.cost, kind):
                results = sum(spec.numel for spec in node.results)
                found.setdefault((node.module, kind), []).append((amount * node.times, results * node.times))
    return found


def main(types: Sequence[str], tp: int) -> int:
    """Print a line for each type; the number of those that do not hold."""
    failures = 0
    for model_type in types or types_with_a_plan():
        found = held(model_type, tp)
        failures += not found.holds
        print(model_type, "holds" if found.holds else found, flush=True)
    return failures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tp", type=int, default=2)
    parser.add_argument("types", nargs="*")
    given = parser.parse_args()
    raise SystemExit(min(main(given.types, given.tp), 1))
