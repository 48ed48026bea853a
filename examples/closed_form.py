"""A closed form: one stage's cost for every batch, query length and context, exact, evaluated in microseconds.

python examples/closed_form.py [PRESET]
"""

import sys

import numpy as np

from fxmeter import annotate, closed_form, decode, load_model


def main(name: str = "llama-3.1-8b") -> None:
    """Print a formula, check one point, find where the cache outweighs the weights, and sum a thousand steps."""
    model = load_model(name)
    form = closed_form(model, stage="decode", attention="flash")
    print(f"matmul FLOPs of a step: {form.expressions['matmul_flops'].factor()}")

    recorded = annotate(model, decode(4096, batch=8)).cost
    print(f"at B=8, C=4096 it equals a recording in every field: {form.at(batch=8, past_len=4096) == recorded}")

    contexts = np.arange(0, 131_072, 256)
    for batch in (1, 8, 64):
        costs = form.evaluate(batch=batch, past_len=contexts, fields=("kv_read_bytes", "weight_read_bytes"))
        heavier = contexts[costs["kv_read_bytes"] > costs["weight_read_bytes"]]
        where = f"from about {heavier[0]:,} tokens on" if len(heavier) else "at none of these contexts"
        print(f"batch {batch:2}: a step reads more cache than weights {where}")

    attention = form.modules["model.layers.0.self_attn"].at(past_len=4096)
    print(f"one layer's attention reads {attention.kv_read_bytes:,} bytes of cache for one token")
    print(f"a thousand steps behind 4,096 tokens: {form.generation(past_len=4096, steps=1000).flops:,} FLOPs")


if __name__ == "__main__":
    main(*sys.argv[1:])
