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

import torch
from transformers import PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from fxmeter import annotate, decode, deploy, load_model, prefill
from fxmeter.annotators.pricing.graph import priced_nodes
from fxmeter.annotators.stages.rollup import AnnotatedStage
from fxmeter.models.errors import DeploymentError, FxmeterError
from fxmeter.models.stage_cost import FIELDS
from validation.small_configs import KV_HEADS, small_config

NOT_SHARED = {
    "dots3_note": "transformers' style for latent attention asks for a field that differs from layer to layer",
    "dots3_note_text": "the same",
    "inkling_text": "its embedding norm meets a distributed and a plain tensor",
    "gemma3n": "statistics over the inner width of an MLP, of which a rank has a part: sums, one less for each",
    "gemma3n_text": "the same",
    "longcat_flash": "experts that hand on their input divide it by the number of ranks, which one device does not",
}
"""Types with a plan that do not hold, and why."""

SCENARIOS = (prefill(24, batch=2), decode(40, batch=2))


@dataclass(frozen=True, slots=True)
class Held:
    """What was found of a type: ``refused`` in words, or ops that are neither a share nor replicated (``other``), the
    fields in which folded and full differ, and ops without a rule."""

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
    config = small_config(model_type)
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
        model = load_model(config, dtype=torch.float32)
        found = [_held(model, scenario, tp) for scenario in SCENARIOS]
    except DeploymentError as error:
        return Held(refused=f"refused: {error}")
    except FxmeterError as error:
        return Held(refused=str(error))
    return Held("", *(tuple(dict.fromkeys(item for one in found for item in one[place])) for place in range(3)))


def _held(model: torch.nn.Module, scenario: object, tp: int) -> tuple[list[str], list[str], list[str]]:
    one = annotate(model, scenario)
    rank, full = (annotate(model, scenario, deployment=deploy(tp=tp), fold=fold) for fold in (None, False))
    unfolded = [name for name in FIELDS if getattr(rank.cost, name) != getattr(full.cost, name)]
    return _other(one, rank, tp), unfolded, [item.op for item in rank.uncosted]


def _other(one: AnnotatedStage, rank: AnnotatedStage, tp: int) -> list[str]:
    """Work of a rank that is neither a share nor replicated, by module."""
    whole, part = _by_module(one), _by_module(rank)
    return [
        f"{module}, {kind}: {whole.get((module, kind))} on one device, {part.get((module, kind))} on a rank"
        for module, kind in dict.fromkeys([*whole, *part])
        if not _shared(whole.get((module, kind), []), part.get((module, kind), []), tp)
    ]


def _shared(whole: Sequence[int], part: Sequence[int], tp: int) -> bool:
    return len(whole) == len(part) and all(b in (a, a // tp, -(-a // tp)) for a, b in zip(whole, part, strict=True))


def _by_module(stage: AnnotatedStage) -> dict[tuple[str, str], list[int]]:
    """(module, kind of FLOPs) → those of each op that has any. A product with a bias is one op or two."""
    found: dict[tuple[str, str], list[int]] = {}
    for node in priced_nodes(stage.graph):
        for kind in ("matmul_flops", "vector_flops"):
            if amount := getattr(node.cost, kind):
                found.setdefault((node.module, kind), []).append(amount * node.times)
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
