"""Two opinions side by side: the trace, and the hand-written layer models of :mod:`models`, module by module.

FLOPs, weights and KV must be equal to the unit. Activations and I/O of the hand-written models list the tensors that an
engineer would list; the trace sees every tensor that PyTorch makes, so their ratio must lie in a band.
``docs/layer_io_estimation_guide.md`` names the tensors behind each band.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fxmeter.annotators.api import annotate
from fxmeter.annotators.sheets.tables import CONTAINERS
from fxmeter.annotators.stages.rollup import AnnotatedStage
from fxmeter.models.deployment import Deployment, deploy
from fxmeter.models.errors import ScenarioError
from fxmeter.models.hand.hand_written import hand_written_model, served_model
from fxmeter.models.hand.layer import Layer
from fxmeter.models.hand.mla import AbsorbedProjection
from fxmeter.models.hand.vision_tower import DeepseekOCRVision
from fxmeter.models.names import Fields
from fxmeter.models.scenario import Scenario, VisionScenario
from fxmeter.models.stage_cost import StageCost
from fxmeter.tracer.run.patches.attention import Attention

EXACT = (
    "matmul_flops",
    "vector_flops",
    "weight_read_bytes",
    "kv_read_bytes",
    "kv_write_bytes",
    "kv_bytes",
    "weight_bytes",
)
BANDED = ("activation_read_bytes", "activation_write_bytes", "activation_bytes", "io_bytes")
EXACT_OF_VISION = ("matmul_flops", "weight_bytes", "kv_read_bytes", "kv_write_bytes", "kv_bytes")

Band = tuple[float, float]
EQUAL: Band = (1.0, 1.0)

BANDS: Mapping[tuple[str, str], Band] = {
    # (hand-written class, attention, or "absorbed" for latent attention in a serving kernel): traced / hand-written
    ("MoEGate", "both"): (0.999, 1.0),
    ("DeepseekV2Experts", "both"): (1.0, 1.008),
    ("DeepseekV2MoE", "both"): (1.0, 1.003),
    ("LlamaAttention", "eager"): (1.0, 4 / 3),
    ("DeepseekV2Attention", "eager"): (1.0, 4 / 3),
    ("LlamaDecoderLayer", "eager"): (1.0, 4 / 3),
    ("DeepseekV2DecoderLayer", "eager"): (1.0, 4 / 3),
    ("DeepseekV2DecoderLayer", "flash"): (1.0, 1.003),
    ("Decoder", "eager"): (1.0, 4 / 3),
    ("Decoder", "flash"): (1.0, 1.002),
    ("LlamaModel", "eager"): (1.0, 4 / 3),
    ("DeepseekModel", "eager"): (1.0, 4 / 3),
    ("DeepseekModel", "flash"): (1.0, 1.002),
    ("DeepseekOCRModel", "eager"): (1.0, 4 / 3),
    ("DeepseekOCRModel", "flash"): (1.0, 1.002),
    ("DeepseekV2AbsorbedAttention", "absorbed"): (1.0, 1.5),
    ("DeepseekV2DecoderLayer", "absorbed"): (1.0, 1.3),
    ("Decoder", "absorbed"): (1.0, 1.2),
    ("DeepseekModel", "absorbed"): (1.0, 1.2),
}
"""Everything else (linear layers, norms, MLPs, embeddings, activations, and all of flash attention) must be equal."""

VISION_BANDS: Mapping[str, Band] = {
    # last part of the module's path → traced / hand-written; a block's number is left out
    "": (1.0, 1.20),
    "sam": (1.0, 1.20),
    "sam.layers": (1.0, 1.30),
    "sam.layers.attn": (1.0, 1.28),
    "sam.layers.layer_norm1": (1.0, 1.01),
    "sam.layers.layer_norm2": (1.0, 1.01),
    "sam.neck": (1.0, 1.01),
    "sam.neck.layer_norm1": (1.0, 1.02),
    "sam.neck.layer_norm2": (1.0, 1.02),
    "clip": (1.0, 1.12),
    "clip.embeddings": (1.0, 11.0),
    "clip.pre_layrnorm": (1.0, 1.01),
    "clip.encoder": (1.0, 1.12),
    "clip.encoder.layers": (1.0, 1.12),
    "clip.encoder.layers.self_attn": (1.0, 1.25),
    "clip.encoder.layers.layer_norm1": (1.0, 1.01),
    "clip.encoder.layers.layer_norm2": (1.0, 1.01),
}


AS_CODED = deploy(weights="bfloat16")
"""Hand-written layers know one dtype for all weights: the trace is priced without the checkpoint's storage format."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One quantity of one module, by both opinions. ``band`` None means that they must be equal."""

    path: str
    times: int
    field: str
    traced: int
    hand_written: int
    band: Band | None

    @property
    def difference(self) -> int:
        """Traced minus hand-written."""
        return self.traced - self.hand_written

    @property
    def ratio(self) -> float:
        """Traced over hand-written; 1 where both are nothing."""
        if self.hand_written == 0:
            return 1.0 if self.traced == 0 else float("inf")
        return self.traced / self.hand_written

    @property
    def ok(self) -> bool:
        """Equal, or inside the band."""
        if self.band is None or self.band == EQUAL:
            return self.difference == 0
        low, high = self.band
        return low <= self.ratio <= high


