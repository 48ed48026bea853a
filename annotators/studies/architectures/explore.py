"""Every architecture of a space, priced: as rows, as soon as they are known."""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from fxmeter.annotators.conventions import USUAL, Conventions
from fxmeter.annotators.studies.architectures.expressions import expression
from fxmeter.annotators.studies.architectures.pricing import DIED, Architecture, Candidate, is_kept, price_batch
from fxmeter.annotators.studies.architectures.question import Question, named, question_versions
from fxmeter.annotators.studies.architectures.space import Choices, Space, space_of
from fxmeter.annotators.studies.architectures.workers import Given, Workers, check_jobs, cores, done_by, local
from fxmeter.models.choices import Attention, Causal, Logits, Routing
from fxmeter.models.deployment import ONE_DEVICE, Deployment
from fxmeter.models.devices import Device
from fxmeter.models.devices import device as device_named
from fxmeter.models.errors import ScenarioError
from fxmeter.models.scenario import Scenario, decode, prefill

BATCH = 16
"""Architectures that a worker gets at a time, and that one crash can cost: about a second's work."""
FEW = 100
"""Up to so many are priced before a second process has imported torch."""

USUAL_PASSES = (prefill(2048), decode(2048))


@dataclass(frozen=True, slots=True)
class Exploration:
    """A space, and what is asked of each architecture in it."""

    space: Space
    question: Question

    def candidates(self, skip: Container[str] = ()) -> Iterator[Candidate | Architecture]:
        """Every combination but those whose key is to be skipped: to be priced, or refused already where an expression
        cannot be computed. What conditions on fields alone leave out is none."""
        for values, refused in self.space.combinations():
            key = self.question.key(values)
            if key in skip:
                continue
            if refused is None:
                try:
                    if is_kept(self.question, {**self.space.defaults, **values}):
                        yield Candidate(key, values)
                    continue
                except ScenarioError as error:
                    refused = str(error)
            yield Architecture(key, values, refused=refused)

    def run(
        self, workers: AbstractContextManager[Workers] | None = None, *, batch: int = BATCH, skip: Container[str] = ()
    ) -> Iterator[list[Architecture]]:
        """Whole batches, as they are done: by ``workers``, or one after another in this process."""
        refused: list[Architecture] = []

        def batches() -> Iterator[list[Candidate]]:
            found = self.candidates(skip)
            while some := list(itertools.islice(found, batch)):
                refused.extend(each for each in some if isinstance(each, Architecture))
                if wanted := [each for each in some if isinstance(each, Candidate)]:
                    yield wanted

        known = self.space.defaults
        if workers is None:
            here = (price_batch(self.question, some, known) for some in batches())
            yield from self._with(refused, here)
            return
        with workers as hands:
            there = done_by(hands, price_batch, (self.question, known), batches(), _died)
            yield from self._with(refused, there)

    @staticmethod
    def _with(refused: list[Architecture], done: Iterable[list[Architecture]]) -> Iterator[list[Architecture]]:
        """What is done, with those between that need no pricing."""
        for batch in done:
            yield [*refused, *batch]
            refused.clear()
        if refused:
            yield list(refused)


def _died(candidate: Candidate) -> Architecture:
    return Architecture(candidate.key, candidate.fields, refused=DIED)


def exploration(
    model: str | Path,
    sets: Mapping[str, Choices],
    *,
    keep: Sequence[str] = (),
    scenarios: Sequence[Scenario] = USUAL_PASSES,
    devices: Sequence[str | Path | Device] = (),
    attention: Attention = "flash",
    conventions: Conventions = USUAL,
    deployment: Deployment = ONE_DEVICE,
    dtype: str | None = None,
) -> Exploration:
    """What :func:`explore` goes through, checked. Raises as it does."""
    if deployment.kernels == "serving" and attention == "eager":
        raise ScenarioError("serving kernels fuse attention: price them with attention='flash'")
    conditions = tuple(map(expression, keep))
    space = space_of(str(model), sets, conditions)
    question = Question(
        model=str(model),
        base=space.base,
        scenarios=named(scenarios),
        devices=tuple(map(device_named, devices)),
        attention=attention,
        conventions=conventions,
        deployment=deployment,
        dtype=dtype,
        keep=conditions,
        versions=question_versions(),
    )
    read = {name: f"keep {condition.text}" for condition in conditions for name in condition.names}
    question.check_names(read, {**space.defaults, **sets})
    return Exploration(space, question)


def explore(
    model: str | Path,
    sets: Mapping[str, Choices],
    *,
    keep: Sequence[str] = (),
    scenarios: Sequence[Scenario] = USUAL_PASSES,
    devices: Sequence[str | Path | Device] = (),
    attention: Attention = "flash",
    causal: Causal = "full",
    logits: Logits = "all",
    routing: Routing = "uniform",
    deployment: Deployment = ONE_DEVICE,
    dtype: str | None = None,
    jobs: int = 1,
    executor: Executor | None = None,
) -> Iterator[Architecture]:
    """Price every architecture of a space.

    Args:
        model: a preset, a folder or config.json, or a Hub id: the fields that are not set.
        sets: field of the config → values: a text as on the command line (``"16:64:16"``, ``"8*hidden_size//3"``), one
            value, or several. All combinations are gone through.
        keep: conditions such as ``"parameters < 8e9"``, each as soon as what it reads is known.
        scenarios: passes to price, at most one of a kind of size.
        devices: what they are timed on: names, files or devices.
        attention, causal, logits, routing, deployment, dtype: as for :func:`fxmeter.annotate`.
        jobs: processes of this machine; with more than one, a script needs ``if __name__ == "__main__":``.
        executor: any :class:`concurrent.futures.Executor` instead, Dask's ``client.get_executor(pure=False)`` among
            them: its workers need nothing but the package. Architectures of a worker that dies may be lost with it.

    Returns:
        Rows, as they are done: ``fields`` as set, ``figures`` by name, or why transformers ``refused`` them. What a
        condition leaves out is not among them. Nothing is shared between calls, in whatever threads.

    Raises:
        ScenarioError: a field or figure that is not known, an expression or a value that is none; at once.
        ModelError, DeviceError, DeploymentError: no such model or device, or a deployment that cannot be; at once.
        FxmeterError: the executor ended; while rows are asked for.
    """
    check_jobs(jobs)
    conventions = Conventions(causal=causal, logits=logits, routing=routing)
    found = exploration(
        model,
        sets,
        keep=keep,
        scenarios=scenarios,
        devices=devices,
        attention=attention,
        conventions=conventions,
        deployment=deployment,
        dtype=dtype,
    )
    workers: AbstractContextManager[Workers] | None = None
    if executor is not None:
        workers = nullcontext(Given(executor))
    elif jobs > 1:
        workers = local(jobs)
    batch = batch_size(len(found.space), jobs)
    return (row for rows in found.run(workers, batch=batch) for row in rows if row.kept)


def batch_size(count: int, jobs: int) -> int:
    """Architectures of a batch: fewer where there are few, so that all processes have some."""
    return max(1, min(BATCH, count // (4 * jobs)))


def usual_jobs(count: int) -> int:
    """Processes for so many architectures, where nobody says."""
    return 1 if count <= FEW else cores()
