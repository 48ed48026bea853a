"""Work that ends the process which does it. Imports little, so that processes start soon."""

from __future__ import annotations

import os
import signal
from pathlib import Path


def double_or_die(marks, batch):
    """2n of every n; the process ends at a 13, and at a 7 the first time that there is one."""
    for item in batch:
        mark = Path(marks, str(item))
        if item == 13 or (item == 7 and not mark.exists()):
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return [2 * item for item in batch]
