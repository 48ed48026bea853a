"""Every figure once: what it is called, its unit, how it adds up, what it is derived from.

A line of :class:`Figures` is what a new figure takes, and whoever computes it. The cost record is made of these lines;
JSON, SQL, CSV, console, plots, formulas, closed forms and comparisons read the table of them
(:data:`fxmeter.models.stage_cost.FIGURES`).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from operator import attrgetter
from typing import Annotated, Literal, get_type_hints

from fxmeter.models.sizes import Size

GIB = 2**30
TERA = 10**12

Unit = Literal["flop", "byte", "memory", "ratio", "TFLOP", "TB", "GiB"]
"""flop, byte (moved) and memory (bytes that something takes up) are whole numbers, the others quotients."""

_SHOWN = ("flop", "byte", "ratio", "memory")
"""Units that tables show, in their order; the others say in another unit what one of these says."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A row of the table.

    Attributes:
        label: what people read.
        unit: see :data:`Unit`.
        over_parts: of parts that run one after another, their sum or the largest.
        over_steps: of the steps of a generation, their sum, the largest, or what the last one leaves.
        under: the figure that tables show it below.
        share_of: the figure that tables show it as a share of.
        hidden_at_zero: tables leave the row out where nothing has any.
        if_other: tables leave it out where it is the same as the figure it is under.
        means: what it is, in a sentence.
        name: of the attribute that has it, and its key in JSON, SQL and CSV; a unit is part of it.
        sources: names of the figures that it is derived from; () for one that is counted.
    """

    label: str
    unit: Unit
    _: KW_ONLY
    over_parts: Literal["sum", "max"] = "sum"
    over_steps: Literal["sum", "max", "last"] = "sum"
    under: str | None = None
    share_of: str | None = None
    hidden_at_zero: bool = False
    if_other: bool = False
    means: str = ""
    name: str = ""
    sources: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether its exact values are whole numbers."""
        return self.unit in ("flop", "byte", "memory")


class Derived(property):
    """A figure computed from others of the same record."""

    figure: Figure


def derived(
    label: str,
    unit: Unit,
    sources: tuple[str, ...],
    function: Callable[..., Size] = lambda *parts: sum(parts),
    *,
    means: str = "",
) -> Derived:
    """A figure that ``function`` makes of its ``sources``: of whole numbers, arrays or expressions alike."""
    made = Derived(lambda record: function(*(getattr(record, name) for name in sources)))
    made.figure = Figure(label, unit, sources=sources, means=means)
    return made


def rescaled(source: str, unit: Unit, divisor: int) -> Derived:
    """A figure in a larger unit."""
    return derived(
        f"{source} in {unit}", unit, (source,), lambda value: value / divisor, means=f"`{source}` in {unit}."
    )


