"""Write annotators/rules/ops.json, the table that ``fxmeter ops`` prints, from the registry: make ops"""

from __future__ import annotations

import json
from pathlib import Path

import fxmeter.annotators.rules  # noqa: F401  registers every rule
from fxmeter.annotators.rules.registry import described

TABLE = Path(__file__).parent.parent / "annotators" / "rules" / "ops.json"

if __name__ == "__main__":
    TABLE.write_text(json.dumps(described(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
