"""Ranges around the calls of a model's modules, by which a trace says where each op ran and what a pass was of."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn
from torch.profiler import record_function

from fxmeter.annotators.studies.measured.traces.reading import OWN, Trace
from fxmeter.models.choices import Attention
from fxmeter.models.errors import ScenarioError
from fxmeter.models.names import Kwargs
from fxmeter.models.scenario import Scenario, decode, prefill
from fxmeter.tracer.private import attention_name, uncompiled
from fxmeter.tracer.state.cache import CACHE_ARGUMENTS


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a pass was of, as the range around it says."""

    batch: int
    query_len: int
    past_len: int
    attention: str

    def __str__(self) -> str:
        return f"batch {self.batch}, {self.query_len} new tokens after {self.past_len} cached ones, {self.attention}"

    @property
    def scenario(self) -> Scenario:
        """The pass as a scenario."""
        if self.query_len == 1 and self.past_len:
            return decode(self.past_len, batch=self.batch)
        return prefill(self.query_len, past_len=self.past_len, batch=self.batch)

    @property
    def priced_as(self) -> Attention:
        """The attention with which it is priced: of whatever else than a model's own code, one fused core."""
        return "eager" if self.attention == "eager" else "flash"

    def are_of(self, scenario: object) -> bool:
        """Whether a pass of these sizes is one of ``scenario``."""
        if not isinstance(scenario, Scenario):
            return True
        return (self.batch, self.query_len, self.past_len) == (scenario.batch, scenario.query_len, scenario.past_len)


def range_name(path: str, sizes: Sizes | None = None) -> str:
    """What the range around a call of the module at ``path`` is called."""
    words = [] if sizes is None else [f"{name}={value}" for name, value in asdict(sizes).items()]
    return " ".join([f"{OWN}{path}", *words])


def sizes_in(name: str) -> Sizes | None:
    """The sizes that the name of a range says; None where it says none."""
    found = re.search(r"batch=(\d+) query_len=(\d+) past_len=(\d+) attention=(\w+)$", name)
    if found is None or not name.startswith(OWN):
        return None
    return Sizes(int(found[1]), int(found[2]), int(found[3]), found[4])


def sizes_of(trace: Trace) -> list[Sizes]:
    """What the passes of a trace are of, each once, where its ranges say so."""
    return list(dict.fromkeys(sizes for name in trace.names.values if (sizes := sizes_in(name)) is not None))


def the_only(sizes: list[Sizes]) -> Sizes:
    """The sizes of all passes. Raises ScenarioError where there are several, or where nothing says any."""
    if len(sizes) == 1:
        return sizes[0]
    if not sizes:
        raise ScenarioError(
            "the trace does not say of what its passes are: give the prompt (--prefill) or the tokens cached (--decode)"
        )
    several = "; ".join(map(str, sizes[:4])) + ("; …" if len(sizes) > 4 else "")
    raise ScenarioError(f"the trace has passes of several kinds, name one: {several}")


@contextmanager
def ranges_around(model: nn.Module) -> Iterator[None]:
    """Inside the block every call of a module of ``model`` is a range with its path."""
    open_ranges: list[Any] = []
    model = uncompiled(model)

    def enter(name: str) -> None:
        open_ranges.append(record_function(name))
        open_ranges[-1].__enter__()

    def leave(*_: Any) -> None:
        open_ranges.pop().__exit__(None, None, None)

    def before(path: str) -> Any:
        name = range_name(path)
        if path:
            return lambda module, args, kwargs: enter(name)
        return lambda module, args, kwargs: enter(range_name("", _sizes_of(module, args, kwargs)))

    with ExitStack() as stack:
        for path, module in model.named_modules():
            handles = (
                module.register_forward_pre_hook(before(path), prepend=True, with_kwargs=True),
                module.register_forward_hook(leave, always_call=True),
            )
            for handle in handles:
                stack.callback(handle.remove)
        yield


def _sizes_of(model: nn.Module, args: tuple[Any, ...], kwargs: Kwargs) -> Sizes | None:
    """Sizes of a call of a language model; None where it is not seen to be one."""
    tokens = next((v for v in (*args[:1], kwargs.get("input_ids"), kwargs.get("inputs_embeds")) if v is not None), None)
    if not isinstance(tokens, Tensor) or tokens.dim() < 2:
        return None
    cache = next((kwargs[name] for name in CACHE_ARGUMENTS if kwargs.get(name) is not None), None)
    if cache is not None and not hasattr(cache, "get_seq_length"):
        return None
    past_len = 0 if cache is None else int(cache.get_seq_length())
    config = getattr(model, "config", None)
    attention = (attention_name(config) if config is not None else None) or "eager"
    return Sizes(tokens.shape[0], tokens.shape[1], past_len, re.sub(r"\W", "_", attention))
