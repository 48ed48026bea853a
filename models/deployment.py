"""What runs where: storage formats, parallelism and kernels of a deployment, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from fxmeter.models.errors import DeploymentError
from fxmeter.models.formats import KvFormat, WeightFormats, kv_format, weight_formats
from fxmeter.models.sizes import whole_number

Kernels = Literal["transformers", "serving"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """How a model runs. The default is what transformers executes on one device, weights as the checkpoint has them.

    ``weights`` None: as the model's config says. ``kv`` None: the dtype that the pass computes in. ``tp``, ``ep``,
    ``dp`` and ``pp`` are sizes of tensor, expert, data and pipeline parallelism; with ``ep`` above ``tp`` and no ``dp``
    there are ``ep // tp`` groups that attend to sequences of their own. ``kernels``: "transformers", the
    model's own code, or "serving", what an engine runs instead. ``page_size``: tokens that a paged cache allots at
    once.
    """

    weights: WeightFormats | None = None
    kv: KvFormat | None = None
    tp: int = 1
    ep: int = 1
    dp: int = 1
    pp: int = 1
    kernels: Kernels = "transformers"
    page_size: int | None = None

    def __post_init__(self) -> None:
        for name in ("tp", "ep", "dp", "pp"):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), 1))
        if self.page_size is not None:
            object.__setattr__(self, "page_size", whole_number("page_size", self.page_size, 1))
        if self.kernels not in get_args(Kernels):
            raise DeploymentError(f"kernels must be {' or '.join(get_args(Kernels))}, not {self.kernels!r}")
        self._lay_out()

    def _lay_out(self) -> None:
        """Check the sizes: experts are spread over whole tensor-parallel groups, and so are there more of those."""
        if self.ep > 1 and self.ep % self.tp:
            raise DeploymentError(f"ep={self.ep} is no multiple of tp={self.tp}: experts are spread over whole groups")
        if self.ep > self.tp * self.dp and self.dp == 1:
            object.__setattr__(self, "dp", self.ep // self.tp)
        if self.ranks % self.ep:
            raise DeploymentError(f"ep={self.ep} does not divide the {self.ranks} ranks of tp={self.tp}, dp={self.dp}")

    @property
    def ranks(self) -> int:
        """Devices of one pipeline stage: ``dp`` groups of ``tp``, each group with sequences of its own."""
        return self.tp * self.dp

    @property
    def devices(self) -> int:
        """All devices."""
        return self.ranks * self.pp

    @property
    def sharded(self) -> bool:
        """Whether a device has another part of the model than the next one."""
        return self.tp > 1 or self.ep > 1

    @property
    def sizes(self) -> Mapping[str, int]:
        """Sizes of tensor, expert, data and pipeline parallelism, by the names of their options."""
        return {"tp": self.tp, "ep": self.ep, "dp": self.dp, "pp": self.pp}

    @property
    def asked(self) -> Mapping[str, str]:
        """What was asked for beside the default, in words: formats, kernels, and sizes of parallelism."""
        words = {
            "weights": "" if self.weights is None else self.weights.label,
            "kv": "" if self.kv is None else self.kv.name,
            "kernels": "" if self.kernels == "transformers" else self.kernels,
            "page_size": "" if self.page_size is None else str(self.page_size),
            **{name: str(size) for name, size in self.sizes.items() if size > 1},
        }
        return {name: word for name, word in words.items() if word}


ONE_DEVICE = Deployment()


def deploy(
    *,
    weights: str | WeightFormats | None = None,
    kv: str | KvFormat | None = None,
    tp: int = 1,
    ep: int = 1,
    dp: int = 1,
    pp: int = 1,
    kernels: Kernels = "transformers",
    page_size: int | None = None,
) -> Deployment:
    """A deployment.

    Args:
        weights: a weight format by name ("fp8-block", "gptq-int4-g128", "bfloat16"); None is the checkpoint's own.
        kv: a format of the KV cache ("fp8", "int8", "int4"); None is the dtype that the pass computes in.
        tp, ep, dp, pp: sizes of tensor, expert, data and pipeline parallelism.
        kernels: "transformers" or "serving".
        page_size: tokens that a paged cache allots at once; None counts single tokens.

    Returns:
        Deployment: plain data, for ``annotate(..., deployment=...)``.

    Raises:
        DeploymentError: an unknown format or kernel. ScenarioError: a size below 1.
    """
    return Deployment(
        weights=weight_formats(weights) if isinstance(weights, str) else weights,
        kv=kv_format(kv) if isinstance(kv, str) else kv,
        tp=tp,
        ep=ep,
        dp=dp,
        pp=pp,
        kernels=kernels,
        page_size=page_size,
    )
