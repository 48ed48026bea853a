"""Seconds that a collective takes on the links of a device, within a node and across nodes."""

from __future__ import annotations

from typing import Any

import numpy as np

from fxmeter.annotators.timing.kernel import Kernel
from fxmeter.models.devices.device import Device
from fxmeter.models.errors import DeviceError


def sending_s(kernel: Kernel, device: Device) -> Any:
    """Network bytes over the link that is busy longest.

    p ranks of which m share a node run a collective in two levels, as its libraries do. Of the bytes V that a rank
    sends in all, an all-to-all has V·(m−1)/(p−1) for its own node and V·(p−m)/(p−1) for others. A reduction or a
    gathering goes round each node first, V·(m−1)/m·p/(p−1), so that a rank has an m-th to send across: V/m·(p−m)/(p−1).

    Raises:
        DeviceError: the device's file has no links, or the ranks lie in several nodes and nothing was said of the
            bandwidth between them.
    """
    if not np.any(kernel.network_bytes):
        return 0.0
    if device.link_bytes_per_s is None:
        raise DeviceError(f"device {device.name}: nothing is known of its links, over which ranks exchange bytes")
    size, node = len(kernel.ranks), device.node_size
    inside = size if node is None else sum(rank // node == kernel.ranks[0] // node for rank in kernel.ranks)
    if inside == size:
        return kernel.network_bytes / device.link_bytes_per_s
    if device.across_bytes_per_s is None:
        raise DeviceError(
            f"device {device.name}: {size} ranks lie in nodes of {node}; "
            "give the bandwidth between nodes (--across GB/s)"
        )
    pairwise = "all_to_all" in kernel.op
    within = (inside - 1) / (size - 1) * (1 if pairwise else size / inside)
    across = (size - inside) / (size - 1) / (1 if pairwise else inside)
    return kernel.network_bytes * np.maximum(within / device.link_bytes_per_s, across / device.across_bytes_per_s)
