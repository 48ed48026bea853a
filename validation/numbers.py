"""That no number has moved: every preset's reports and closed forms, held to digests taken earlier.

    python -m validation.numbers check  [FILE] [PRESET ...]   recompute; name what differs from FILE, and exit with 1
    python -m validation.numbers digest [FILE] [PRESET ...]   write the digests (to stdout without FILE), or some anew
    python -m validation.numbers write  DIR    [PRESET ...]   the whole documents, one file a preset, to diff by hand

A case is a digest of one of these, for eager and flash attention alike:

*   the document of ``fxmeter report PRESET --json``: a prefill and a decode step at two batches, generations of few
    steps (one recording each) and of many (a closed form), each convention that is not the default, and, for presets
    with a vision tower, whole pages;
*   a closed form, of prefill, decode and vision: every field of the stage's cost and of four modules at fifty
    scattered points, and the stage's once more as arrays. A third of the points of prefill are chunks after a past.

Left out, to keep it at minutes: conventions are priced one at a time, at one size, and not in closed forms or
generations; decode steps are of one token; dtypes are the checkpoints' own. Where a model has no closed form each point
is a recording, and the search for a form long: what ``SPARED`` names is left out, and only four points are asked of
what remains (``WITHOUT_FORM``). A point that is refused counts as its kind of error.

Versions are no part of a digest. A name that was changed goes into ``RENAMED``, and then counts as the old one.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from functools import cache, partial
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).parent.parent
DIGESTS = ROOT / "validation" / "numbers.json"

RENAMED: Mapping[str, str] = {
    f"{name}_gb": f"{name}_gib" for name in ("activations", "peak_activations", "kv", "weights")
}
"""Old name → new name, of keys and of whole strings (a class, a field): not the same word, but the same number."""

LEFT_OUT = ("schema_version", "analytic_model_version", "versions", "warnings", "serving_kernels_differ")
"""What a report says about itself, at its top level."""

ADDED: Mapping[str, tuple[str, ...]] = {
    "model": ("left_out", "source_sha256"),
    "conventions": ("weights", "kv", "kernels", "not_priced", "assumptions", "page_size"),
}
"""Keys that a report has got since the digests were taken, by the object that they are in: no number that moved."""

NEW_FIGURES = ("network_bytes", "kv_storage_bytes")
"""Figures that costs have got since."""

HOMES = ("fxmeter", "fxmeter.annotators.cli.main", "fxmeter.models.presets", "fxmeter.tracer.load.vision")
HOMES_BEFORE = ("annotators", "annotators.cli", "models", "models.presets", "tracer", "tracer.vision")
"""Where the names used here are; the second, while the three folders were packages of their own."""

ATTENTIONS = ("eager", "flash")
PASSES = "--prefill 700 --decode 5000"
REPORTS = {
    "report, batch 1": PASSES,
    "report, batch 3": "--prefill 4200 --decode 150 --batch 3",
    "report, few steps": "--decode 126 --steps 4 --batch 2",
    "report, many steps": "--decode 4090 --steps 12 --batch 2",
    "report, causal exact": f"{PASSES} --causal exact",
    "report, logits last": f"{PASSES} --logits last",
    "report, routing worst": f"{PASSES} --routing worst --batch 3",
}
PAGES = {
    "page, cropped": "--crops 1x2 --steps 12",
    "page, whole": "--crops 0x0 --batch 2",
    "page, conventions": "--crops 2x3 --causal exact --logits last --routing worst",
}
POINTS, MODULES = 50, 4
WITHOUT_FORM, POINTS_WITHOUT_FORM = ("deepseek-v4-flash", "deepseek-v4-pro"), 4
SPARED = {
    "deepseek-v4-flash": ("report, many steps", "closed form, prefill"),
    "deepseek-v4-pro": ("report, many steps", "closed form, prefill", "closed form, decode"),
    "whisper-large-v3": ("report, logits last",),  # its forward computes the logits of every position
}

Case = Callable[[], Any]
Digests = dict[str, dict[str, str]]


@cache
def ours(name: str) -> Any:
    """A public name of this checkout, wherever it is; never one of another fxmeter that is installed beside it."""
    for home in HOMES if (ROOT / "fxmeter").is_dir() else HOMES_BEFORE:
        module = import_module(home)
        if hasattr(module, name):
            if not Path(str(module.__file__)).is_relative_to(ROOT):
                raise ImportError(f"{home} is {module.__file__}, which is not in {ROOT}; run this from there")
            return getattr(module, name)
    raise ImportError(f"{name} is in none of the places where {__file__} looks for it")


# What is computed


def cases_of(preset: str) -> dict[str, Case]:
    """Every case of a preset, by name; none is computed yet."""
    has_tower = bool(ours("preset")(preset).vision)
    reports = {**REPORTS, **(PAGES if has_tower else {})}
    stages = ("prefill", "decode", *(["vision"] if has_tower else []))
    found: dict[str, Case] = {case: partial(report_of, preset, options) for case, options in reports.items()}
    found |= {f"closed form, {stage}": partial(closed_forms_of, preset, stage) for stage in stages}
    return {case: make for case, make in found.items() if case not in SPARED.get(preset, ())}


def report_of(preset: str, options: str) -> Any:
    """The JSON document of ``fxmeter report``, by the command line in this process."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.json"
        code, said = run_command(["fxmeter", "report", preset, *options.split(), "--json", str(file)])
        if not file.exists():
            raise RuntimeError(f"fxmeter report {preset} {options} exits with {code}: {said}")
        document = json.loads(file.read_text(encoding="utf-8"))
    for part, keys in ADDED.items():
        document[part] = {key: value for key, value in document[part].items() if key not in keys}
    return {**{key: value for key, value in document.items() if key not in LEFT_OUT}, "exit_code": code}


