"""What the page holds, as plain data: sheets, devices, the table of figures, what was counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fxmeter.annotators.closed.form import ClosedForm
from fxmeter.annotators.closed.formulas import pieces_of
from fxmeter.annotators.conventions import Conventions
from fxmeter.annotators.documents.head import conventions_of
from fxmeter.annotators.page.formulas import Formulas
from fxmeter.annotators.sheets.piece import Piece
from fxmeter.annotators.timing.kernel import AMOUNTS, Kernel
from fxmeter.annotators.timing.limits import LARGEST_BATCH, SHORTEST, beyond
from fxmeter.annotators.timing.roofline import BYTES
from fxmeter.models.devices import Device
from fxmeter.models.figures import Figure, shown
from fxmeter.models.model_info import ModelInfo
from fxmeter.models.scenario import decode, prefill
from fxmeter.models.sizes import LARGEST_SIZE
from fxmeter.models.stage_cost import FIGURES, PASS_FIGURES, StageCost
from fxmeter.models.version import versions

Content = dict[str, Any]
MOST_STEPS = 256
"""Steps of a generation that a page adds up, one by one and for each point of its curves."""
SHOWN: tuple[Figure, ...] = shown(FIGURES, PASS_FIGURES)
_OF_MODULES = tuple(figure.name for figure in SHOWN if figure.whole and figure.name in FIGURES)


@dataclass(frozen=True, slots=True)
class Alternative:
    """A closed form that the page evaluates, and the model as it is stored and run in it."""

    form: ClosedForm
    info: ModelInfo


@dataclass(frozen=True, slots=True)
class Start:
    """What the page shows first: tokens of a prompt and cached ones of ``steps`` decode steps, rows and columns of a
    page's crops; ``device`` is the name of one, or "" for none."""

    stage: str
    attention: str
    batch: int
    prefill: int
    decode: int
    device: str
    steps: int = 1
    rows: int = 0
    columns: int = 0


def content_of(
    alternatives: Sequence[Alternative], devices: Iterable[Device], start: Start
) -> tuple[Content, list[str]]:
    """All of the page's data, and the formulas of each of its sheets as JavaScript.

    Raises:
        NoFormula: a stage has no closed form.
    """
    devices = tuple(devices)
    sheets, texts, dtypes = [], [], set()
    for each in alternatives:
        sheet, kernels, text = _sheet(each)
        sheets.append({**sheet, "extrapolated": {device.name: list(beyond(kernels, device)) for device in devices}})
        texts.append(text)
        dtypes |= {kernel.dtype for kernel in kernels}
    info = alternatives[0].info
    content = {
        "model": {"name": info.name, "max_positions": info.max_positions, "facts": _facts(info)},
        "versions": versions(),
        "figures": [
            {
                "name": row.name,
                "label": row.label,
                "unit": row.unit,
                "sources": row.sources,
                "under": row.under,
                "hidden_at_zero": row.hidden_at_zero,
                "if_other": row.if_other,
                "over_steps": row.over_steps,
                "over_parts": row.over_parts,
            }
            for row in SHOWN
        ],
        "figures_of_modules": _OF_MODULES,
        "sheets": sheets,
        "devices": [_device(device, sorted(dtypes)) for device in devices],
        "limits": _limits(devices),
        "largest_size": LARGEST_SIZE,
        "most_steps": MOST_STEPS,
        "start": asdict(start),
    }
    return content, texts


def _sheet(each: Alternative) -> tuple[Content, list[Kernel], str]:
    sheet, info = each.form.sheet, each.info
    subject = sheet.subject
    formulas = Formulas(subject.sizes)
    pieces, timed = pieces_of(sheet, info.name), pieces_of(sheet.for_time, info.name)
    data = {
        "stage": subject.stage,
        "attention": subject.attention,
        "weights": info.weights,
        "kv": info.kv,
        "kernels": info.kernels,
        "tp": str(info.sharding.get("tp", 1)),
        "rank": ", ".join(f"{name} {size}" for name, size in info.sharding.items() if size > 1),
        "conventions": _conventions(info, subject.conventions),
        "encoder_len": subject.encoder_len,
        "pieces": [_piece(piece, formulas) for piece in pieces],
        "timed": [_timed(piece, formulas) for piece in timed],
    }
    return data, [kernel for piece in timed for kernel in piece.kernels], formulas.text


