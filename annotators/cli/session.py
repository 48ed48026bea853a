"""What every command that works on a model goes through: found, outputs checked, libraries loaded and kept quiet.

Nothing is loaded before it is needed: what was answered before comes from the cache, without torch.
"""

from __future__ import annotations

import gc
import hashlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Literal, TypeVar

from fxmeter.annotators.cli.options import cache_option, dtype_option, model_argument, mtp_option
from fxmeter.annotators.cli.output import check_writable, progress
from fxmeter.annotators.cli.values import Decorator, gathered
from fxmeter.annotators.closed.form import ClosedForm
from fxmeter.annotators.conventions import Conventions
from fxmeter.annotators.sheets.kept.document import from_document, to_document
from fxmeter.annotators.sheets.kept.plain import NO_DOCUMENT, made, plain
from fxmeter.annotators.sheets.kept.store import Question, Store, default_store, is_settled
from fxmeter.annotators.sheets.sheet import Sheet
from fxmeter.annotators.studies.axes import Axes
from fxmeter.annotators.studies.sweep import StageForms
from fxmeter.models.choices import Attention, StageName
from fxmeter.models.deployment import ONE_DEVICE, Deployment
from fxmeter.models.errors import ModelError, ScenarioError
from fxmeter.models.model_info import ModelInfo
from fxmeter.models.names import Document, Kwargs
from fxmeter.models.presets import Preset
from fxmeter.models.scenario import agreed_encoder_len
from fxmeter.models.source import Factory, HubId, Located, locate

if TYPE_CHECKING:
    from torch import nn

T = TypeVar("T")


