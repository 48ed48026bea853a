"""Configs that are wrong in every way one can think of, and a process of its own to try them in.

:func:`broken_configs` makes the text of ``config.json`` files from good ones: fields missing, extra, mistyped, extreme,
nested and enormous, and text that is no JSON. :func:`outcome_of` runs the command on one of them in a fork of this
process, with a limit on its time and its memory.
"""

from __future__ import annotations

import copy
import io
import json
import os
import random
import resource
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECONDS = 60
BYTES = 3 * 2**30

NUMBERS = [
    0,
    1,
    -1,
    2,
    3,
    7,
    127,
    10**4,
    10**6,
    10**9,
    2**31,
    2**63,
    10**18,
    10**30,
    10**400,
    -(10**9),
    0.5,
    1e300,
    -0.0,
]
ODD = [
    float("nan"),
    float("inf"),
    float("-inf"),
    None,
    True,
    False,
    "",
    "7",
    "wide",
    "\ud800",
    "a\nb\tc",
    "é" * 50,
    "x" * 9999,
]
NESTED = [
    [],
    {},
    [[]],
    {"a": {}},
    [1, 2, 3],
    ["full_attention"],
    {"rope_type": "yarn"},
    [None] * 3,
    {"": 1},
    {"factor": -1},
]
EXTRA = {
    "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"},
    "trust_remote_code": True,
    "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
    "torch_dtype": "float8_e4m3fn",
    "dtype": {"a": 1},
    "layer_types": ["sliding_attention", "no_such_attention"],
    "rope_scaling": {"type": "no_such_rope", "factor": "much"},
    "rope_parameters": {"rope_type": "yarn"},
    "attn_implementation": "flash_attention_2",
    "_attn_implementation": "no_such_attention",
    "experts_implementation": "no_such_experts",
    "architectures": ["NoSuchModel", 7],
    "text_config": {"model_type": "llama", "num_hidden_layers": 10**9},
    "vision_config": {"model_type": "llama"},
    "sub_configs": {"a": 1},
    "transformers_version": "99.0",
    "_name_or_path": "/dev/zero",
    "custom_generate": "evil.py",
    "id2label": {"a": "b"},
    "num_labels": -3,
    "per_layer_config": {"0": {"hidden_size": 3}},
    "tie_word_embeddings": "yes",
    "pad_token_id": 10**9,
    "use_cache": False,
    "is_encoder_decoder": True,
    "model_type": "evil",
    "hidden_act": "os.system",
    "__class__": "evil",
    "to_dict": 7,
    "get_text_config": None,
    "base_config_key": "x",
    "attribute_map": {"hidden_size": "hidden_size"},
}


def broken_configs(good: list[dict[str, Any]], seed: int, count: int) -> Iterator[bytes]:
    """The bytes of ``count`` config files, the same ones for a seed."""
    random_ = random.Random(seed)
    for _ in range(count):
        fields = copy.deepcopy(random_.choice(good))
        for _ in range(random_.choice((1, 1, 1, 2, 3, 8))):
            random_.choice(_CHANGES)(fields, random_)
        text = json.dumps(fields).encode("utf-8", "surrogatepass")
        yield random_.choice(_TEXTS)(text, random_) if random_.random() < 0.1 else text


def _somewhere(fields: dict[str, Any], random_: random.Random) -> tuple[Any, Any]:
    """A container in the config, itself most often, and a key of it."""
    place: Any = fields
    while True:
        keys = list(place) if isinstance(place, dict) else range(len(place))
        if not keys:
            return fields, "hidden_size"
        key = random_.choice(list(keys))
        if isinstance(place[key], (dict, list)) and place[key] and random_.random() < 0.7:
            place = place[key]
        else:
            return place, key


def _drop(fields: dict[str, Any], random_: random.Random) -> None:
    place, key = _somewhere(fields, random_)
    if isinstance(place, list) or key in place:
        del place[key]


def _replace(fields: dict[str, Any], random_: random.Random) -> None:
    place, key = _somewhere(fields, random_)
    place[key] = copy.deepcopy(random_.choice(random_.choice((NUMBERS, ODD, NESTED))))


