"""What a collective takes on links within a node and across nodes."""

from __future__ import annotations

import pytest

from fxmeter.annotators.timing.kernels import Kernel
from fxmeter.annotators.timing.links import sending_s
from fxmeter.models.devices import device
from fxmeter.models.errors import DeviceError

SENT = 63 * 10**6
LINK, ACROSS = 450e9, 50e9  # of an H100, and of its network


def collective(op, ranks):
    return Kernel("k", op, "", 1, "collective", "bf16", 0, 0, 0, SENT, tuple(range(ranks)))


def test_ranks_of_one_node_use_its_links():
    for nodes in (device("h100"), device("h100").in_nodes(64, ACROSS)):
        assert sending_s(collective("c10d.allreduce_.default", 64), nodes) == pytest.approx(SENT / LINK)


def test_of_an_all_to_all_what_is_for_other_nodes_goes_between_them():
    """64 ranks in nodes of 8: 56 of 63 parts leave the node."""
    found = sending_s(collective("_c10d_functional.all_to_all_single.default", 64), device("h100").in_nodes(8, ACROSS))
    assert found == pytest.approx(SENT * 56 / 63 / ACROSS)


def test_an_all_reduce_goes_round_each_node_first():
    """Each of 8 ranks of a node has an eighth left to exchange with 7 other nodes: 2·n·(7/8)/8 of 2·n·63/64 bytes."""
    found = sending_s(collective("c10d.allreduce_.default", 64), device("h100").in_nodes(8, ACROSS))
    whole = SENT * 64 / 63  # 2·n
    assert found == pytest.approx(max(whole * 7 / 8 / 8 / ACROSS, whole * 7 / 8 / LINK))


def test_what_is_not_known_is_refused():
    with pytest.raises(DeviceError, match="links"):
        sending_s(collective("c10d.allreduce_.default", 2), device("apple-m1-max"))
    with pytest.raises(DeviceError, match="--across"):
        sending_s(collective("c10d.allreduce_.default", 16), device("h100").in_nodes(8, None))
