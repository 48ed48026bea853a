"""Capacity: how many sequences fit into a machine's memory, and what latency targets ask of it.

python examples/capacity.py [PRESET] [GIB]
"""

import sys

from fxmeter import load_model
from fxmeter.annotators.studies.axes import Axes
from fxmeter.annotators.studies.planning.capacity import capacity
from fxmeter.annotators.studies.sweep import StageForms


def main(name: str = "llama-3.1-8b", gib: str = "80") -> None:
    """Print what fits at a few contexts, to the sequence, and the rates that a second and 50 ms a token need."""
    axes = Axes(prefill=(2048, 8192, 32768), batch=(1,), steps=(256,))
    found = capacity(
        StageForms.of_model(load_model(name)), axes, memory_bytes=int(gib) * 2**30, ttft_s=1.0, tpot_s=0.05
    )
    print(f"{name} in {gib} GiB, {found.attention} attention")
    for need in found.needs:
        memory = need.memory
        print(
            f"{need.point.prefill:6,} tokens + {need.point.steps}: {memory.kv_bytes_per_sequence / 2**30:6.3f} GiB "
            f"of KV each, {need.fit.largest_batch:3} sequences fit; first token in 1 s: "
            f"{need.ttft.tflops:7.2f} TFLOP/s, a token in 50 ms: {need.tpot.tbps:.3f} TB/s"
        )
    print(f"one sequence fits with up to {found.needs[0].fit.longest_context:,} tokens")


if __name__ == "__main__":
    main(*sys.argv[1:])
