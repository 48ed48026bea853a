"""What every command that works on a model goes through: found, outputs checked, libraries loaded and kept quiet."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fxmeter.annotators.cli.output import check_writable, progress
from fxmeter.annotators.conventions import Conventions
from fxmeter.annotators.studies.axes import Axes
from fxmeter.models.deployment import Deployment
from fxmeter.models.errors import ModelError
from fxmeter.models.presets import Preset
from fxmeter.models.source import Located, locate

if TYPE_CHECKING:
    from torch import nn

    from fxmeter.annotators.studies.sweep import StageForms


@dataclass(frozen=True, slots=True)
class Session:
    """The work on one model. ``say`` changes the line of progress on stderr."""

    name: str
    source: Located
    say: Callable[[str], None]

    @property
    def sees(self) -> bool:
        """Whether the model has a vision tower that can be built."""
        return isinstance(self.source, Preset) and bool(self.source.vision)

    def decoder(self, dtype: str | None = None, *, encoder: bool = False) -> nn.Module:
        """The language model, on meta. Raises ModelError for an encoder-decoder one unless ``encoder`` says that the
        command knows what to do with it."""
        from fxmeter.tracer.load.loading import load_model
        from fxmeter.tracer.run.encoder import has_encoder

        self.say(f"building {self.name} on meta")
        model = load_model(self.name, dtype=dtype)
        if has_encoder(model) and not encoder:
            raise ModelError(
                f"{self.name} is an encoder-decoder model, which this command does not price yet; "
                f"fxmeter report {self.name} --encoder-len N does"
            )
        return model

    def tower(self, dtype: str | None = None) -> nn.Module:
        """The vision tower beside it, on meta."""
        from fxmeter.tracer.load.vision import load_vision

        return load_vision(self.name, dtype=dtype)

    def forms(self, axes: Axes, conventions: Conventions, dtype: str | None, deployment: Deployment) -> StageForms:
        """The closed forms of the model, with its vision tower where the axes have pages."""
        from fxmeter.annotators.studies.sweep import StageForms

        tower = self.tower(dtype) if axes.crops else None
        return StageForms(self.decoder(dtype), tower=tower, conventions=conventions, deployment=deployment)


@contextmanager
def session(model: str, **files: str | None) -> Iterator[Session]:
    """Begin the work on ``model``; ``files`` has the paths that options give, ``json=path`` for --json.

    What can be refused is refused before torch is loaded: a model that is nowhere, a file that cannot be written.
    """
    source = locate(model)
    for option, path in files.items():
        check_writable(f"--{option.replace('_', '-')}", path)
    with progress("loading torch and transformers") as say:
        load_libraries()
        yield Session(source.name if isinstance(source, Preset) else model, source, say)


def load_libraries() -> None:
    """Import torch and transformers, and keep their log lines and warnings off stderr: what is wrong with a config is
    said in one line."""
    import logging
    import warnings

    with interrupted_afterwards():
        import torch  # noqa: F401
        import transformers

    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity(logging.CRITICAL)
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)


@contextmanager
def interrupted_afterwards() -> Iterator[None]:
    """Let Ctrl-C wait until the block is done: in the middle of an extension that loads it would abort the process."""
    interrupted: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, lambda number, frame: interrupted.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if interrupted:
        raise KeyboardInterrupt
