"""Every word of a report's header and tables, explained once: ``fxmeter explain`` and docs/terms.md print it.

Figures explain themselves (:mod:`fxmeter.models.figures`); what else is printed is a line below.
"""

from __future__ import annotations

from collections.abc import Iterator
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


def _words(group: Group, *rows: tuple[str, ...]) -> Iterator[Term]:
    """Terms of one group: of each row the name, what it means, and its other names."""
    return (Term(name, group, means, tuple(also)) for name, means, *also in rows)


TERMS: tuple[Term, ...] = (
    *(of_figure(figure) for figure in ALL_FIGURES.values()),
    *_words(
        "Passes and sizes",
        ("prefill", "A pass over S tokens of a prompt, behind C that the cache already has.", "TTFT"),
        ("decode", "A pass over one new token (S with drafted ones) behind C cached ones.", "TPOT"),
        ("encode", "A pass of the encoder over S positions; it has no causal mask and no cache."),
        ("vision", "A pass of the vision tower over a page, in as many crops as it is cut into.", "crops"),
        ("mixed", "One pass of sequences that decode and of a chunk of a prompt, as engines run."),
        ("end to end", "A whole request: vision where there is one, prefill, and every decode step."),
        ("decode per token", "The mean of K steps: a K-th of what adds up over them, and memory as it is."),
        ("S", "Tokens of each sequence that the pass computes.", "query_len", "S_q"),
        ("C", "Tokens that the cache has before the pass: the context.", "past_len"),
        ("B", "Sequences in the pass.", "batch"),
        ("K", "Steps of a generation.", "steps"),
        ("E", "Positions of the encoder's output, which cross-attention reads.", "encoder_len"),
    ),
    *_words(
        "Header",
        (
            "eager",
            "The model's own attention code, with its score and probability buffers, its mask and its copies of K and "
            "V.",
        ),
        ("flash", "One fused attention core for each layer: nothing that it computes inside is materialised."),
        ("attention", "eager or flash: which attention code runs.", "--attention"),
        (
            "parameters",
            "Elements of the weights, tied ones once. Active are those that decoding one token reads: of routed "
            "experts the chosen ones; the output head, but no table of embeddings that is not the head too.",
            "active",
            "active_parameters",
        ),
        ("layers", "Blocks of the decoder, and of the encoder where there is one."),
        ("2 FLOP/MAC", "A multiply-accumulate counts as two floating-point operations.", "FLOP", "MAC"),
        (
            "causal",
            "Pairs of a query and a key that are counted. full: every pair; exact: of a fused core those that its "
            "mask lets through, windows included. Eager attention computes every pair whatever its mask says.",
            "--causal",
        ),
        (
            "logits",
            "Positions whose logits are computed. all: what `forward` computes; last: what `generate` needs; none: as "
            "in a chunk of a prompt that is not the last.",
            "--logits",
        ),
        (
            "routing",
            "Routed experts whose weights are read by T tokens that choose k of E. uniform: the distinct ones "
            "expected, E·(1−(1−k/E)^T); worst: min(E, kT). FLOPs do not depend on it.",
            "--routing",
        ),
        ("experts", "The implementation of the experts that transformers runs; grouped_mm is its usual one."),
        (
            "cache",
            "How the cache grows. in place: an append writes the new entries only. A storage format or pages that it "
            "has are named behind it.",
            "--kv",
            "--page-size",
        ),
        (
            "kernels",
            "transformers: what transformers executes. serving: what an engine runs instead: latent attention "
            "absorbed in decode, the chosen experts only, logits of the last position, the pairs of a causal mask.",
            "--kernels",
        ),
        ("tp", "Ranks that share each layer's weights: tensor parallelism.", "--tp"),
        ("ep", "Ranks that share the routed experts: expert parallelism.", "--ep"),
        ("dp", "Groups of ranks that attend to sequences of their own: data parallelism.", "--dp"),
        ("pp", "Runs of layers, each on devices of its own: pipeline parallelism.", "--pp"),
        ("assumed", "What the recording took for granted of data that nobody has, such as the value of an index."),
        ("left out", "Parts of the checkpoint that no figure has."),
        ("not priced", "Work that an engine adds for a storage format, and that no figure has."),
    ),
    *_words(
        "Tables",
        ("op", "An operation that PyTorch dispatches, by its name: `fxmeter ops` has the equation of each."),
        ("activations", "The activations made by the modules of the line: see activations made."),
        ("bytes", "All that the op moves; of what is alive at the peak, what it takes up."),
        ("after", "The pass after which the cache is as the line says."),
        ("tensors", "Shapes of what a layer keeps, and their names."),
        ("one layer", "What one of the layers keeps."),
        ("all", "What all layers of the line keep together."),
        ("made in", "The module whose code made the tensors."),
        ("by", "The op that made the tensors."),
        ("shape", "Of one of the tensors."),
        ("dtype", "Of weights, cache and activations, or of a tensor.", "--dtype"),
        ("share", "Of the whole stage's, as a bar and a percentage."),
        ("×", "How often: executions of an op, identical layers folded into one line.", "times", "count"),
        (
            "module (n×: all n)",
            "A module and what runs in it. Layers that cannot be told apart are one line, 'layers.1-26 (26×)', with "
            "the sum of them all.",
            "folded",
            "module",
        ),
        ("in", "The module that executes the op, positions in lists left out; +n others do so too."),
        ("shapes", "Of the tensors that the op reads."),
        ("each keeps", "What a layer keeps in the cache: every token, a window of them, or a recurrent state."),
        ("of the I/O", "As a share of the I/O."),
    ),
    *_words(
        "Time",
        ("stage", "The pass, and the attention that runs in it."),
        ("time", "The estimate of the kernels of the line."),
        ("kernel, by its first op", "Ops that run as one kernel, named by the first of them.", "kernel"),
        ("tokens", "Of the prompt, or of the context of a decode step."),
        ("tokens/s each", "Tokens of one sequence in a second of the estimate."),
        ("tokens/s in all", "Tokens of all sequences in a second of the estimate."),
        ("from batch", "The smallest batch at which a decode step is bound by compute."),
        ("from context", "The context from which a decode step reads as much cache as weights."),
        ("in another's kernel", "The module's ops run inside a fused kernel that begins in another module."),
        (
            "bound",
            "Nothing runs faster: of each kernel the largest of FLOPs, bytes and network traffic over the device's "
            "peaks.",
            "bound_s",
        ),
        (
            "estimate",
            "What to expect: the same roofs at efficiencies that kernels reach, joined by the 2-norm, plus a launch "
            "each. ~ marks one that was not held to measurements.",
            "estimate_s",
            "extrapolated",
            "~",
        ),
        ("of it launches", "What of the estimate is launches and the host.", "launch_s", "launch"),
        (
            "bound by",
            "What most of the estimate is limited by: compute, vector, memory, network or launch.",
            "bound_by",
            "compute",
            "vector",
            "memory",
            "network",
        ),
        ("tokens/s", "Tokens of all sequences in a second of the estimate.", "tokens_per_s"),
        ("FLOP per byte if fused", "FLOPs over the bytes that move when chains of ops run as one kernel."),
        ("ridge", "FLOP per byte at which the device turns from memory-bound to compute-bound."),
        ("device", "An accelerator by name: `fxmeter devices NAME` has each number with its source.", "--device"),
        ("efficiency from", "The measurements that the estimate's efficiencies were fitted to."),
    ),
    *_words(
        "Capacity",
        ("context", "Tokens of a sequence that the cache has; of a model the most positions it is made for."),
        ("input shape", "Tokens of the prompt and sequences of the batch."),
        ("request", "The prompt of a request, and its output where there is one."),
        ("of it bound", "The bound of the time before it."),
        ("memory capacity", "What of the device's memory a model may fill.", "--memory"),
        ("largest batch", "Sequences whose weights, cache and peak fit together."),
        ("longest context", "The context of one sequence that fits."),
        ("decode tokens/s", "Tokens that all sequences of the batch are given in a second."),
        ("requests/s", "Requests that a device finishes in a second, their prompts included."),
        ("J a token", "Energy as if the device drew its full power all the time."),
        ("after prefill", "The cache when the prompt is read."),
        ("after decode", "The cache when the output is written."),
        ("per sequence", "The cache of one sequence."),
        ("weights", "Weights resident, in their storage format.", "--weights"),
        ("+ KV", "The cache after the last step."),
        ("+ peak activations", "The peak alive of the stage that has the larger one."),
        ("of", "The stage that has the larger peak."),
        ("= total", "Weights, cache and peak together: what has to fit."),
    ),
    *_words(
        "Measured",
        ("measured", "Time in a profiler's trace: of ops on the CPU, or of the kernels of a device.", "ns"),
        (
            "matched",
            "Of the time measured, that of ops that the recording has too, in the same module.",
            "matched_share",
        ),
        ("TFLOP/s", "FLOPs of the ops that ran, over the time measured.", "flops_per_s"),
        ("TB/s", "I/O of the ops that ran, over the time measured.", "bytes_per_s"),
        ("measured / estimate", "How many times the estimate it took."),
        ("of the roof", "The bound over the time measured: 100% is as fast as the device can be."),
        (
            "MFU",
            "Model FLOPs utilisation: the time of the matrix products at the device's peak, over that of the pass, "
            "measured from begin to end or estimated.",
            "mfu",
            "predicted_mfu",
        ),
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