def run_command(arguments: list[str]) -> tuple[int, str]:
    """The exit code of the command ``fxmeter`` and what it said."""
    said = io.StringIO()
    with patch.object(sys, "argv", arguments), redirect_stdout(said), redirect_stderr(said):
        try:
            ours("main")()
        except SystemExit as end:
            return int(end.code or 0), said.getvalue()
    return 0, said.getvalue()


def closed_forms_of(preset: str, stage: str) -> Any:
    """The values of a stage's closed forms, eager and flash, at the preset's points."""
    model = ours("load_vision" if stage == "vision" else "load_model")(preset)
    points = points_of(preset, stage)
    return {kind: values_of(ours("closed_form")(model, stage=stage, attention=kind), points) for kind in ATTENTIONS}


def points_of(preset: str, stage: str) -> list[dict[str, Any]]:
    """Sizes that are scattered, and always the same."""
    chance = random.Random(f"{preset}, {stage}")
    count = POINTS_WITHOUT_FORM if preset in WITHOUT_FORM else POINTS
    return [{"batch": chance.choice([1, 2, chance.randint(1, 256)]), **_sizes(chance, stage)} for _ in range(count)]


def _sizes(chance: random.Random, stage: str) -> dict[str, Any]:
    if stage == "vision":
        return {"crops": chance.choice([(0, 0), (chance.randint(1, 9), chance.randint(1, 9))])}
    if stage == "prefill":
        past = chance.choice([0, 0, chance.randint(0, 8192)])
        return {"query_len": chance.randint(1, 4096), "past_len": past}
    return {"past_len": chance.randint(1, 100_000)}


