"""Puts the current output of the commands that README.md shows into it (`make readme`)."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"
END = "Heaviest ops by FLOPs"


def printed(*arguments: str) -> list[str]:
    """What `fxmeter` prints, without spaces at the ends of lines."""
    command = [sys.executable, "-m", "fxmeter", *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [line.rstrip() for line in done.stdout.splitlines()]


def main() -> None:
    """The report up to its ellipsis, and all of every other command that stands alone in its block."""
    report = printed("report", "deepseek-ocr")
    shown = "\n".join(report[: next(i for i, line in enumerate(report) if line.startswith(END)) - 1])
    text = README.read_text(encoding="utf-8")
    text = re.sub(r"(\$ make report\n).*?(\n…\n```)", lambda m: m[1] + shown + m[2], text, flags=re.DOTALL)

    def again(match: re.Match[str]) -> str:
        output = "\n".join(printed(*shlex.split(match[2], comments=True))).strip("\n")
        return f"{match[1]}{match[2]}\n{output}\n```"

    text = re.sub(r"(```console\n\$ fxmeter )([^\n]*)\n(?!\$)(?:[^`]*?)```", again, text)
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
