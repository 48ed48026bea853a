"""Several inputs, keyword arguments, nested outputs, buffers: whatever a module takes and returns.

python examples/inputs_and_outputs.py
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fxmeter import annotate_module


@dataclass
class Fused:
    """What the module below returns."""

    hidden: Tensor
    parts: dict[str, Tensor]


class Fusion(nn.Module):
    """Adds features of two kinds to a hidden state; a buffer scales them."""

    def __init__(self, width: int, features: int) -> None:
        super().__init__()
        self.image, self.sound = nn.Linear(features, width), nn.Linear(features, width)
        self.register_buffer("scale", torch.ones(width))

    def forward(self, hidden: Tensor, features: tuple[Tensor, Tensor], *, gates: dict[str, float]) -> Fused:
        """hidden [B, S, width], features two [B, S, features] → the sum, and what was added."""
        image, sound = self.image(features[0]), self.sound(features[1])
        added = (image * gates["image"] + sound * gates["sound"]) * self.scale
        return Fused(hidden + added, {"image": image, "sound": sound})


def main() -> None:
    """Price it. Example tensors lend their shapes and dtypes alone: give them on meta, and nothing is allocated."""
    hidden = torch.empty(2, 512, 1024, device="meta")
    features = tuple(torch.empty(2, 512, 256, device="meta") for _ in range(2))
    stage = annotate_module(Fusion(1024, 256), hidden, features, gates={"image": 0.5, "sound": 0.1})
    cost = stage.cost
    print(f"{cost.matmul_flops:,} matmul FLOPs, {cost.vector_flops:,} vector FLOPs")
    print(f"{cost.weight_bytes:,} bytes of parameters; {cost.weight_read_bytes:,} read, the buffer among them")
    print(f"inputs read: {[str(node.target) for node in stage.fx_graph.nodes if node.op == 'placeholder']}")


if __name__ == "__main__":
    main()