@dataclass(frozen=True, slots=True)
class StageCheck:
    """All modules of one stage."""

    stage: AnnotatedStage
    rows: tuple[Comparison, ...]
    written_within: tuple[str, ...]
    """Modules that cost something and have no model of their own: they are part of their parent's."""

    @property
    def failures(self) -> tuple[Comparison, ...]:
        """The comparisons that do not hold."""
        return tuple(row for row in self.rows if not row.ok)

    def by_module(self) -> Mapping[str, Mapping[str, Comparison]]:
        """Path → field → comparison, in the order of the tree."""
        found: dict[str, dict[str, Comparison]] = {}
        for row in self.rows:
            found.setdefault(row.path, {})[row.field] = row
        return found


@dataclass(frozen=True, slots=True)
class Tally:
    """Comparisons: of ``exact`` ones those ``equal``, of ``banded`` ones those ``close`` and those the ``same``."""

    exact: int
    equal: int
    banded: int
    close: int
    same: int

    @property
    def holds(self) -> bool:
        """Whether all of them do."""
        return (self.equal, self.close) == (self.exact, self.banded)


def tally(checks: Iterable[StageCheck]) -> Tally:
    """Over all modules of all stages."""
    rows = [row for check in checks for row in check.rows]
    exact, banded = ([row for row in rows if (row.band is None) == exactly] for exactly in (True, False))
    close = [row for row in banded if row.ok]
    same = [row for row in banded if row.difference == 0]
    return Tally(len(exact), sum(row.ok for row in exact), len(banded), len(close), len(same))


def check_decoder(
    model: Any,
    config: Fields,
    scenario: Scenario,
    attention: Attention,
    deployment: Deployment = AS_CODED,
) -> StageCheck:
    """Compare every module of a decoder, as transformers or as an engine runs it.

    ``config`` has the fields of the model's ``config.json``. Raises ScenarioError for storage formats: hand-written
    layers know one dtype.
    """
    if deployment.kv is not None or deployment.weights not in (None, AS_CODED.weights):
        raise ScenarioError("hand-written layers keep weights and cache in one dtype; leave --weights and --kv out")
    if deployment.devices > 1:
        raise ScenarioError("hand-written layers are on one device; leave --tp, --ep and --dp out")
    element_bytes = next(model.parameters()).element_size()
    if deployment.kernels == "serving":
        written = served_model(config, scenario.stage, element_bytes=element_bytes)
    else:
        written = hand_written_model(config, attention=attention, element_bytes=element_bytes)
    costs = written.modules(scenario.batch, scenario.query_len, scenario.kv_len)
    kinds = dict(_kinds(written))
    absorbed = [path for path, kind in kinds.items() if kind == AbsorbedProjection.__name__]
    for path in absorbed:  # the attention around it reads the weights; the module itself never runs
        costs[path] = StageCost(weight_bytes=costs[path].weight_bytes)
    stage = annotate(model, scenario, attention=attention, deployment=replace(deployment, weights=AS_CODED.weights))

    def band(path: str, field: str) -> Band | None:
        if field in EXACT:
            return None
        name, kind = kinds[path], "absorbed" if absorbed else attention
        return BANDS.get((name, kind), BANDS.get((name, attention), BANDS.get((name, "both"), EQUAL)))

    return _check(stage, costs, band, (*EXACT, *BANDED))


def check_vision(tower: Any, scenario: VisionScenario, attention: Attention) -> StageCheck:
    """Compare every module of DeepSeek-OCR's vision tower."""
    element_bytes = next(tower.parameters()).element_size()
    written = DeepseekOCRVision(attention=attention, element_bytes=element_bytes)
    costs = written.modules(scenario.batch, *scenario.crops)
    stage = annotate(tower, scenario, attention=attention)
    banded = [field for field in (*EXACT, *BANDED) if field not in EXACT_OF_VISION]

    def band(path: str, field: str) -> Band | None:
        if field in EXACT_OF_VISION:
            return None
        return VISION_BANDS.get(".".join(part for part in path.split(".") if not part.isdigit()), EQUAL)

    return _check(stage, costs, band, (*EXACT_OF_VISION, *banded))


def _kinds(layer: Layer, path: str = "") -> Iterator[tuple[str, str]]:
    """Path → class name, for a hand-written layer and everything in it."""
    yield path, type(layer).__name__
    for name, part in layer.children().items():
        yield from _kinds(part, f"{path}.{name}" if path else name)


def _check(
    stage: AnnotatedStage,
    written: Mapping[str, StageCost],
    band: Callable[[str, str], Band | None],
    fields: tuple[str, ...],
) -> StageCheck:
    """Every recorded module beside the model that somebody has written of it."""
    rows: list[Comparison] = []
    within: list[str] = []
    for path, module in stage.modules.items():
        other = written.get(path)
        if other is not None:
            for field in fields:
                values = getattr(module.cost, field), getattr(other, field)
                rows.append(Comparison(path, module.times, field, *values, band(path, field)))
        elif module.class_name not in CONTAINERS and module.cost != StageCost():
            within.append(path)
    return StageCheck(stage, tuple(rows), tuple(within))
