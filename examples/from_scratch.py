"""The whole idea in one file: record a model's own code on meta, price each op from real shapes, roll up over modules.

fxmeter does the same for every op, figure and model. Three ops are enough for every matrix product of a decoder.

python examples/from_scratch.py
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import networkx as nx
import torch
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedConfig, Qwen2Config

aten = torch.ops.aten
TINY = Qwen2Config(
    vocab_size=1000,
    hidden_size=64,
    intermediate_size=160,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    tie_word_embeddings=False,
)

# 1. Record. A dispatch mode sees every op that the model really runs: no tracing, no guesses. Tensors on meta have
#    shapes, dtypes and strides but no data, so a decoder of any size runs in a second and takes no memory.


class Recorder(TorchDispatchMode):
    """While active, appends a node to ``graph`` for each op, with its tensors' shapes and the module that ran it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.graph, self.module = fx.Graph(), ""
        self.paths = {module: path for path, module in model.named_modules()}
        self.nodes: dict[int, fx.Node] = {}
        self.alive: list[Tensor] = []  # an id says which tensor only while that tensor lives

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        """Run the op, then write down that it ran."""
        kwargs = kwargs or {}
        out = op(*args, **kwargs)
        node = self.graph.call_function(op, *tree_map_only(Tensor, self.node_of, (args, kwargs)))
        node.meta.update(out=out, module=self.module)
        if isinstance(out, Tensor):
            self.nodes[id(out)] = node
            self.alive.append(out)
        return out

    def node_of(self, tensor: Tensor) -> fx.Node:
        """The node that made a tensor; a placeholder for a weight, an input or an entry of the cache."""
        if id(tensor) not in self.nodes:
            self.nodes[id(tensor)] = node = self.graph.placeholder(f"given_{len(self.nodes)}")
            node.meta.update(out=tensor, module="")
            self.alive.append(tensor)
        return self.nodes[id(tensor)]

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Record, and know at each op which module's code is running."""
        above: list[str] = []

        def enter(module: nn.Module, _: object) -> None:
            above.append(self.module)
            self.module = self.paths[module]

        def leave(*_: object) -> None:
            self.module = above.pop()

        hooks = [module.register_forward_pre_hook(enter) for module in self.paths]
        hooks += [module.register_forward_hook(leave) for module in self.paths]
        with self:
            yield
        for hook in hooks:
            hook.remove()


def record(config: PreTrainedConfig, query_len: int, past_len: int = 0, batch: int = 1) -> fx.Graph:
    """One pass over ``query_len`` tokens behind ``past_len`` cached ones, which the model itself puts in its cache."""
    with torch.device("meta"), torch.no_grad():
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
        cache = DynamicCache(config=config)
        if past_len:
            model(torch.zeros(batch, past_len, dtype=torch.long), past_key_values=cache)
        recorder = Recorder(model)
        with recorder.watching():
            model(torch.zeros(batch, query_len, dtype=torch.long), past_key_values=cache)
    return recorder.graph


# 2. Price. A rule reads the shapes of one op: 2 FLOPs for each multiply-accumulate. Nobody types a length into it, so
#    the one token of a decode step is simply there, in the shapes.

RULES = {
    aten.mm.default: lambda a, b: 2 * a[0] * a[1] * b[1],  # [M, K] @ [K, N]
    aten.addmm.default: lambda bias, a, b: 2 * a[0] * a[1] * b[1],  # bias + [M, K] @ [K, N]
    aten.bmm.default: lambda a, b: 2 * math.prod(a) * b[2],  # [B, M, K] @ [B, K, N]
}


def price(node: fx.Node) -> int:
    """The matmul FLOPs of one node."""
    rule = RULES.get(node.target)
    return 0 if rule is None else rule(*(operand.meta["out"].shape for operand in node.all_input_nodes))


# 3. Roll up. Modules contain modules and ops; sums run from the leaves to the root, each part once.


def roll_up(graph: fx.Graph) -> dict[str, int]:
    """Module path → matmul FLOPs of everything that runs inside; "" is the whole pass."""
    tree = nx.DiGraph()
    for node in graph.nodes:
        path = node.meta["module"]
        tree.add_edge(path, node)
        while path:
            parent = path.rpartition(".")[0]
            tree.add_edge(parent, path)
            path = parent
    total: dict[object, int] = {}
    for part in reversed(list(nx.topological_sort(tree))):
        total[part] = price(part) if isinstance(part, fx.Node) else sum(total[child] for child in tree[part])
    return {path: flops for path, flops in total.items() if isinstance(path, str) and flops}


def main() -> None:
    """Print the FLOPs of a decode step behind 100 tokens, module by module."""
    for path, flops in sorted(roll_up(record(TINY, query_len=1, past_len=100)).items()):
        print(f"{flops:>10,}  {path or '(the whole pass)'}")


if __name__ == "__main__":
    main()