@dataclass
class Session:
    """The work on one model. ``say`` changes the line of progress on stderr; ``store`` has what was answered before,
    None where nothing is to be kept; ``sets`` are fields of the config that are given other values; ``mtp`` asks for
    the layers that predict further tokens."""

    name: str
    source: Located
    dtype: str | None
    say: Callable[[str], None]
    store: Store | None
    sets: Mapping[str, str] = field(default_factory=dict)
    mtp: bool = False
    _sheets: list[tuple[Question, Sheet]] = field(default_factory=list)

    def decoder(self, *, encoder: bool = False) -> nn.Module:
        """The language model, on meta. Raises ModelError for an encoder-decoder one unless ``encoder`` says that the
        command prices both parts."""
        model = self._model
        from fxmeter.tracer.run.encoder import has_encoder

        if has_encoder(model) and not encoder:
            raise ModelError(
                f"{self.name} is an encoder-decoder model, and this command is of decoders alone; report, time, "
                "capacity, sweep and formula price both parts (--encoder-len N)"
            )
        return model

    @cached_property
    def _model(self) -> nn.Module:
        self.say("loading torch and transformers")
        load_libraries()
        from fxmeter.tracer.load.loading import load_model

        self.say(f"building {self.name} on meta")
        if self.sets:
            from fxmeter.annotators.studies.architectures.space import with_sets

            return load_model(with_sets(self.name, self.sets), dtype=self.dtype, mtp=self.mtp)
        return load_model(self.name, dtype=self.dtype, mtp=self.mtp)

    @cached_property
    def tower(self) -> nn.Module:
        """The vision tower beside it, on meta."""
        if self.sets:
            raise ModelError(
                "--set changes the language model's config; pages are read by the vision tower of the preset"
            )
        self.say("loading torch and transformers")
        load_libraries()
        from fxmeter.tracer.load.vision import load_vision

        return load_vision(self.name, dtype=self.dtype)

    def answer(self, kind: type[T], asked: Kwargs, work_out: Callable[[], T]) -> T:
        """A record of type ``kind``: the one that was kept for the question, else what ``work_out`` gives, kept from
        now on."""
        question = self._question(kind.__name__, asked)
        if question is not None and self.store is not None:
            with suppress(*NO_DOCUMENT):
                return made(kind, self.store.get(question))
        found = work_out()
        if question is not None and self.store is not None:
            self.store.put(question, plain(found))
        return found

    def info(self, deployment: Deployment = ONE_DEVICE, *, sees: bool = False) -> ModelInfo:
        """The model in one line, with its vision tower for ``sees``."""

        def work_out() -> ModelInfo:
            decoder = self.decoder(encoder=True)
            from fxmeter.annotators.stages.model_info import model_info

            return model_info(decoder, self.tower if sees else None, deployment)

        return self.answer(ModelInfo, {"deployment": repr(deployment), "sees": sees}, work_out)

    def form(
        self,
        stage: StageName,
        attention: Attention,
        conventions: Conventions,
        deployment: Deployment = ONE_DEVICE,
        *,
        encoder_len: int | None = None,
        use: Literal["points", "formula"] = "points",
    ) -> ClosedForm:
        """The closed form of a stage, from its cost sheet as far as that goes. ``use`` is what it is for: what one kind
        of question finds is kept from the others, so that an answer does not hang on what was asked before."""

        def beyond() -> Sheet:
            module = self.tower if stage == "vision" else self.decoder(encoder=True)
            from fxmeter.annotators.closed.find import closed_form_by

            self.say(f"finding the closed form of {stage}, {attention}")
            how: Kwargs = {"attention": attention, "encoder_len": encoder_len, "deployment": deployment}
            return closed_form_by(conventions, module, stage=stage, **how).sheet

        asked = {"deployment": repr(deployment), "encoder_len": encoder_len, **asdict(conventions), "use": use}
        question = self._question("sheet", {"stage": stage, "attention": attention, **asked})
        if question is None or self.store is None:
            return ClosedForm(beyond())
        try:
            sheet = from_document(self.store.get(question), beyond)
        except NO_DOCUMENT:
            sheet = beyond()
        self._sheets.append((question, sheet))
        return ClosedForm(sheet)

    def encoder_len(self, asked: int | None, deployment: Deployment, *, sees: bool = False) -> int | None:
        """The positions of the encoder: those asked for, or the ones that its config fixes; None without an encoder.

        Raises ScenarioError where that cannot be.
        """
        info = self.info(deployment, sees=sees)
        if info.kind != "encoder-decoder":
            if asked is not None:
                raise ScenarioError(f"{self.name} is no encoder-decoder model: leave --encoder-len out")
            return None
        option = "--encoder-len"
        return agreed_encoder_len(self.name, asked, info.encoder_positions, option=option, how=f"{option} N")

    def forms(self, axes: Axes, conventions: Conventions, deployment: Deployment) -> StageForms:
        """The closed forms of the model, with its vision tower where the axes have pages."""

        def make(stage: StageName, attention: Attention, conventions: Conventions) -> ClosedForm:
            return self.form(stage, attention, conventions, deployment, encoder_len=axes.encoder_len)

        return StageForms(
            make, lambda: self.info(deployment, sees=bool(axes.crops)), conventions.under(deployment), deployment
        )

    def keep(self) -> None:
        """Keep the cost sheets that are new, or that know more than before."""
        for question, sheet in self._sheets:
            if self.store is not None and sheet.has_grown:
                self.store.put(question, to_document(sheet, None))

    def _question(self, kind: str, asked: Kwargs) -> Question | None:
        """What is asked of this model; None where nothing says what it follows from: the user's own code, or a config
        that cannot be read, which whoever loads it will say."""
        return None if self._facts is None else Question(kind, {**self._model_facts(), **asked})

    def _model_facts(self) -> Document:
        changes: Document = {"sets": dict(self.sets)} if self.sets else {}
        changes |= {"mtp": True} if self.mtp else {}
        return {"model": self._facts, "dtype": self.dtype, **changes}

    @cached_property
    def _facts(self) -> Document | None:
        """What the model follows from: its config, by content."""
        if isinstance(self.source, Preset):
            return {"name": self.name, "preset": asdict(self.source)}
        if isinstance(self.source, HubId):
            self.say("loading torch and transformers")
            load_libraries()
            from fxmeter.tracer.load.reading import read_fields

            return {"name": self.name, "config": read_fields(self.name)[0]}
        if isinstance(self.source, Factory):
            return None
        try:
            return {"name": self.name, "config_sha256": hashlib.sha256(self.source.read_bytes()).hexdigest()}
        except OSError:
            return None


@contextmanager
def session(
    model: str,
    dtype: str | None = None,
    *,
    remember: bool = True,
    sets: Mapping[str, str] | None = None,
    mtp: bool = False,
    **files: str | None,
) -> Iterator[Session]:
    """Begin the work on ``model``; ``files`` has the paths that options give, ``json=path`` for --json.

    What can be refused is refused before torch is loaded: a model that is nowhere, a file that cannot be written.
    """
    source = locate(model)
    for option, path in files.items():
        check_writable(f"--{option.replace('_', '-')}", path)
    name = source.name if isinstance(source, Preset) else model
    with progress(f"looking for {name}") as say:
        yield Session(name, source, dtype, say, default_store() if remember and is_settled() else None, sets or {}, mtp)


Begin = Callable[..., AbstractContextManager[Session]]


def model_options(*more: Decorator) -> Decorator:
    """MODEL, --dtype, --mtp, ``more`` and --no-cache as ``begin``: :func:`session` on that model, but for the files."""
    return gathered("begin", partial(partial, session), model_argument, dtype_option, mtp_option, *more, cache_option)


def load_libraries() -> None:
    """Import torch and transformers, and keep their log lines and warnings off stderr: what is wrong with a config is
    said in one line."""
    import logging
    import warnings

    gc.disable()  # a sixth of the time that imports take, for nothing: what they make stays
    try:
        with interrupted_afterwards():
            import torch  # noqa: F401
            import transformers

            import fxmeter.annotators.api  # noqa: F401
    finally:
        gc.enable()
    gc.freeze()

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