def values_of(form: Any, points: Sequence[Mapping[str, Any]]) -> Any:
    """What a closed form says at each point, of the whole and of a few modules, and why it has none, if so."""
    whole = [value_at(form, point) for point in points]
    held = [point for point, value in zip(points, whole, strict=True) if "refused" not in value]
    paths = [path for path in form.modules if path]
    chosen = paths[:: max(len(paths) // MODULES, 1)][:MODULES]
    return {
        "points": [dict(point) for point in points],
        "whole": whole,
        "modules": {path: [value_at(form.modules[path], point) for point in held] for path in chosen},
        "arrays": arrays_of(form, held),
        "reason": form.reason,
    }


def value_at(form: Any, point: Mapping[str, Any]) -> dict[str, Any]:
    """Every field at one point, or the kind of error where the model cannot be run there."""
    try:
        return dict(form.at(**point).to_dict())
    except ours("FxmeterError") as error:
        return {"refused": type(error).__name__}


def arrays_of(form: Any, points: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The same points evaluated together."""
    sizes: dict[str, Any] = {name: [point[name] for point in points] for name in points[0]}
    if "crops" in sizes:
        sizes["crops"] = tuple(zip(*sizes["crops"], strict=True))
    return {name: array.tolist() for name, array in form.evaluate(**sizes).items()}


# Documents and their digests


def documents_of(preset: str, cases: Sequence[str] | None = None) -> dict[str, Any]:
    """Case → its document under the names of old, of all cases or of some."""
    import torch

    torch.set_num_threads(1)
    return {case: under_old_names(make()) for case, make in cases_of(preset).items() if cases is None or case in cases}


def digests_of(preset: str, cases: Sequence[str] | None = None) -> dict[str, str]:
    """Case → the SHA-256 of its document."""
    return {case: digest_of(document) for case, document in documents_of(preset, cases).items()}


def under_old_names(document: Any) -> Any:
    """The document as it was before anything in ``RENAMED`` got its new name, without ``NEW_FIGURES``."""
    old = {new: name for name, new in RENAMED.items()}
    if isinstance(document, Mapping):
        kept = {key: value for key, value in document.items() if key not in NEW_FIGURES}
        return {old.get(key, key): under_old_names(value) for key, value in kept.items()}
    if isinstance(document, list | tuple):
        return [under_old_names(value) for value in document]
    return old.get(document, document) if isinstance(document, str) else document


def digest_of(document: Any) -> str:
    """SHA-256 of the document in its one canonical spelling."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def differences(expected: Digests, found: Digests) -> list[tuple[str, str]]:
    """(preset, case) of every digest that is not the same in both, one that only one of them has included."""
    pairs = [(name, case) for name in sorted({*expected, *found}) for case in _cases(name, expected, found)]
    return [(name, case) for name, case in pairs if _digest(expected, name, case) != _digest(found, name, case)]


def _cases(preset: str, *several: Digests) -> list[str]:
    return sorted({case for digests in several for case in digests.get(preset, {})})


def _digest(digests: Digests, preset: str, case: str) -> str | None:
    return digests.get(preset, {}).get(case)


def over(presets: Sequence[str], work: Callable[[str], Any], jobs: int) -> Iterator[tuple[str, Any]]:
    """(preset, what ``work`` makes of it), in processes side by side; those that take longest begin first."""
    ordered = sorted(presets, key=lambda name: (name not in WITHOUT_FORM, name))
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for name, made in zip(ordered, pool.map(work, ordered), strict=True):
            print(name, file=sys.stderr, flush=True)
            yield name, made


# The command


def check(file: Path, presets: Sequence[str], jobs: int) -> int:
    """Say what differs from the digests in ``file``."""
    expected: Digests = json.loads(file.read_text(encoding="utf-8"))
    chosen = presets or ours("preset_names")()
    found = dict(over(chosen, digests_of, jobs))
    wanted = {name: cases for name, cases in expected.items() if not presets or name in presets}
    moved = differences(wanted, found)
    for name, case in moved:
        both = _digest(expected, name, case) and _digest(found, name, case)
        print(f"{name}: {case} {'differs' if both else 'is only in one of the two'}")
    print(f"{len(moved)} of {sum(map(len, found.values()))} cases differ" if moved else "no number has moved")
    return 1 if moved else 0


def digest(file: Path | None, presets: Sequence[str], jobs: int) -> int:
    """Write the digests of every preset, or those of some among the others that ``file`` has."""
    made: Digests = json.loads(file.read_text(encoding="utf-8")) if file is not None and presets else {}
    made |= dict(over(presets or ours("preset_names")(), digests_of, jobs))
    text = json.dumps(made, indent=1, sort_keys=True) + "\n"
    if file is None:
        print(text, end="")
    else:
        file.write_text(text, encoding="utf-8")
    return 0


def write(dir: Path, presets: Sequence[str], jobs: int) -> int:
    """Write the documents themselves."""
    dir.mkdir(parents=True, exist_ok=True)
    for name, documents in over(presets or ours("preset_names")(), documents_of, jobs):
        text = json.dumps(documents, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        (dir / f"{name}.json").write_text(text, encoding="utf-8")
    return 0


VERBS: Mapping[str, Callable[..., int]] = {"check": check, "digest": digest, "write": write}


def main() -> int:
    """Parse, and do one of the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side (default: 2)")
    verb = parser.add_subparsers(dest="verb", required=True)
    for name, metavar, default in (("check", "FILE", DIGESTS), ("digest", "FILE", None), ("write", "DIR", None)):
        one = verb.add_parser(name, help=VERBS[name].__doc__)
        one.add_argument(
            metavar.lower(), metavar=metavar, type=Path, nargs=None if name == "write" else "?", default=default
        )
        one.add_argument("presets", metavar="PRESET", nargs="*")
    arguments = vars(parser.parse_args())
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    return VERBS[arguments.pop("verb")](**arguments)


if __name__ == "__main__":
    sys.exit(main())
