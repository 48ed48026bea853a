"""How experts on other ranks get their tokens, with the row counts that are expected of a router without favourites.

Which rank a token goes to is data. In a real run each rank tells the others how many rows it sends; here every expert
is chosen equally often, so that of T tokens with k experts each every one of p ranks gets T·k/p. The code is that of
transformers' own exchanges (``transformers.distributed.expert_parallel``) but for those counts, and for the rows of
other ranks' experts: its all-reduce computes and masks them, engines leave them out.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.overrides import TorchFunctionMode
from transformers.distributed.expert_parallel import EPImplementation, EPImplementationInterface

from fxmeter.models.deployment import Deployment
from fxmeter.tracer.graph.shares import share_of
from fxmeter.tracer.private import on_demand


def split(rows: int, ranks: int) -> list[int]:
    """How many of ``rows`` rows go to each of ``ranks``. On meta nobody looks which, and only their sum counts."""
    return [rows, *(0 for _ in range(ranks - 1))]


class RowsAlike(TorchFunctionMode):
    """Inside it one row is put in its place by the same ops as many: torch takes leading sizes of 1 off a value first.
    So the ops of a rank do not hang on how many rows it has."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__setitem__ and isinstance(args[1], Tensor):
            args[0].index_put_((args[1],), args[2])
            return None
        return func(*args, **(kwargs or {}))


class ExpectedAllToAll(EPImplementation):
    """Ranks with sequences of their own send each token to the ranks of its experts, and get it back from them.

    Ranks of one tensor-parallel group share their sequences: each sends its part of them, and gathers the rest.
    """

    def __call__(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        tokens, top_k = hidden_states.size(0), top_k_index.size(-1)
        shared = self.tp_mesh.size() > 1
        if shared:
            hidden_states, top_k_index, top_k_weights = map(self._own, (hidden_states, top_k_index, top_k_weights))
        expert_ids = top_k_index.reshape(-1)
        order = torch.argsort(expert_ids)
        sizes = split(expert_ids.numel(), self.ep_mesh.size())
        local: Any = self.num_local_experts
        counts = torch.zeros(local * len(sizes), dtype=torch.long, device=expert_ids.device)
        counts = self._exchange(counts.scatter_add_(0, expert_ids, torch.ones_like(expert_ids)))
        received = self._exchange(hidden_states[order // top_k], sizes)
        local_ids = torch.arange(local, device=expert_ids.device).repeat(len(sizes))
        local_ids = local_ids.repeat_interleave(counts, output_size=sum(sizes)).unsqueeze(-1)
        with RowsAlike():
            out = self.experts_forward(received, local_ids, torch.ones_like(local_ids, dtype=received.dtype))
        returned = self._exchange(out.contiguous(), sizes)
        in_order = torch.empty_like(returned)
        in_order.index_put_((order,), returned)
        result = (in_order.view(*top_k_weights.shape, -1) * top_k_weights.unsqueeze(-1)).sum(dim=1)
        return self._gathered(result, tokens) if shared else result

    def _exchange(self, rows: Tensor, sizes: list[int] | None = None) -> Tensor:
        exchange = on_demand("all_to_all_single")
        sent: Tensor = on_demand("wait_tensor")(exchange(rows, sizes, sizes, self.ep_mesh.get_group()))
        return sent

    def _own(self, rows: Tensor) -> Tensor:
        """This rank's part of what its tensor-parallel group shares."""
        count = share_of(rows.size(0), self.tp_mesh.size())
        first = count * self.tp_mesh.get_local_rank()
        return rows[first : first + count].clone()

    def _gathered(self, rows: Tensor, tokens: int) -> Tensor:
        """The parts of all ranks of the group; those of the last ones may have fewer rows, which count as full ones."""
        group = self.tp_mesh.get_group()
        gather = torch.ops._c10d_functional.all_gather_into_tensor
        parts: Tensor = on_demand("wait_tensor")(gather(rows.contiguous(), group.size(), group.group_name))
        return parts[:tokens]


class ExpectedAllReduce(EPImplementation):
    """Ranks that share their sequences compute the rows of their own experts, and add their outputs up."""

    needs_shared_batch = True

    def __call__(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        expert_ids, top_k = top_k_index.reshape(-1), top_k_index.size(-1)
        local: Any = self.num_local_experts
        ranks = self.ep_mesh.size()
        even = top_k_index.size(0) * (top_k // ranks)
        rows = share_of(expert_ids.numel(), ranks) if top_k % ranks else even
        first = rows * self.ep_mesh.get_local_rank()
        own = torch.argsort(expert_ids)[first : first + rows]
        local_ids = (expert_ids[own] % local).unsqueeze(-1)
        weights = top_k_weights.reshape(-1)[own].unsqueeze(-1)
        with RowsAlike():
            out = self.experts_forward(hidden_states[own // top_k], local_ids, weights)
        result = torch.zeros_like(hidden_states).index_add_(0, own // top_k, out.to(hidden_states.dtype))
        dist.all_reduce(result, group=self.ep_mesh.get_group())
        return result


EPImplementationInterface.register("fxmeter_all_to_all", ExpectedAllToAll)
EPImplementationInterface.register("fxmeter_all_reduce", ExpectedAllReduce)


def exchange_of(deployment: Deployment) -> str:
    """The name that transformers knows the exchange by: ranks with one batch need not send it to one another."""
    return "fxmeter_all_reduce" if deployment.ep == deployment.tp else "fxmeter_all_to_all"
