"""What one prefill and one decode step of a preset cost, from Python.

python examples/annotate_preset.py [PRESET]
"""

import sys

from fxmeter import annotate, decode, load_model, prefill


def main(name: str = "deepseek-ocr") -> None:
    """Print a few figures for each stage, eager and flash, and where the flash decode step spends its bytes."""
    model = load_model(name, dtype="bfloat16")
    for scenario in (prefill(4096), decode(4096, batch=8)):
        for attention in ("eager", "flash"):
            cost = annotate(model, scenario, attention=attention).cost
            print(
                f"{scenario.stage:8} {attention:6} {cost.flops_tflops:10.6f} TFLOP  {cost.io_tb:.6f} TB moved  "
                f"{cost.arithmetic_intensity:6.1f} FLOP/B  {cost.activations_gb:8.4f} GiB made  {cost.kv_gb:.3f} GiB KV"
            )
    stage = annotate(model, decode(4096, batch=8))
    for path, module in stage.modules.items():
        share = module.times * module.cost.io_bytes / stage.cost.io_bytes
        if share > 0.05:
            print(f"{share:6.1%}  {module.times:3} x {path or '(all)'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
