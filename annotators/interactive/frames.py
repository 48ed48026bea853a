"""The tables of a stage as rows of plain data, and as pandas frames."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, get_args

from fxmeter.annotators.sheets.tables import StageTables
from fxmeter.models.errors import FxmeterError
from fxmeter.models.names import Document
from fxmeter.models.stage_cost import FIGURES, PASS_FIGURES

if TYPE_CHECKING:
    import pandas as pd

Table = Literal["figures", "modules", "ops", "kv"]


def frame_of(stage: StageTables, table: Table) -> pd.DataFrame:
    """One table of a stage. Raises FxmeterError for a table that there is not, and where pandas is not installed."""
    if table not in get_args(Table):
        raise FxmeterError(f"a stage has the tables {', '.join(get_args(Table))}; there is none named {table!r}")
    try:
        import pandas as pd
    except ImportError:
        raise FxmeterError("to_frame needs pandas, which is not installed: pip install pandas") from None
    return pd.DataFrame(list(_ROWS[table](stage)))


def _figures(stage: StageTables) -> Iterator[Document]:
    for record, table in ((stage.cost, FIGURES), (stage, PASS_FIGURES)):
        for name, figure in table.items():
            yield {"figure": name, "label": figure.label, "unit": figure.unit, "value": getattr(record, name)}


def _modules(stage: StageTables) -> Iterator[Document]:
    """A row for each module that was recorded, with the cost of one instance."""
    for module in stage.modules.values():
        yield {"path": module.path, "class": module.class_name, "times": module.times, **module.cost.to_dict()}


def _ops(stage: StageTables) -> Iterator[Document]:
    for op in stage.ops:
        yield {"op": op.op, "count": op.count, **op.cost.to_dict()}


def _kv(stage: StageTables) -> Iterator[Document]:
    """A row for each tensor of the cache; ``layer_bytes`` are those of all tensors of its layer."""
    for layer in stage.kv_cache:
        for name, shape in zip(layer.names, layer.shapes, strict=True):
            yield {
                "layer": layer.layer,
                "kind": layer.kind,
                "tensor": name,
                "shape": shape,
                "layer_bytes": layer.bytes,
            }


_ROWS = {"figures": _figures, "modules": _modules, "ops": _ops, "kv": _kv}
