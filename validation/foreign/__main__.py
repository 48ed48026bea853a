"""Models of other packages and modules as people write them, against real runs: writes ``docs/foreign.md``.

python -m validation.foreign [NAME ...] [--here] [--no-write]

Packages are installed into ``build/foreign``, beside the project's own torch and transformers, which stay as they are.
With ``--here`` modules that need no package are checked alone. A name is a part of a model's.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from validation.coverage_type import one_line
from validation.foreign import decoders, packages, routed, torch_modules
from validation.foreign.check import Found, check
from validation.page import progress, quiet, this_machine

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "foreign.md"
FOLDER = ROOT / "build" / "foreign"

HEAD = """\
# Other people's code

What `annotate_module` says of models that nobody wrote for fxmeter: of {packages}, and modules in the style of
well-known single-file repositories. Written by `python -m validation.foreign`, {machine}.

**Products** are compared with torch's `FlopCounterMode` on real tensors, **peaks** with the allocation events of
`torch.profiler`, beside which stands a tracker of storages (float32 on the CPU; as in
[validation.md](validation.md), without what a kernel allocates and frees for itself). The real run takes attention and
transformer layers op by op, since the counter does not know the CPU's fused kernels.

- **Even routing.** Where code asks which experts have tokens, the answer hangs on weights; fxmeter answers as if every
  position were picked equally often, and says so. The real run has the same routing: the scores' own choice is
  overwritten by the even one.
- **Recurrent layers.** On the CPU torch multiplies all time steps with the input's weights at once; on other devices,
  and on `meta`, one after another. The products are the same, and what is alive is not. The tracker is a mode, under
  which torch makes anew some of what it else changes in place; where the two disagree the profiler counts.

{verdict}

| model | parameters | products | counted | peak | measured | explanation |
|---|---:|---:|---:|---:|---:|---|
"""


def main() -> int:
    """Check, write the page, print what it comes to. Exit code 1 where a difference is not explained."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--here", action="store_true", help="modules that need no package, alone")
    parser.add_argument("--no-write", action="store_true", help="leave docs/foreign.md as it is")
    given = parser.parse_args()
    quiet()
    models = {**torch_modules.MODELS, **decoders.MODELS, **routed.MODELS}
    if not given.here:
        install()
        models = {**packages.MODELS, **models}
    chosen = {n: make for n, make in models.items() if not given.names or any(part in n for part in given.names)}
    found, broken = [], dict[str, str]()
    for name, make in chosen.items():
        try:
            found.append(check(name, make))
        except Exception as error:
            broken[name] = one_line(error)
            progress(f"{name}: {broken[name]}")
            continue
        progress(f"[{len(found)}/{len(chosen)}] {_row(found[-1])}")
    if not (given.no_write or given.here or given.names or broken):
        PAGE.write_text(page(found), encoding="utf-8")
    print(verdict(found), *(f"{name}: {reason}" for name, reason in broken.items()), sep="\n")
    return 0 if not broken and all(one.flops_hold and one.peak_holds for one in found) else 1


def install() -> None:
    """The packages, where they are not there yet, behind the project's own on the path."""
    if not FOLDER.exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(FOLDER)]
        subprocess.run([*command, *packages.PACKAGES.split()], check=True)
    sys.path.append(str(FOLDER))
    packages.define_torchvisions_operators()


def page(found: Sequence[Found]) -> str:
    """The table as Markdown."""
    names = ", ".join(dict.fromkeys(name.split()[0] for name in packages.MODELS))
    head = HEAD.format(packages=names, machine=this_machine(), verdict=verdict(found))
    return head + "".join(f"{_row(one)}\n" for one in found)


def _row(found: Found) -> str:
    case = found.peak
    figures = (found.parameters, found.flops, found.counted, case.peak.bytes, case.most.nbytes)
    return f"| {found.name} | {' | '.join(f'{figure:,}' for figure in figures)} | {found.explanation or '–'} |"


def verdict(found: Sequence[Found]) -> str:
    """How many hold, and which do not."""
    flops = sum(one.flops == one.counted for one in found)
    peaks = sum(one.peak.equal for one in found)
    explained = [one.name for one in found if one.flops_hold and one.peak_holds and one.explanation]
    bad = [one.name for one in found if not (one.flops_hold and one.peak_holds)]
    uncosted = sum(bool(one.uncosted) for one in found)
    text = (
        f"**{len(found)} models: products equal in {flops}, peak equal to the byte in {peaks}, "
        f"{len(found) - uncosted} without an op that has no rule.**"
    )
    differing = [one.name for one in found if one.flops != one.counted or not one.peak.equal]
    if differing:
        text += f" Different, with every term named below: {', '.join(n for n in differing if n in explained)}."
    return text + (f" Not explained: {', '.join(bad)}." if bad else "")


if __name__ == "__main__":
    sys.exit(main())
