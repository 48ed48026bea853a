"""What modules keep in their attributes: seen, undone, and where it is state of the model, held as such."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, nn

from fxmeter.models.names import Kwargs
from fxmeter.tracer.graph.values import AnyCache
from fxmeter.tracer.state.cache import CacheTensor, cache_tensors, named_in
from fxmeter.tracer.state.session import passes_run
from fxmeter.tracer.state.tree import stores_of, walk


class Attributes:
    """The attributes and submodules of all modules of a model as they were, to see and undo what a pass changes."""

    def __init__(self, model: nn.Module) -> None:
        self._walk = walk(model)
        self._stores = stores_of(model)
        self._tensors = self._stores.tensors()
        self._training = [module.training for _, module in self._walk]
        self._at, self._same = passes_run(), True

    def _is_same(self) -> bool:
        """Whether nothing has changed, looked at once after each pass."""
        if self._at != passes_run():
            self._at, self._same = passes_run(), self._stores.same()
        return self._same

    @cached_property
    def _were(self) -> dict[int, Kwargs]:
        """What was in each dictionary of the modules, by its id: told only where something has changed."""
        were = self._stores.were(self._tensors)
        for (_, module), training in zip(self._walk, self._training, strict=True):
            were[id(module.__dict__)]["training"] = training  # which the stores may have been looked at before
        return were

    def _changed(self) -> Iterator[tuple[str, nn.Module, Kwargs]]:
        if self._is_same():
            return
        for path, module in self._walk:
            now = module.__dict__
            kept = self._were[id(now)]
            if len(now) != len(kept) or not all(map(operator.is_, now.values(), kept.values())):
                yield path, module, kept

    def new_tensors(self) -> Iterator[tuple[str, nn.Module, str, Tensor]]:
        """(path, module, name, tensor) of every attribute that has become another tensor, or a list of others."""
        for path, module, kept in self._changed():
            for name, value in module.__dict__.items():
                if value is not kept.get(name):
                    yield from ((path, module, place, tensor) for place, tensor in named_in(value, name))

    @contextmanager
    def put_aside(self) -> Iterator[None]:
        """Inside the block attributes are as they were; what a pass made of them is there again afterwards."""
        now = [(module, dict(module.__dict__)) for _, module, _ in self._changed()]
        self.restore()
        try:
            yield
        finally:
            for module, attributes in now:
                module.__dict__.update(attributes)
            self._at = -1

    def restore(self) -> None:
        """Put everything back but what torch keeps for itself."""
        if self._is_same():
            return
        for _, module, kept in self._changed():
            now = module.__dict__
            for name in [n for n in now if not n.startswith("_") and n not in kept]:
                del now[name]
            now.update({name: value for name, value in kept.items() if not name.startswith("_")})
        for _, module in self._walk:
            submodules = self._were.get(id(module._modules), {})
            if not all(map(operator.is_, module._modules.values(), submodules.values())):
                module._modules.update(submodules)


@contextmanager
def attributes_restored(model: nn.Module) -> Iterator[Attributes]:
    """Attributes and submodules that a pass changes are afterwards as they were; it is ``running``."""
    attributes = Attributes(model)
    try:
        yield attributes
    finally:
        attributes.restore()


@dataclass(frozen=True)
class Held:
    """A cache, and the state that modules keep in their ``attributes`` from one pass to the next.

    ``states`` says which attributes are state, (path, name) of each: where there is any new tensor in one, that alone
    does not tell it from a table that a module keeps, or from what it leaves for whoever asks.
    """

    cache: AnyCache
    attributes: Attributes
    states: Callable[[], frozenset[tuple[str, str]]]

    def tensors(self) -> Iterator[CacheTensor]:
        """Every tensor held, the cache's first."""
        yield from cache_tensors(self.cache)
        new = list(self.attributes.new_tensors())
        if new:
            with self.attributes.put_aside():
                states = self.states()
        for path, module, name, value in new:
            if (path, name) in states:
                layer = re.search(r"\.(\d+)(\.|$)", path)
                yield CacheTensor(int(layer[1]) if layer else -1, type(module).__name__, name, value)