def _per_byte(flops: Size, nbytes: Size) -> Size:
    return 0.0 if isinstance(nbytes, int) and nbytes == 0 else flops / nbytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What an op, a module or a whole pass costs."""

    matmul_flops: Annotated[
        Size,
        Figure(
            "matmul FLOPs",
            "flop",
            means="Matrix products, convolutions and attention cores, 2 per multiply-accumulate.",
        ),
    ] = 0
    vector_flops: Annotated[
        Size,
        Figure(
            "vector FLOPs",
            "flop",
            means="All other floating-point arithmetic, by the table that `fxmeter ops` prints.",
        ),
    ] = 0
    weight_read_bytes: Annotated[
        Size,
        Figure(
            "weights read",
            "byte",
            means="Parameters and buffers read: rows of an embedding, at most its table; of routed experts the "
            "expected number of distinct ones.",
        ),
    ] = 0
    kv_read_bytes: Annotated[Size, Figure("KV read", "byte", means="Cache entries that attention reads.")] = 0
    kv_write_bytes: Annotated[
        Size, Figure("KV written", "byte", means="New cache entries written; an append writes those alone.")
    ] = 0
    activation_read_bytes: Annotated[
        Size,
        Figure(
            "activations read",
            "byte",
            means="Every other tensor read, inputs of the pass included. A view moves nothing; a broadcast operand is "
            "read once.",
        ),
    ] = 0
    activation_write_bytes: Annotated[
        Size,
        Figure(
            "activations written", "byte", means="Every other tensor written; an op in place writes what it changes."
        ),
    ] = 0
    network_bytes: Annotated[
        Size,
        Figure(
            "sent to others",
            "byte",
            hidden_at_zero=True,
            means="What this rank sends to other ranks in collectives; nothing on one device.",
        ),
    ] = 0
    fused_io_bytes: Annotated[
        Size,
        Figure(
            "I/O if fused",
            "byte",
            share_of="io_bytes",
            means="What is left of I/O once pointwise and reduction chains run as one kernel each, as a compiler makes "
            "them.",
        ),
    ] = 0
    activation_bytes: Annotated[
        Size,
        Figure(
            "activations made",
            "memory",
            over_steps="max",
            means="Total size of the tensors that the pass makes: new storage that is neither weight nor cache.",
        ),
    ] = 0
    """Of steps the largest: most often that is the last one's, but a model may do its heavy work in every n-th, as one
    does that compresses its cache in blocks."""
    peak_activation_bytes: Annotated[
        Size,
        Figure(
            "peak alive",
            "memory",
            over_parts="max",
            over_steps="max",
            under="activation_bytes",
            means="The most of the activations alive at one moment, as eager execution lets go of tensors; of a part: "
            "while it runs.",
        ),
    ] = 0
    ideal_peak_activation_bytes: Annotated[
        Size,
        Figure(
            "ideal peak",
            "memory",
            over_parts="max",
            over_steps="max",
            under="activation_bytes",
            means="The same if every tensor were freed right after its last use, as a planner does.",
        ),
    ] = 0
    kv_bytes: Annotated[
        Size,
        Figure(
            "KV cache after",
            "memory",
            over_steps="last",
            means="Cache and recurrent state resident after the pass: what an engine keeps of it, of a window its "
            "tokens.",
        ),
    ] = 0
    kv_storage_bytes: Annotated[
        Size,
        Figure(
            "KV storage held",
            "memory",
            over_steps="last",
            under="kv_bytes",
            if_other=True,
            means="The allocations behind the cache until the next pass, as transformers runs: its windows are slices "
            "that keep the whole prompt's keys and values.",
        ),
    ] = 0
    weight_bytes: Annotated[
        Size, Figure("weights resident", "memory", over_steps="last", means="Parameters resident, tied ones once.")
    ] = 0

    flops = derived(
        "FLOPs", "flop", ("matmul_flops", "vector_flops"), means="All floating-point operations, matmul and vector."
    )
    io_bytes = derived(
        "I/O",
        "byte",
        ("weight_read_bytes", "kv_read_bytes", "kv_write_bytes", "activation_read_bytes", "activation_write_bytes"),
        means="All bytes moved, op by op, as PyTorch eager executes the graph. Caches of the hardware are not counted.",
    )
    flops_tflops = rescaled("flops", "TFLOP", TERA)
    io_tb = rescaled("io_bytes", "TB", TERA)
    activations_gib = rescaled("activation_bytes", "GiB", GIB)
    peak_activations_gib = rescaled("peak_activation_bytes", "GiB", GIB)
    kv_gib = rescaled("kv_bytes", "GiB", GIB)
    weights_gib = rescaled("weight_bytes", "GiB", GIB)
    arithmetic_intensity = derived(
        "FLOP per byte",
        "ratio",
        ("flops", "io_bytes"),
        _per_byte,
        means="FLOPs divided by I/O: the arithmetic intensity. 0 for a part that moves nothing.",
    )

    activations_gb = property(attrgetter("activations_gib"))
    """The four in GiB under the names of the original system; documents say ``_gib``."""
    peak_activations_gb = property(attrgetter("peak_activations_gib"))
    kv_gb = property(attrgetter("kv_gib"))
    weights_gb = property(attrgetter("weights_gib"))


@dataclass(frozen=True, slots=True, kw_only=True)
class PassFigures:
    """What only a pass as a whole has: no sum over its parts."""

    floor_io_bytes: Annotated[
        Size,
        Figure(
            "I/O floor",
            "byte",
            share_of="io_bytes",
            means="The least traffic of any implementation: weights, cache, inputs and outputs once.",
        ),
    ] = 0


def table_of(record: type) -> dict[str, Figure]:
    """Name → row of the figures that a record has: those counted, then those derived, each in their order."""
    hints = get_type_hints(record, include_extras=True)
    rows = {name: replace(hint.__metadata__[0], name=name) for name, hint in hints.items()}
    made = [(name, value) for kind in reversed(record.__mro__) for name, value in vars(kind).items()]
    rows |= {name: replace(value.figure, name=name) for name, value in made if isinstance(value, Derived)}
    wholes = {source: row.name for row in rows.values() if row.whole for source in row.sources}
    return {name: replace(row, under=row.under or wholes.get(name)) for name, row in rows.items()}


def shown(*tables: Mapping[str, Figure]) -> tuple[Figure, ...]:
    """The rows that people are shown, by unit, a whole above its parts."""
    rows = [row for table in tables for row in table.values() if row.unit in _SHOWN]
    first = {row.name: place for place, row in enumerate(rows)}
    for row in rows:
        if row.under is not None:
            first[row.under] = min(first[row.under], first[row.name])
    tops = sorted((r for r in rows if r.under is None), key=lambda row: (_SHOWN.index(row.unit), first[row.name]))
    return tuple(row for top in tops for row in (top, *(part for part in rows if part.under == top.name)))


def counted_behind(table: Mapping[str, Figure], names: Iterable[str]) -> list[str]:
    """The counted figures that some figures, derived ones among them, are made of, in the order of the table."""
    wanted, todo = set(), list(names)
    while todo:
        name = todo.pop()
        wanted.add(name)
        todo += table[name].sources
    return [name for name in table if name in wanted and not table[name].sources]
