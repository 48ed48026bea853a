"""Puts the current output of `fxmeter report deepseek-ocr` into README.md (`make readme`)."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"
END = "Heaviest ops by FLOPs"


def main() -> None:
    """Replace the block between ``$ make report`` and the ellipsis."""
    command = [Path(sys.executable).parent / "fxmeter", "report", "deepseek-ocr"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = [line.rstrip() for line in printed.splitlines()]
    shown = "\n".join(lines[: next(i for i, line in enumerate(lines) if line.startswith(END)) - 1])
    text = README.read_text(encoding="utf-8")
    text = re.sub(r"(\$ make report\n).*?(\n…\n```)", lambda m: m[1] + shown + m[2], text, flags=re.DOTALL)
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