def _scale(fields: dict[str, Any], random_: random.Random) -> None:
    numbers = [key for key, value in fields.items() if type(value) is int and value > 1]
    if numbers:
        key = random_.choice(numbers)
        fields[key] = random_.choice((fields[key] * 10**3, fields[key] * 10**6, -fields[key], fields[key] + 1, 0))


def _swap(fields: dict[str, Any], random_: random.Random) -> None:
    one, other = random_.choice(list(fields)), random_.choice(list(fields))
    fields[one], fields[other] = fields[other], fields[one]


def _add(fields: dict[str, Any], random_: random.Random) -> None:
    key = random_.choice(list(EXTRA))
    fields[key] = copy.deepcopy(EXTRA[key])


def _deepen(fields: dict[str, Any], random_: random.Random) -> None:
    value: Any = 1
    for _ in range(random_.choice((3, 30, 300, 900))):
        value = [value] if random_.random() < 0.5 else {"a": value}
    fields[random_.choice([*fields, "extra"])] = value


def _lengthen(fields: dict[str, Any], random_: random.Random) -> None:
    lists = [key for key, value in fields.items() if isinstance(value, list) and value]
    if lists:
        key = random_.choice(lists)
        fields[key] = (fields[key] * random_.choice((2, 100, 10_000)))[:20_000]
    else:
        fields["extra"] = [0] * 10_000


_CHANGES: list[Callable[[dict[str, Any], random.Random], None]] = [
    *[_drop] * 3,
    *[_replace] * 6,
    *[_scale] * 2,
    _swap,
    *[_add] * 3,
    _deepen,
    _lengthen,
]


def _cut(text: bytes, random_: random.Random) -> bytes:
    return text[: random_.randrange(len(text))]


def _flip(text: bytes, random_: random.Random) -> bytes:
    at = random_.randrange(len(text))
    return text[:at] + bytes([random_.randrange(256)]) + text[at + 1 :]


def _twice(text: bytes, random_: random.Random) -> bytes:
    return text[:-1] + b', "hidden_size": 7, "hidden_size": "wide"}'


_TEXTS: list[Callable[[bytes, random.Random], bytes]] = [
    _cut,
    _flip,
    _twice,
    lambda text, _: text + text,
    lambda text, _: b"\xef\xbb\xbf" + text,
    lambda text, _: text.decode("utf-8", "replace").encode("utf-16"),
    lambda text, _: b"",
    lambda text, _: text.replace(b"{", b"[", 1),
    lambda text, _: b'{"a": ' * 5000 + b"1" + b"}" * 5000,
    lambda text, _: text[:-1] + b', "n": ' + b"9" * 10_000 + b"}",
]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the command ended: its exit code (negative: the signal that ended it) and what it printed."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """What is wrong with this ending; empty for a price or one clear line."""
        if self.code < 0:
            return f"ended by {signal.Signals(-self.code).name}"
        lines = self.err.splitlines()
        if "Traceback" in self.err + self.out:
            return "a traceback"
        if self.code in (0, 3):
            noise = [line for line in lines if not line.startswith("fxmeter: ")]
            return "noise on stderr" if noise else "" if '"schema_version"' in self.out else "no price"
        if "unexpected" in self.err:
            return "a defect that only the last resort caught"
        if self.code != 1:
            return f"exit code {self.code}"
        if self.out or len(lines) != 1 or not lines[0].startswith("fxmeter: ") or len(lines[0]) > 1000:
            return "not one clear line"
        return ""


def outcome_of(config: Path, *options: str, seconds: int = SECONDS, nbytes: int = BYTES) -> Outcome:
    """Run ``fxmeter report CONFIG --json`` with ``options`` in a fork of this process."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # newer Pythons warn of threads, which torch has, and the child does without
            child = os.fork()
        if child == 0:
            _in_child(config, options, seconds, nbytes, out.fileno(), err.fileno())
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        return Outcome(code, out.read().decode("utf-8", "replace"), err.read().decode("utf-8", "replace"))


def _in_child(config: Path, options: tuple[str, ...], seconds: int, nbytes: int, out: int, err: int) -> None:
    code = 70
    try:
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), encoding="utf-8")
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), encoding="utf-8")
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(seconds)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + nbytes, used + nbytes))
        os.environ.pop("FXMETER_TRACEBACK", None)
        sys.argv = ["fxmeter", "report", str(config), "--json", *options]
        from fxmeter.annotators.cli.main import main

        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
