"""A world of ranks of which only this one exists: torch's fake process group, whose collectives move nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import RLock
from typing import Any

import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from fxmeter.models.deployment import Deployment
from fxmeter.models.errors import DeploymentError
from fxmeter.tracer.private import on_demand, without_modes

_turn = RLock()
"""A process is in one world at a time."""


@dataclass(frozen=True, slots=True)
class Meshes:
    """The groups of rank 0: those that share a batch, ``tensor``, and those that have the experts, ``experts``."""

    tensor: DeviceMesh
    experts: DeviceMesh


@contextmanager
def world_of(deployment: Deployment) -> Iterator[Meshes]:
    """Inside the block this process is rank 0 of ``deployment.ranks``; afterwards it is no rank.

    Raises:
        DeploymentError: the process has a process group of its own, which is left alone.
    """
    with _turn:
        if dist.is_initialized():
            raise DeploymentError(
                "this process has a torch.distributed process group of its own, beside which no rank can be recorded: "
                "destroy_process_group() first, or price the deployment in another process"
            )
        hook = sys.excepthook  # torch puts one around it, for good, that says the rank on every line
        dist.init_process_group("fake", store=on_demand("FakeStore")(), rank=0, world_size=deployment.ranks)
        try:
            with _propagating_unseen():
                yield _meshes(deployment)
        finally:
            dist.destroy_process_group()
            sys.excepthook = hook


def _meshes(deployment: Deployment) -> Meshes:
    """On "cpu", which tensors on meta do not mind: DTensor knows no device module of meta."""
    tp, ep = deployment.tp, deployment.ep
    return Meshes(
        init_device_mesh("cpu", (deployment.ranks // tp, tp), mesh_dim_names=("dp", "tp"))["tp"],
        init_device_mesh("cpu", (deployment.ranks // ep, ep), mesh_dim_names=("edp", "ep"))["ep"],
    )


@contextmanager
def _propagating_unseen() -> Iterator[None]:
    """Inside the block no recorder sees how DTensor works out shapes, which it does when it first meets them."""
    propagator = on_demand("ShardingPropagator")
    own = propagator._propagate_tensor_meta_non_cached

    def unseen(self: Any, op_schema: Any) -> Any:
        with without_modes():
            return own(self, op_schema)

    propagator._propagate_tensor_meta_non_cached = unseen
    try:
        yield
    finally:
        propagator._propagate_tensor_meta_non_cached = own
