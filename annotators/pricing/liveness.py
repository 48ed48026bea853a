"""Peak activation memory from real lifetimes.

A tensor occupies memory until Python lets go of it, not until its last use, and the recorder saw when that was: every
storage carries the moments of its birth and death. The bytes alive at a moment are those of the activations born
before and not dead yet; views share a storage, in-place ops make none, weights, cache and inputs are apart.

A layer call that was not run (:mod:`fxmeter.tracer.capture.folding`) lets go of the same tensors in the same order
as the recorded
one that stands for it, so its bytes are those of the recorded call and whatever more was alive when it began: the
recorder noted that moment. What the recorded call leaves alive for good (a cache may hold an empty slice of a tensor),
each of the others leaves too. The peak is the largest over all calls.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import replace
from itertools import accumulate

from torch import fx

from fxmeter.annotators.pricing.ideal_peak import ideal_peaks
from fxmeter.annotators.symbolic import largest
from fxmeter.models.stage_cost import Size
from fxmeter.tracer.capture.recording import Recording
from fxmeter.tracer.graph.instances import Instance
from fxmeter.tracer.graph.nodes import executed, made_by, meta_of
from fxmeter.tracer.graph.spec import Storage


def peaks_of(recording: Recording, moving: Iterable[fx.Node]) -> dict[str, tuple[Size, Size]]:
    """Node name → the peak and the ideal peak while it runs, for ops that are ``moving`` bytes or make a tensor."""
    lifetimes, ideal = Lifetimes(recording), ideal_peaks(recording)
    asked = dict.fromkeys(moving)
    return {
        node.name: (lifetimes.peak_of(node), ideal[node.name])
        for node in executed(recording.graph)
        if node in asked or made_by(node)
    }


class Lifetimes:
    """The activations of a recording, and how many bytes of them are alive at any moment."""

    def __init__(self, recording: Recording) -> None:
        self.storages = _with_those_left(recording)
        events = [(s.born, s.nbytes) for s in self.storages]
        events += [(s.died, -s.nbytes) for s in self.storages if s.died is not None]
        events.sort()
        self._moments = [moment for moment, _ in events]
        self._bytes = [0, *accumulate(change for _, change in events)]
        self._fullest: dict[int, int] = {}
        self._more: dict[int, int] = {}

    def bytes_at(self, moment: int) -> int:
        """Alive at ``moment``, what happens then included."""
        return self._bytes[bisect_right(self._moments, moment)]

    def alive_at(self, moment: int) -> list[Storage]:
        """The storages behind those bytes."""
        return [s for s in self.storages if s.born <= moment and (s.died is None or s.died > moment)]

    def _at_calls(self, instance: Instance) -> list[int]:
        """What is alive when each call of an instance begins, the recorded one first."""
        return [self.bytes_at(moment) for moment in (instance.began, *(skip.moment for skip in instance.skips))]

    def fullest_call(self, instance: Instance) -> int:
        """Which call of an instance began with most alive."""
        if id(instance) not in self._fullest:
            alive = self._at_calls(instance)
            self._fullest[id(instance)] = max(range(len(alive)), key=alive.__getitem__)
        return self._fullest[id(instance)]

    def _more_in_fullest(self, instance: Instance) -> int:
        """How much more is alive when the fullest call of an instance begins than when the recorded one does."""
        if id(instance) not in self._more:
            alive = self._at_calls(instance)
            self._more[id(instance)] = largest(alive) - alive[0]
        return self._more[id(instance)]

    def begins(self, node: fx.Node) -> int:
        """When the fullest of the calls around a node began, or without any the node itself."""
        for instance in meta_of(node).instances:
            index = self.fullest_call(instance)
            return instance.skips[index - 1].moment if index else instance.began
        return int(meta_of(node).span[0])

    def fullest_moment(self, node: fx.Node) -> int:
        """The moment of a node's run with most alive."""
        return max(self._moments_of(node), key=self.bytes_at)

    def _moments_of(self, node: fx.Node) -> list[int]:
        """When a node begins to run, and whatever happens until it ends."""
        began, ended = meta_of(node).span
        return [began, *self._moments[bisect_left(self._moments, began) : bisect_right(self._moments, ended)]]

    def peak_of(self, node: fx.Node) -> int:
        """The most alive while the node runs, over all calls that it stands for."""
        more = sum(self._more_in_fullest(instance) for instance in meta_of(node).instances)
        return largest(map(self.bytes_at, self._moments_of(node))) + more


def _with_those_left(recording: Recording) -> list[Storage]:
    """The activations of a recording, and one more for each call not run of those that outlive the recorded one.

    What a call leaves to its slot of a cache the others leave to theirs, and all go when the cache does.
    """
    storages = [storage for storage in recording.storages if storage.is_activation]
    for instance in sorted(recording.instances(), key=lambda i: -len(i.outer)):
        returned = {storage.id for _, storage in instance.returned if storage is not None}
        inside = (s for s in storages if instance.began < s.born < instance.ended)
        outlives = (s for s in inside if s.died is None or s.died > instance.ended)
        left_alive = [storage for storage in outlives if storage.id not in returned]
        storages += [replace(storage, born=skip.moment + 1) for skip in instance.skips for storage in left_alive]
    return storages