def _where(piece: Piece, formulas: Formulas) -> Content:
    region = piece.region
    return {
        "lower": region.lower,
        "upper": region.upper,
        "sums": region.sums,
        "guards": [[formulas.place(guard.value), guard.relation] for guard in piece.guards],
    }


def _piece(piece: Piece, formulas: Formulas) -> Content:
    def cost(of: StageCost) -> list[int]:
        return [formulas.place(getattr(of, name)) for name in _OF_MODULES]

    return {
        **_where(piece, formulas),
        "modules": [
            [module.path, module.class_name, module.times, cost(module.cost)]
            for module in piece.modules.recorded.values()
        ],
        "of_pass": {name: formulas.place(getattr(piece, name)) for name in PASS_FIGURES},
        "uncosted": piece.uncosted_executions,
        "kv_cache": [
            [
                each.layer,
                each.kind,
                [list(map(formulas.place, shape)) for shape in each.shapes],
                formulas.place(each.bytes),
            ]
            for each in piece.kv_cache
        ],
    }


def _timed(piece: Piece, formulas: Formulas) -> Content:
    return {
        **_where(piece, formulas),
        "times": {path: module.times for path, module in piece.modules.recorded.items()},
        "kernels": [
            [each.op, each.module, each.times, each.kind, each.dtype, each.form]
            + [formulas.place(getattr(each, name)) for name in AMOUNTS]
            for each in piece.kernels
        ],
    }


def _facts(info: ModelInfo) -> list[str]:
    """The model in one line."""
    active = [] if info.active_parameters is None else [f"{info.active_parameters:,} active for a token"]
    return [info.model_type, f"{info.layers} layers", f"{info.parameters:,} parameters", *active]


def _conventions(info: ModelInfo, conventions: Conventions) -> Mapping[str, str]:
    """Those in force, as text; what has no value is left out."""
    plain = conventions_of(info, conventions)
    words = {name: "; ".join(map(str, value)) for name, value in plain.items() if isinstance(value, list)}
    words |= {
        name: ", ".join(f"{key} {size}" for key, size in value.items())
        for name, value in plain.items()
        if isinstance(value, dict)
    }
    return {name: words.get(name, str(value)) for name, value in plain.items() if value not in (None, [], "")}


def _device(device: Device, dtypes: Sequence[str]) -> Content:
    """The numbers that the time of a kernel is made of."""
    reached = device.efficiency

    def of(dtype: str) -> Content:
        computes, peak = device.matrix(dtype)
        return {
            "peak": peak,
            "vector_peak": device.vector(dtype),
            "product": reached.of_matrix(computes),
            "product_rates": reached.product_flops_per_s.get(computes, {}),
            "streams": device.streams_of(dtype),
            "fastest": device.fastest_stream,
            "itemsize": BYTES.get(dtype, 2),
        }

    return {
        "name": device.name,
        "memory_bytes": device.memory_bytes,
        "bandwidth": device.bandwidth_bytes_per_s,
        "link": device.link_bytes_per_s,
        "dtypes": {dtype: of(dtype) for dtype in dtypes},
        "reached": {
            name: getattr(reached, name)
            for name in (
                "attention",
                "elementwise",
                "bandwidth",
                "vector",
                "network",
                "launch_s",
                "collective_s",
                "prefill_host_s",
            )
        },
        "source": reached.source,
        "unconfirmed": device.unconfirmed,
    }


def _limits(devices: Sequence[Device]) -> Content:
    """From which sizes on, or up to which, an estimate was held to measurements, and what to say beyond."""
    some = devices[0]
    return {
        "prefill": {"tokens": SHORTEST, "reason": beyond((), some, prefill(1))[0]},
        "decode": {"batch": LARGEST_BATCH, "reason": beyond((), some, decode(1, batch=LARGEST_BATCH + 1))[0]},
    }
