"""What a module of your own costs: any nn.Module, real weights or none, any arguments.

python examples/your_own_module.py
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxmeter import annotate_module


class Block(nn.Module):
    """A pre-norm transformer block as one would write it by hand."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """x [B, S, width] → the same shape."""
        b, s, h = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, s, 3, self.heads, h // self.heads).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).reshape(b, s, h))
        return x + self.mlp(self.norm2(x))


def main() -> None:
    """Price the block with its attention unfused and fused, and show its heaviest submodules."""
    block, x = Block(1024, 16), torch.empty(4, 2048, 1024, device="meta")
    for attention in ("eager", "flash"):
        cost = annotate_module(block, x, attention=attention).cost
        print(f"{attention:6} {cost.flops:,} FLOP  {cost.io_bytes:,} bytes  {cost.activation_bytes:,} bytes made")
    stage = annotate_module(block, x)
    for path, module in stage.modules.items():
        if path and module.cost.flops > 0.05 * stage.cost.flops:
            print(f"{module.cost.flops / stage.cost.flops:6.1%}  {path}")


if __name__ == "__main__":
    main()
