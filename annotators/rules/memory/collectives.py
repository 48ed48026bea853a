"""What ranks exchange: the bytes that one rank sends to the others. The sums of a reduction are no FLOPs of a device's
own: they are added up on the way, by links and switches.

Volumes are those of ring algorithms, which no other beats in bytes: over p ranks an all-reduce of n bytes is a
reduce-scatter and an all-gather of n bytes, in each of which every rank passes on n·(p−1)/p (Patarasu and Yuan,
"Bandwidth optimal all-reduce algorithms for clusters of workstations", 2009). In an all-to-all a rank keeps its own
p-th. In memory each operand is read once and each result written once, as by any op.
"""

from __future__ import annotations

import torch

from fxmeter.annotators.rules.cost import Moves
from fxmeter.annotators.rules.registry import free
from fxmeter.models.stage_cost import Size
from fxmeter.tracer.graph.group import Group
from fxmeter.tracer.graph.spec import Spec

c10d, functional = torch.ops.c10d, torch.ops._c10d_functional


def ring(total: Size, group: Group) -> Size:
    """Bytes that a rank passes on so that ``total`` bytes go round: all but its own part."""
    return total * (group.size - 1) // group.size


def _all_reduced_in_place(tensors: list[Spec], process_group: Group) -> Moves:
    return Moves(sent=ring(2 * sum(tensor.nbytes for tensor in tensors), process_group))


def _all_reduced(input: Spec, group_name: Group) -> Moves:
    return Moves(sent=ring(2 * input.nbytes, group_name))


def _all_gathered(input: Spec, group_name: Group) -> Moves:
    return Moves(sent=ring(input.nbytes * group_name.size, group_name))


def _dealt_out(input: Spec, group_name: Group) -> Moves:
    return Moves(sent=ring(input.nbytes, group_name))


free({c10d.allreduce_.default: "an exchange between ranks"}, moves=_all_reduced_in_place)
free(
    dict.fromkeys((functional.all_reduce.default, functional.all_reduce_.default), "an exchange between ranks"),
    moves=_all_reduced,
)
free({functional.all_gather_into_tensor.default: "an exchange between ranks"}, moves=_all_gathered)
free(
    dict.fromkeys(
        (functional.reduce_scatter_tensor.default, functional.all_to_all_single.default), "an exchange between ranks"
    ),
    moves=_dealt_out,
)
free({functional.wait_tensor.default: "waits for an exchange", functional._wrap_tensor_autograd.default: "a view"})
