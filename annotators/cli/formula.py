"""``fxmeter formula``: what a stage costs, as formulas in its sizes."""

from __future__ import annotations

import sys
from typing import Any

import click

from fxmeter.annotators.cli.conventions import convention_options
from fxmeter.annotators.cli.output import progress, quiet_transformers, write_json


@click.command(short_help="What a stage costs as formulas in batch and lengths.")
@click.argument("model")
@click.option(
    "--stage",
    type=click.Choice(["prefill", "decode", "vision"]),
    default="decode",
    show_default=True,
    help="Which stage, e.g. --stage prefill.",
)
@click.option(
    "--attention",
    type=click.Choice(["eager", "flash"]),
    default="flash",
    show_default=True,
    help="The model's own attention code, or one fused core per layer, e.g. --attention eager.",
)
@click.option("--module", default="", metavar="PATH", help="One module, e.g. --module model.layers.1.mlp.")
@convention_options
@click.option("--latex", "form", flag_value="latex", help="As LaTeX (amsmath), e.g. formula M --latex.")
@click.option("--json", "form", flag_value="json", help="As JSON with sympy's strings, e.g. formula M --json.")
@click.option(
    "--python", "form", flag_value="python", help="As a function to paste, e.g. formula M --python > cost.py."
)
def formula(
    model: str,
    stage: Any,
    attention: Any,
    module: str,
    form: str | None,
    causal: Any,
    logits: Any,
    routing: Any,
    dtype: str | None,
) -> None:
    """Every figure of a stage of MODEL as a formula: exact for every batch and length.

    B is the batch, S_q the tokens of a prompt, C the tokens cached before a decode step; h and w are rows and columns
    of crops. Where a model changes its ways at some size, each case has its condition, and the first that holds is
    right. The screen shortens a maximum of many terms; --json, --latex and --python have all of it.

    \b
    fxmeter formula deepseek-ocr --stage decode
    fxmeter formula gpt-oss-20b --stage prefill --attention eager --module model.layers.0.self_attn
    fxmeter formula deepseek-ocr --stage vision --python > vision.py
    """
    from fxmeter.models.source import locate

    locate(model)
    with progress("loading torch and transformers") as say:
        quiet_transformers()
        from fxmeter.annotators.closed.form import closed_form
        from fxmeter.annotators.closed.formulas import formulas
        from fxmeter.annotators.documents.formula import to_json, to_latex, to_python
        from fxmeter.tracer.load.loading import load_model
        from fxmeter.tracer.load.vision import load_vision

        say(f"finding the formulas of {stage}, {attention}")
        built = load_vision(model, dtype=dtype) if stage == "vision" else load_model(model, dtype=dtype)
        made = closed_form(built, stage=stage, attention=attention, causal=causal, logits=logits, routing=routing)
        found = formulas(made.pieces, model=model, module=module)
    if form == "json":
        write_json("--json", to_json(found), "-")
    elif form is not None:
        sys.stdout.write(to_latex(found) if form == "latex" else to_python(found))
    else:
        from fxmeter.annotators.views.console import stdout_console
        from fxmeter.annotators.views.formula import formula_view

        stdout_console().print(formula_view(found))
