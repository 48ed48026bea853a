"""A cost sheet as a JSON document and back; docs/cost_sheets.md describes the fields."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, get_args

from fxmeter.annotators.sheets.kept.plain import made, plain
from fxmeter.annotators.sheets.numbers import Written, read
from fxmeter.annotators.sheets.piece import Piece, UncostedOp
from fxmeter.annotators.sheets.region import SizeRegion
from fxmeter.annotators.sheets.sheet import Sheet, Subject
from fxmeter.annotators.sheets.tables import CacheLayer, ModuleCost, ModuleCosts, PipelineStage
from fxmeter.annotators.symbolic import Guard, Relation
from fxmeter.annotators.timing.kernel import AMOUNTS, Kernel
from fxmeter.models.model_info import ModelInfo
from fxmeter.models.names import Document
from fxmeter.models.stage_cost import FIELDS, Size, StageCost
from fxmeter.models.version import ANALYTIC_MODEL_VERSION, versions

SCHEMA_VERSION = 1
KIND = "cost sheet"


def to_document(sheet: Sheet, info: ModelInfo | None) -> Document:
    """Everything that a sheet knows, and the model in one line."""
    numbers = Written()
    pieces, timed = ([_piece(piece, numbers) for piece in each.known] for each in (sheet, sheet.for_time))
    return {
        "document": KIND,
        "schema_version": SCHEMA_VERSION,
        "analytic_model_version": ANALYTIC_MODEL_VERSION,
        "versions": versions(),
        "subject": {**plain(sheet.subject), "conventions": asdict(sheet.subject.conventions)},
        "model": None if info is None else plain(info),
        "sizes": sheet.subject.sizes,
        "fields": FIELDS,
        "values": numbers.table,
        "pieces": pieces,
        "time_pieces": timed,
    }


def from_document(data: Document | None, beyond: Callable[[], Sheet] | None = None) -> Sheet:
    """The sheet. Raises one of NO_DOCUMENT where the document is of none."""
    if data is None:
        raise ValueError("there is none")
    if data["document"] != KIND or data["schema_version"] != SCHEMA_VERSION or tuple(data["fields"]) != FIELDS:
        raise ValueError(f"it is no {KIND} of schema version {SCHEMA_VERSION}")
    values = read(data["values"])
    pieces, timed = ([_read_piece(each, values) for each in data[key]] for key in ("pieces", "time_pieces"))
    info = None if data["model"] is None else made(ModelInfo, data["model"])
    return Sheet(made(Subject, data["subject"]), pieces, timed, info=info, beyond=beyond)


def _piece(piece: Piece, numbers: Written) -> Document:
    def cost(of: StageCost) -> list[int]:
        return [numbers.place(getattr(of, name)) for name in FIELDS]

    def kernel(of: Kernel) -> list[Any]:
        return [*(getattr(of, name) for name in _FACTS), *(numbers.place(getattr(of, name)) for name in AMOUNTS)]

    region, place = piece.region, numbers.place
    return {
        "lower": region.lower,
        "upper": region.upper,
        "sums": region.sums,
        "guards": [[place(guard.value), guard.relation] for guard in piece.guards],
        "modules": [
            [module.path, module.class_name, module.times, cost(module.cost), cost(module.own)]
            for module in piece.modules.recorded.values()
        ],
        "folds": piece.modules.folds,
        "aliases": piece.modules.aliases,
        "ops": [[op, count, cost(of)] for op, (count, of) in piece.ops.items()],
        "floor_io_bytes": place(piece.floor_io_bytes),
        "uncosted": [
            [item.op, item.count, item.module, [[dtype, list(map(place, sizes))] for dtype, sizes in item.inputs]]
            for item in piece.uncosted
        ],
        "kv_cache": [
            [each.layer, each.kind, [list(map(place, shape)) for shape in each.shapes], place(each.bytes), each.names]
            for each in piece.kv_cache
        ],
        "kernels": [kernel(each) for each in piece.kernels],
        "pipeline": [
            [stage.first, stage.last, cost(stage.cost), stage.send and kernel(stage.send), stage.launches]
            for stage in piece.pipeline
        ],
        "recorded": piece.recorded,
    }


def _guard(value: Size, relation: Relation) -> Guard:
    if relation not in get_args(Relation):
        raise ValueError(f"no relation {relation!r}")
    return Guard(value, relation)


_FACTS = ("name", "op", "module", "times", "kind", "dtype", "ranks", "widened", "form")


def _read_piece(data: Document, values: Sequence[Size]) -> Piece:
    def cost(places: Sequence[int]) -> StageCost:
        return StageCost(**dict(zip(FIELDS, (values[place] for place in places), strict=True)))

    modules = [ModuleCost(path, name, times, cost(all_), cost(own)) for path, name, times, all_, own in data["modules"]]
    region = {"lower": data["lower"], "upper": data["upper"], "sums": data["sums"]}
    return Piece(
        region=made(SizeRegion, region),
        guards=tuple(_guard(values[place], relation) for place, relation in data["guards"]),
        modules=ModuleCosts({module.path: module for module in modules}, data["folds"], data["aliases"]),
        ops={op: (count, cost(places)) for op, count, places in data["ops"]},
        floor_io_bytes=values[data["floor_io_bytes"]],
        uncosted=tuple(
            UncostedOp(op, count, module, tuple((dtype, tuple(values[s] for s in sizes)) for dtype, sizes in inputs))
            for op, count, module, inputs in data["uncosted"]
        ),
        kv_cache=tuple(
            CacheLayer(
                layer,
                kind,
                tuple(tuple(values[size] for size in shape) for shape in shapes),
                values[nbytes],
                tuple(names),
            )
            for layer, kind, shapes, nbytes, names in data["kv_cache"]
        ),
        kernels=tuple(_kernel(row, values) for row in data["kernels"]),
        pipeline=tuple(
            PipelineStage(first, last, cost(places), send and _kernel(send, values), tuple(launches))
            for first, last, places, send, launches in data.get("pipeline", ())
        ),
        recorded=data["recorded"],
    )


def _kernel(row: Sequence[Any], values: Sequence[Size]) -> Kernel:
    facts = dict(zip(_FACTS, row, strict=False))
    amounts = dict(zip(AMOUNTS, (values[place] for place in row[len(_FACTS) :]), strict=True))
    return Kernel(**{**facts, "ranks": tuple(facts["ranks"])}, **amounts)
