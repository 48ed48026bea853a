"""Tied weights are resident once and read as often as they are used; a module called twice costs twice.

python examples/tied_and_repeated.py
"""

import torch
from torch import Tensor, nn

from fxmeter import annotate_module


class Tied(nn.Module):
    """A language model of one block that runs twice, its head tied to its embedding."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.block = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [B, S] → logits [B, S, vocabulary]."""
        hidden = self.embed(tokens)
        for _ in range(2):
            hidden = hidden + self.block(hidden)
        return self.head(hidden)


def main() -> None:
    """Price it with weights that are real: they are neither read nor changed."""
    model = Tied(vocabulary=32000, width=512)
    before = model.head.weight.clone()
    stage = annotate_module(model, torch.zeros(1, 64, dtype=torch.long))
    print(f"resident {stage.cost.weight_bytes:,} bytes, read {stage.cost.weight_read_bytes:,}")
    for path in ("embed", "block", "head"):
        cost = stage.modules[path].cost
        print(f"{path:6} {cost.matmul_flops:,} FLOPs, {cost.weight_bytes:,} resident, {cost.weight_read_bytes:,} read")
    print(f"the weights are as they were: {torch.equal(before, model.head.weight)}")


if __name__ == "__main__":
    main()
