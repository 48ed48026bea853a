"""The published table of vector FLOPs: one per element for each elementary operation.

An elementary operation is an addition, a product, a comparison, or one function that hardware has an instruction or
a short fixed sequence for (exp, log, sin, tanh, rsqrt, ...). Composite functions cost their parts. Integer, boolean
and index arithmetic is not floating-point and costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fxmeter.annotators.rules.cost import Flops
from fxmeter.annotators.rules.registry import per_element, rule
from fxmeter.tracer.graph.spec import Spec
from fxmeter.tracer.private import OpOverload

aten = torch.ops.aten


def _overloads(names: str) -> list[OpOverload]:
    """The functional and in-place overloads of each named op that return or change a tensor."""
    overloads: list[OpOverload] = []
    for name in names.split():
        for variant in (name, f"{name}_"):
            packet = getattr(aten, variant, None)
            if packet is not None:
                wanted = [o for o in packet.overloads() if "out" not in o and not o.startswith(("int", "float", "str"))]
                overloads += [op for o in wanted if _is_tensor_op(op := getattr(packet, o))]
    return overloads


def _is_tensor_op(op: OpOverload) -> bool:
    schema = op._schema
    takes = any("Tensor" in str(argument.type) for argument in schema.arguments)
    return takes and len(schema.returns) == 1 and str(schema.returns[0].type) == "Tensor"


ELEMENTARY = (
    "add sub rsub mul div neg abs exp exp2 expm1 log log2 log10 log1p sin cos tan sinh cosh tanh asin acos atan atan2 "
    "sqrt rsqrt reciprocal pow square erf maximum minimum fmax fmin relu clamp_min clamp_max floor ceil round trunc "
    "frac sign sgn erfinv asinh acosh atanh erfc lgamma digamma polygamma i0 special_i1 "
    "deg2rad rad2deg ldexp nextafter special_entr special_i0e special_i1e special_erfcx special_log_ndtr special_ndtri "
    "special_airy_ai special_scaled_modified_bessel_k0 special_scaled_modified_bessel_k1 special_spherical_bessel_j0 "
    "special_bessel_j0 special_bessel_j1 special_bessel_y0 special_bessel_y1 special_modified_bessel_i0 "
    "special_modified_bessel_i1 special_modified_bessel_k0 special_modified_bessel_k1 special_zeta igamma igammac "
    "copysign heaviside angle remainder fmod floor_divide eq ne lt le gt ge isnan isinf isfinite nan_to_num threshold"
)
COMPOSITE = {
    "hardshrink": 2,  # two compares
    "softshrink": 2,
    "xlogy": 2,  # log, product
    "special_xlog1py": 2,
    "addr": 2,  # product, sum
    "sinc": 3,  # product with π, sin, quotient
    "logit": 3,  # 1−x, quotient, log
    "hypot": 4,  # two squares, sum, root
    "logaddexp": 6,  # max, difference, exp, +1, log, sum
    "logaddexp2": 6,
    "clamp": 2,  # max, min
    "hardtanh": 2,  # max, min
    "leaky_relu": 2,  # product, max
    "addcmul": 3,  # two products, sum
    "addcdiv": 3,  # quotient, product, sum
    "lerp": 3,  # difference, product, sum
    "softplus": 3,  # exp, +1, log
    "elu": 3,  # exp, -1, product
    "celu": 3,
    "sigmoid": 4,  # neg, exp, +1, reciprocal
    "hardsigmoid": 4,  # sum, max, min, quotient
    "silu": 5,  # sigmoid, product
    "hardswish": 5,  # hardsigmoid, product
    "mish": 5,  # softplus, tanh, product
}

per_element(dict.fromkeys(_overloads(ELEMENTARY), 1), fuses="pointwise")
for _name, _count in COMPOSITE.items():
    per_element(dict.fromkeys(_overloads(_name), _count), fuses="pointwise")


@rule(aten.gelu.default, aten.gelu_.default, fuses="pointwise")
def gelu(self: Spec, approximate: str, *, out: Spec) -> Flops:
    """5 per element (x/√2, erf, +1, x·, ½·); with tanh 9 (x², x³, ·0.0447, +x, ·√(2/π), tanh, +1, x·, ½·)"""
    return Flops(vector=(9 if approximate == "tanh" else 5) * out.numel)


@rule(aten.log_sigmoid_forward.default, fuses="pointwise")
def log_sigmoid_forward(self: Spec, *, out: Sequence[Spec]) -> Flops:
    """4 per element (exp, +1, log, difference)"""
    return Flops(vector=4 * self.numel)


@rule(aten.glu.default, fuses="pointwise")
def glu(self: Spec, *, out: Spec) -> Flops:
    """5 per element of out: sigmoid of one half, product with the other"""
    return Flops(vector=5 * out.numel)


@rule(aten.rrelu_with_noise.default, fuses="pointwise")
def rrelu_with_noise(self: Spec) -> Flops:
    """2 per element: compare, product"""
    return Flops(vector=2 * self.numel)


@rule(aten.mvlgamma.default, aten.mvlgamma_.default, fuses="pointwise")
def mvlgamma(p: int, *, out: Spec) -> Flops:
    """3·p + 1 per element: p offsets, as many log-gammas, their sum, and a constant"""
    return Flops(vector=(3 * p + 1) * out.numel)


@rule(aten.frexp.Tensor, fuses="pointwise")
def frexp(self: Spec) -> Flops:
    """1 per element, as the product with a power of two that it undoes"""
    return Flops(vector=self.numel)


FAKE_QUANTIZE = 7  # quotient, round, + zero point, max, min, − zero point, product


@rule(
    aten.fake_quantize_per_tensor_affine_cachemask.default,
    aten._fake_quantize_per_tensor_affine_cachemask_tensor_qparams.default,
    aten.fake_quantize_per_channel_affine_cachemask.default,
    aten._fake_quantize_learnable_per_tensor_affine.default,
    aten._fake_quantize_learnable_per_channel_affine.default,
    fuses="pointwise",
)
def fake_quantize(self: Spec) -> Flops:
    """7 per element: quotient by the scale, round, + zero point, max, min, − zero point, product with the scale"""
    return Flops(vector=FAKE_QUANTIZE * self.numel)


@rule(
    aten._fake_quantize_learnable_per_tensor_affine_backward.default,
    aten._fake_quantize_learnable_per_channel_affine_backward.default,
)
def fake_quantize_backward(self: Spec) -> Flops:
    """16 per element: 4 to where it falls, two compares, a product; difference, 2 products and a sum for the scale, and
    its and the zero point's sums with gradient and factor: 5"""
    return Flops(vector=16 * self.numel)


@rule(aten._fused_moving_avg_obs_fq_helper.default)
def observe_and_fake_quantize(self: Spec) -> Flops:
    """9 per element: smallest, largest, and as a fake quantisation; the averages are a handful of numbers"""
    return Flops(vector=(2 + FAKE_QUANTIZE) * self.numel)


@rule(aten.polar.default, fuses="pointwise")
def polar(abs: Spec, angle: Spec, *, out: Spec) -> Flops:
    """4 per element: cos, sin, and each times the radius"""
    return Flops(vector=4 * out.numel)
