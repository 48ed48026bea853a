"""``fxmeter formula``: what a stage costs, as formulas in its sizes."""

from __future__ import annotations

import sys
from typing import Literal

import click

from fxmeter.annotators.cli.options import attention_option, convention_options, deployment_options, encoder_len_option
from fxmeter.annotators.cli.output import show, write_json
from fxmeter.annotators.cli.session import Begin, model_options
from fxmeter.annotators.cli.values import choice
from fxmeter.annotators.conventions import Conventions
from fxmeter.models.choices import Attention
from fxmeter.models.deployment import Deployment


@click.command(short_help="What a stage costs as formulas in batch and lengths.")
@choice(
    "--stage",
    Literal["vision", "prefill", "decode"],
    "Which stage, e.g. --stage prefill.",
    default="decode",
    show_default=True,
)
@attention_option
@click.option("--module", default="", metavar="PATH", help="One module, e.g. --module model.layers.1.mlp.")
@convention_options
@deployment_options()
@model_options()
@encoder_len_option
@click.option("--latex", "written", flag_value="latex", help="As LaTeX (amsmath), e.g. formula M --latex.")
@click.option("--json", "written", flag_value="json", help="As JSON with sympy's strings, e.g. formula M --json.")
@click.option(
    "--python", "written", flag_value="python", help="As a function to paste, e.g. formula M --python > cost.py."
)
def formula(
    begin: Begin,
    stage: Literal["vision", "prefill", "decode"],
    attention: Attention,
    module: str,
    conventions: Conventions,
    deployment: Deployment,
    encoder_len: int | None,
    written: str | None,
) -> None:
    """Every figure of a stage of MODEL as a formula: exact for every batch and length.

    B is the batch, S_q the tokens of a prompt, C the tokens cached before a decode step; h and w are rows and columns
    of crops. Where a model changes its ways at some size, each case has its condition, and the first that holds is
    right. The screen shortens a maximum of many terms; --json, --latex and --python have all of it.

    \b
    fxmeter formula deepseek-ocr --stage decode
    fxmeter formula gpt-oss-20b --stage prefill --attention eager --module model.layers.0.self_attn
    fxmeter formula deepseek-v3 --kernels serving --kv fp8
    fxmeter formula deepseek-ocr --stage vision --python > vision.py
    """
    with begin() as work:
        from fxmeter.annotators.closed.formulas import formulas
        from fxmeter.annotators.documents.formula import to_json, to_latex, to_python

        form = work.form(stage, attention, conventions, deployment, encoder_len=encoder_len, use="formula")
        arranged = formulas(form.sheet, model=work.name, module=module)
        work.keep()
    if written == "json":
        write_json(to_json(arranged), "-")
    elif written is not None:
        sys.stdout.write(to_latex(arranged) if written == "latex" else to_python(arranged))
    else:
        from fxmeter.annotators.views.formula import formula_view

        show(formula_view(arranged))
