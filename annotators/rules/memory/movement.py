"""Ops that do no arithmetic: views, copies and creation, with the bytes that they do move."""

from __future__ import annotations

import torch

from fxmeter.annotators.rules.cost import Moves
from fxmeter.annotators.rules.registry import free
from fxmeter.tracer.graph.spec import Spec
from fxmeter.tracer.operators.ops import cache_append
from fxmeter.tracer.private import OpOverload

aten = torch.ops.aten

VIEW = "a view"
COPY = "a copy: no arithmetic"
FILL = "writes constants"
SELECT = "a selection: no arithmetic"
LOGIC = "boolean"
INTEGER = "integer arithmetic"


def _named(names: str, reason: str, *, in_place: bool = True) -> dict[OpOverload, str]:
    """Every functional overload of the named ops, and those in place, with the reason why they are free."""
    reasons: dict[OpOverload, str] = {}
    for name in names.split():
        for variant in (name, f"{name}_") if in_place else (name,):
            packet = getattr(aten, variant, None)
            for overload in [] if packet is None else packet.overloads():
                op = getattr(packet, overload)
                if "out" not in overload and any("Tensor" in str(r.type) for r in op._schema.returns):
                    reasons[op] = reason
    return reasons


free(
    _named(
        "view reshape _unsafe_view _reshape_alias expand expand_as permute transpose t unsqueeze squeeze slice select "
        "split split_with_sizes chunk unbind narrow as_strided unfold diagonal detach alias view_as_complex "
        "view_as_real _conj _neg_view real imag movedim swapaxes unsafe_split unsafe_chunk unsafe_split_with_sizes "
        "view_as _view_dtype set_ lift_fresh numpy_T mT flatten unflatten resolve_conj _lazy_clone",
        VIEW,
    ),
    fuses="pointwise",  # where one of them has to copy
)
free(
    _named(
        "clone _to_copy cat stack repeat constant_pad_nd roll flip contiguous lift tril triu repeat_interleave "
        "diag_embed im2col pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle reflection_pad1d "
        "alias_copy as_strided_copy conj_physical detach_copy diagonal_copy expand_copy lift_fresh_copy narrow_copy "
        "permute_copy rot90 select_copy slice_copy split_copy split_with_sizes_copy squeeze_copy t_copy transpose_copy "
        "unbind_copy unfold_copy unsqueeze_copy view_copy _conj_copy _conj_physical _neg_view_copy "
        "_reshape_copy _reshape_alias_copy _stack _chunk_cat _pin_memory "
        "block_diag reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d complex",
        COPY,
    ),
    fuses="pointwise",
)
free(_named("slice_scatter select_scatter diagonal_scatter as_strided_scatter", COPY), fuses="scatter")
free(_named("where masked_fill", SELECT), fuses="pointwise")
free(_named("masked_scatter", SELECT), fuses="scatter")
free(_named("masked_select", SELECT))
free(_named("_pack_padded_sequence", COPY))


MARKS = "marks a region for a profiler"
free(
    {
        torch.ops.profiler._record_function_enter.default: MARKS,
        torch.ops.profiler._record_function_enter_new.default: MARKS,
        torch.ops.profiler._record_function_exit.default: MARKS,
        torch.ops.profiler._record_function_exit._RecordFunction: MARKS,
    }
)


def _fills(out: Spec) -> Moves:
    return Moves(read={"self": 0})


free(
    _named(
        "arange tril_indices triu_indices zeros ones full scalar_tensor zeros_like ones_like full_like new_zeros "
        "new_ones new_full eye linspace logspace hann_window range fft_fftfreq fft_rfftfreq",
        FILL,
    ),
    fuses="pointwise",
    moves=_fills,
)
free(
    _named(
        "logical_and logical_or logical_not logical_xor bitwise_and bitwise_or bitwise_xor bitwise_not isin signbit "
        "isneginf isposinf",
        LOGIC,
    ),
    fuses="pointwise",
)
free(_named("bitwise_left_shift bitwise_right_shift __lshift__ __rshift__ gcd lcm", INTEGER), fuses="pointwise")
free({aten.__ilshift__.Tensor: INTEGER, aten.__ilshift__.Scalar: INTEGER}, fuses="pointwise")
free({aten.__irshift__.Tensor: INTEGER, aten.__irshift__.Scalar: INTEGER}, fuses="pointwise")
free(_named("searchsorted bucketize", INTEGER))


free(
    _named(
        "rand randn rand_like randn_like randint randint_like randperm bernoulli normal poisson multinomial uniform "
        "exponential cauchy geometric log_normal normal_functional binomial _standard_gamma _sample_dirichlet",
        "draws random numbers",
        in_place=False,
    ),
    fuses="pointwise",
    moves=_fills,
)


free(_named("fill zero", FILL, in_place=False), fuses="pointwise", moves=_fills)
free(_named("copy", COPY, in_place=False), fuses="pointwise", moves=_fills)


def _allocates(out: Spec) -> Moves:
    return Moves(read={"self": 0}, written={"out": 0})


free(
    _named(
        "empty empty_like empty_strided empty_permuted new_empty new_empty_strided _efficientzerotensor "
        "resize_ resize_as_ _resize_output_",
        "allocates, writes nothing",
    ),
    fuses="pointwise",
    moves=_allocates,
)


def _moves_nothing() -> Moves:
    return Moves(read={"self": 0, "other": 0})


free(
    dict.fromkeys(
        (
            aten.is_same_size.default,
            aten.is_pinned.default,
            aten._has_same_storage_numel.default,
            aten._assert_async.default,
            aten._assert_async.msg,
        ),
        "the host's own: makes no tensor",
    ),
    moves=_moves_nothing,
)


def _overwrites(self: Spec) -> Moves:
    return Moves(read={"self": 0})


free(
    _named(
        "copy_ zero_ fill_ normal_ uniform_ bernoulli_ random_ exponential_ cauchy_ geometric_ log_normal_",
        "overwrites its target",
    ),
    fuses="pointwise",
    moves=_overwrites,
)


def _new_entries(cache: Spec | None, entries: Spec, *, out: Spec) -> Moves:
    return Moves(read={"cache": 0}, written={"out": out.bytes_of(entries.numel)})


free({cache_append: "an append: reads and writes the new entries only"}, fuses="scatter", moves=_new_entries)
