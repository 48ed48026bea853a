"""Every word of a report's header and tables, explained once: ``fxmeter explain`` and docs/terms.md print it.

Figures explain themselves (:mod:`fxmeter.models.figures`); what else is printed is a line below.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fxmeter.models.errors import FxmeterError
from fxmeter.models.figures import Figure
from fxmeter.models.names import near
from fxmeter.models.stage_cost import ALL_FIGURES, PASS_FIGURES

Group = Literal["Figures", "Passes and sizes", "Header", "Tables", "Time", "Measured", "Capacity"]

_UNITS = {
    "flop": "floating-point operations",
    "byte": "bytes moved, shown in 10^9 (GB)",
    "memory": "bytes taken up, shown in 2^30 (GiB)",
    "ratio": "a quotient",
    "TFLOP": "10^12 FLOP",
    "TB": "10^12 bytes",
    "GiB": "2^30 bytes",
}
_OVER = {"sum": "the sum", "max": "the largest", "last": "what the last one leaves"}


@dataclass(frozen=True, slots=True)
class Term:
    """A word of a report.

    Attributes:
        name: as it is printed.
        group: what it is a word of.
        means: in a sentence or two.
        also: other names: of the attribute that has it, of the option that sets it.
    """

    name: str
    group: Group
    means: str
    also: tuple[str, ...] = ()


def of_figure(figure: Figure) -> Term:
    """A row of the table of figures as a term: what it is, its unit, how it adds up, what it is made of."""
    parts = [figure.means, f"Unit: {_UNITS[figure.unit]}."]
    if figure.sources:
        parts.append(f"Derived from {', '.join(ALL_FIGURES[name].label for name in figure.sources)}.")
    elif figure.name in PASS_FIGURES:
        parts.append("Of a whole pass alone; of the steps of a generation the sum.")
    else:
        parts.append(f"Of parts {_OVER[figure.over_parts]}, of the steps of a generation {_OVER[figure.over_steps]}.")
    return Term(figure.label, "Figures", " ".join(parts), (figure.name,))


TERMS: tuple[Term, ...] = (
    *(of_figure(figure) for figure in ALL_FIGURES.values()),
    Term(
        "prefill",
        "Passes and sizes",
        "A pass over S tokens of a prompt, behind C that the cache already has.",
        ("TTFT",),
    ),
    Term(
        "decode", "Passes and sizes", "A pass over one new token (S with drafted ones) behind C cached ones.", ("TPOT",)
    ),
    Term("encode", "Passes and sizes", "A pass of the encoder over S positions; it has no causal mask and no cache."),
    Term(
        "vision",
        "Passes and sizes",
        "A pass of the vision tower over a page, in as many crops as it is cut into.",
        ("crops",),
    ),
    Term("mixed", "Passes and sizes", "One pass of sequences that decode and of a chunk of a prompt, as engines run."),
    Term(
        "end to end", "Passes and sizes", "A whole request: vision where there is one, prefill, and every decode step."
    ),
    Term(
        "decode per token",
        "Passes and sizes",
        "The mean of K steps: a K-th of what adds up over them, and memory as it is.",
    ),
    Term("S", "Passes and sizes", "Tokens of each sequence that the pass computes.", ("query_len", "S_q")),
    Term("C", "Passes and sizes", "Tokens that the cache has before the pass: the context.", ("past_len",)),
    Term("B", "Passes and sizes", "Sequences in the pass.", ("batch",)),
    Term("K", "Passes and sizes", "Steps of a generation.", ("steps",)),
    Term("E", "Passes and sizes", "Positions of the encoder's output, which cross-attention reads.", ("encoder_len",)),
    Term(
        "eager",
        "Header",
        "The model's own attention code, with its score and probability buffers, its mask and its copies of K and V.",
    ),
    Term(
        "flash", "Header", "One fused attention core for each layer: nothing that it computes inside is materialised."
    ),
    Term("attention", "Header", "eager or flash: which attention code runs.", ("--attention",)),
    Term(
        "parameters",
        "Header",
        "Elements of the weights, tied ones once. Active are those that decoding one token reads: of routed "
        "experts the chosen ones; the output head, but no table of embeddings that is not the head too.",
        ("active", "active_parameters"),
    ),
    Term("layers", "Header", "Blocks of the decoder, and of the encoder where there is one."),
    Term("2 FLOP/MAC", "Header", "A multiply-accumulate counts as two floating-point operations.", ("FLOP", "MAC")),
    Term(
        "causal",
        "Header",
        "Pairs of a query and a key that are counted. full: every pair; exact: of a fused core those that its mask "
        "lets through, windows included. Eager attention computes every pair whatever its mask says.",
        ("--causal",),
    ),
    Term(
        "logits",
        "Header",
        "Positions whose logits are computed. all: what `forward` computes; last: what `generate` needs; none: as in "
        "a chunk of a prompt that is not the last.",
        ("--logits",),
    ),
    Term(
        "routing",
        "Header",
        "Routed experts whose weights are read by T tokens that choose k of E. uniform: the distinct ones expected, "
        "E·(1−(1−k/E)^T); worst: min(E, kT). FLOPs do not depend on it.",
        ("--routing",),
    ),
    Term("experts", "Header", "The implementation of the experts that transformers runs; grouped_mm is its usual one."),
    Term(
        "cache",
        "Header",
        "How the cache grows. in place: an append writes the new entries only. A storage format or pages that it has "
        "are named behind it.",
        ("--kv", "--page-size"),
    ),
    Term(
        "kernels",
        "Header",
        "transformers: what transformers executes. serving: what an engine runs instead: latent attention absorbed "
        "in decode, the chosen experts only, logits of the last position, the pairs of a causal mask.",
        ("--kernels",),
    ),
    Term("tp", "Header", "Ranks that share each layer's weights: tensor parallelism.", ("--tp",)),
    Term("ep", "Header", "Ranks that share the routed experts: expert parallelism.", ("--ep",)),
    Term("dp", "Header", "Groups of ranks that attend to sequences of their own: data parallelism.", ("--dp",)),
    Term("pp", "Header", "Runs of layers, each on devices of its own: pipeline parallelism.", ("--pp",)),
    Term(
        "assumed",
        "Header",
        "What the recording took for granted of data that nobody has, such as the value of an index.",
    ),
    Term("left out", "Header", "Parts of the checkpoint that no figure has."),
    Term("not priced", "Header", "Work that an engine adds for a storage format, and that no figure has."),
    Term("op", "Tables", "An operation that PyTorch dispatches, by its name: `fxmeter ops` has the equation of each."),
    Term("activations", "Tables", "The activations made by the modules of the line: see activations made."),
    Term("bytes", "Tables", "All that the op moves; of what is alive at the peak, what it takes up."),
    Term("after", "Tables", "The pass after which the cache is as the line says."),
    Term("tensors", "Tables", "Shapes of what a layer keeps, and their names."),
    Term("one layer", "Tables", "What one of the layers keeps."),
    Term("all", "Tables", "What all layers of the line keep together."),
    Term("made in", "Tables", "The module whose code made the tensors."),
    Term("by", "Tables", "The op that made the tensors."),
    Term("shape", "Tables", "Of one of the tensors."),
    Term("dtype", "Tables", "Of weights, cache and activations, or of a tensor.", ("--dtype",)),
    Term("share", "Tables", "Of the whole stage's, as a bar and a percentage."),
    Term("×", "Tables", "How often: executions of an op, identical layers folded into one line.", ("times", "count")),
    Term(
        "module (n×: all n)",
        "Tables",
        "A module and what runs in it. Layers that cannot be told apart are one line, 'layers.1-26 (26×)', with the "
        "sum of them all.",
        ("folded", "module"),
    ),
    Term("in", "Tables", "The module that executes the op, positions in lists left out; +n others do so too."),
    Term("shapes", "Tables", "Of the tensors that the op reads."),
    Term(
        "each keeps", "Tables", "What a layer keeps in the cache: every token, a window of them, or a recurrent state."
    ),
    Term("of the I/O", "Tables", "As a share of the I/O."),
    Term("stage", "Time", "The pass, and the attention that runs in it."),
    Term("time", "Time", "The estimate of the kernels of the line."),
    Term("kernel, by its first op", "Time", "Ops that run as one kernel, named by the first of them.", ("kernel",)),
    Term("tokens", "Time", "Of the prompt, or of the context of a decode step."),
    Term("tokens/s each", "Time", "Tokens of one sequence in a second of the estimate."),
    Term("tokens/s in all", "Time", "Tokens of all sequences in a second of the estimate."),
    Term("from batch", "Time", "The smallest batch at which a decode step is bound by compute."),
    Term("from context", "Time", "The context from which a decode step reads as much cache as weights."),
    Term("in another's kernel", "Time", "The module's ops run inside a fused kernel that begins in another module."),
    Term(
        "bound",
        "Time",
        "Nothing runs faster: of each kernel the largest of FLOPs, bytes and network traffic over the device's peaks.",
        ("bound_s",),
    ),
    Term(
        "estimate",
        "Time",
        "What to expect: the same roofs at efficiencies that kernels reach, joined by the 2-norm, plus a launch "
        "each. ~ marks one that was not held to measurements.",
        ("estimate_s", "extrapolated", "~"),
    ),
    Term("of it launches", "Time", "What of the estimate is launches and the host.", ("launch_s", "launch")),
    Term(
        "bound by",
        "Time",
        "What most of the estimate is limited by: compute, vector, memory, network or launch.",
        ("bound_by", "compute", "vector", "memory", "network"),
    ),
    Term("tokens/s", "Time", "Tokens of all sequences in a second of the estimate.", ("tokens_per_s",)),
    Term("FLOP per byte if fused", "Time", "FLOPs over the bytes that move when chains of ops run as one kernel."),
    Term("ridge", "Time", "FLOP per byte at which the device turns from memory-bound to compute-bound."),
    Term(
        "device",
        "Time",
        "An accelerator by name: `fxmeter devices NAME` has each number with its source.",
        ("--device",),
    ),
    Term("efficiency from", "Time", "The measurements that the estimate's efficiencies were fitted to."),
    Term(
        "context", "Capacity", "Tokens of a sequence that the cache has; of a model the most positions it is made for."
    ),
    Term("input shape", "Capacity", "Tokens of the prompt and sequences of the batch."),
    Term("request", "Capacity", "The prompt of a request, and its output where there is one."),
    Term("of it bound", "Capacity", "The bound of the time before it."),
    Term("memory capacity", "Capacity", "What of the device's memory a model may fill.", ("--memory",)),
    Term("largest batch", "Capacity", "Sequences whose weights, cache and peak fit together."),
    Term("longest context", "Capacity", "The context of one sequence that fits."),
    Term("decode tokens/s", "Capacity", "Tokens that all sequences of the batch are given in a second."),
    Term("requests/s", "Capacity", "Requests that a device finishes in a second, their prompts included."),
    Term("J a token", "Capacity", "Energy as if the device drew its full power all the time."),
    Term("after prefill", "Capacity", "The cache when the prompt is read."),
    Term("after decode", "Capacity", "The cache when the output is written."),
    Term("per sequence", "Capacity", "The cache of one sequence."),
    Term("weights", "Capacity", "Weights resident, in their storage format.", ("--weights",)),
    Term("+ KV", "Capacity", "The cache after the last step."),
    Term("+ peak activations", "Capacity", "The peak alive of the stage that has the larger one."),
    Term("of", "Capacity", "The stage that has the larger peak."),
    Term("= total", "Capacity", "Weights, cache and peak together: what has to fit."),
    Term(
        "measured", "Measured", "Time in a profiler's trace: of ops on the CPU, or of the kernels of a device.", ("ns",)
    ),
    Term(
        "matched",
        "Measured",
        "Of the time measured, that of ops that the recording has too, in the same module.",
        ("matched_share",),
    ),
    Term("TFLOP/s", "Measured", "FLOPs of the ops that ran, over the time measured.", ("flops_per_s",)),
    Term("TB/s", "Measured", "I/O of the ops that ran, over the time measured.", ("bytes_per_s",)),
    Term("measured / estimate", "Measured", "How many times the estimate it took."),
    Term("of the roof", "Measured", "The bound over the time measured: 100% is as fast as the device can be."),
    Term(
        "MFU",
        "Measured",
        "Model FLOPs utilisation: the time of the matrix products at the device's peak, over that of the pass, "
        "measured from begin to end or estimated.",
        ("mfu", "predicted_mfu"),
    ),
)
"""In the order of docs/terms.md."""


def term(name: str) -> Term:
    """The term of this name, whatever its case; a figure's label, or the name of its attribute.

    Raises FxmeterError, with the nearest names, for one that there is not.
    """
    known = {each: term for term in TERMS for each in (term.name, *term.also)}
    if name in known:  # C and c, S and s: as written first
        return known[name]
    lower = {each.lower(): each for each in known}
    if name.lower() not in lower:
        raise FxmeterError(f"no term {name!r}; {near(name, known)}`fxmeter explain` lists them all")
    return known[lower[name.lower()]]
