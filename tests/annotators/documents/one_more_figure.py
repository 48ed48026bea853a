"""A process in which the table of figures has one row more: prints, as JSON, what every output says of it.

    python -m tests.annotators.documents.one_more_figure FOLDER

No ``from __future__ import annotations`` here: the row is read off an annotation.
"""

import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fxmeter.models import figures


@dataclass(frozen=True, slots=True, kw_only=True)
class OneMore(figures.Figures):
    """The table and a made-up row: the one place where it is said."""

    dust_bytes: Annotated[figures.Size, figures.Figure("dust raised", "byte")] = 0


figures.Figures = OneMore  # before anything reads the table

from rich.console import Console  # noqa: E402
from transformers import AutoConfig  # noqa: E402

from fxmeter.annotators import annotate, closed_form  # noqa: E402
from fxmeter.annotators.closed.formulas import formulas  # noqa: E402
from fxmeter.annotators.documents.report import to_json  # noqa: E402
from fxmeter.annotators.documents.tables.sweep_files import prepare, write  # noqa: E402
from fxmeter.annotators.documents.tables.sweep_sql import read_run  # noqa: E402
from fxmeter.annotators.plots.families import families  # noqa: E402
from fxmeter.annotators.pricing import price  # noqa: E402
from fxmeter.annotators.stages.model_info import model_info  # noqa: E402
from fxmeter.annotators.studies.axes import Axes  # noqa: E402
from fxmeter.annotators.studies.report import build_report  # noqa: E402
from fxmeter.annotators.studies.sweep import StageForms, run_sweep  # noqa: E402
from fxmeter.annotators.views.formula import formula_view  # noqa: E402
from fxmeter.annotators.views.reports.report import report_view  # noqa: E402
from fxmeter.models import StageCost, generation  # noqa: E402
from fxmeter.tracer import load_model  # noqa: E402
from tests.tracer.tiny import LLAMA  # noqa: E402

# whoever computes it: seven bytes of dust for each byte of activations written
price.Cost = lambda **fields: StageCost(**fields, dust_bytes=7 * fields.get("activation_write_bytes", 0))


def text_of(view: object) -> str:
    out = io.StringIO()
    Console(file=out, width=100).print(view)
    return out.getvalue()


def main(folder: Path) -> dict[str, object]:
    model = load_model(AutoConfig.for_model(**LLAMA))
    stage = annotate(model, generation(8, steps=3), attention="flash")
    report = build_report(model_info(model), [stage])
    form = closed_form(model, stage="decode", attention="flash")
    sweep = run_sweep(StageForms.of_model(model), Axes(decode=(8, 16), steps=(3,)), attentions=["flash"])
    write(sweep, prepare(folder))
    (family,) = families(sweep)
    (data,) = to_json(report)["stages"]
    parts = [part["cost"] for part in (*data["modules"], *data["ops"])]
    first, *_ = read_run(folder / "sweep.sqlite")["points"]
    return {
        "written": stage.cost.activation_write_bytes,
        "JSON": [data["cost"], data["per_step"], *parts],
        "console": text_of(report_view(report, depth=1, ops=0)),
        "formulas": text_of(formula_view(formulas(form.sheet, model="tiny"))),
        "SQL": first["stages"][0]["cost"],
        "CSV": (folder / "sweep.csv").read_text(),
        "closed form": form.generation(past_len=8, steps=3).to_dict(),
        "arrays": {name: array.tolist() for name, array in form.evaluate(past_len=[8, 16]).items()},
        "plot": family.curve("decode", "flash", "dust_bytes"),
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
