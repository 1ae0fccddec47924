"""The logit lens: what the model would say if it stopped after each layer.

The residual stream between layers is read through the model's own final norm and unembedding. How these are built is read from
the model's weights (`stream_readout`), and compared with the model's own logits before anything is reported, so that a model that
does more than norm and unembedding there (a soft cap, a scale, a head of its own) is an error and not a wrong number. On a
bridge the numbers equal those of TransformerLens 4's `logit_lens`; the toys, a HookedTransformer and modules of your own
go through the same code.
"""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from einops import einsum, rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.errors import DataError, ModelError
from interp.metrics import Metric, MetricLike, as_metric
from interp.metrics.base import Position, at_least_float32, gather
from interp.metrics.standard import KL, position_of, positions
from interp.metrics.values import check_treats_rows_alone, row_chunks
from interp.models.calling import check_tokens
from interp.models.residual import EPSILON, Norm
from interp.probes.padding import check_reads_unpadded
from interp.provenance import provenance_of
from interp.result import Result, mean_over_examples
from interp.running import Probe, Readings, measure
from interp.sites import OUTPUT, HookedModel, Site, check_model, check_site, sites_of

if TYPE_CHECKING:
    import pandas as pd

ROUNDING = 16  # steps of the model's number type that a sum of many terms may be off, relative to the lengths of its vectors
INPUT = "input"  # the label of the stream that the first block reads
NORMS = ("LN", "LNPre", "RMS", "RMSPre")


@dataclass(frozen=True, eq=False)
class Readout:
    """How a model's last residual stream becomes logits: (x [− its mean]) / scale · gain + shift, times W_U, plus b_U.

    The scale is the root of the mean square of x (after its mean is subtracted, where that is done) plus `eps`; without a final
    norm (`eps` None) it is 1. A part that the model lacks is None.
    """

    W_U: Float[Tensor, "d_model d_vocab"]
    b_U: Float[Tensor, " d_vocab"] | None = None
    gain: Float[Tensor, " d_model"] | None = None
    shift: Float[Tensor, " d_model"] | None = None
    centred: bool = False
    eps: float | None = None

    def scale(self, stream: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows 1"]:
        """What the final norm divides each vector by."""
        if self.eps is None:
            return torch.ones_like(stream[..., :1])
        return (self._centre(stream).square().mean(-1, keepdim=True) + self.eps).sqrt()

    def normed(self, stream: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
        """The stream after the final norm, in float32 at least."""
        stream = at_least_float32(stream)
        x = self._centre(stream) / self.scale(stream)
        x = x if self.gain is None else x * self.gain.to(x)
        return x if self.shift is None else x + self.shift.to(x)

    def logits(
        self, stream: Float[Tensor, "batch read d_model"], ids: Int[Tensor, "... id"] | None = None
    ) -> Float[Tensor, "batch read id"]:
        """The logits of `ids` ([id], or [batch id] for its own of each example; None: all) that the stream gives."""
        x = self.normed(stream)
        if ids is None:
            logits, bias = x @ self.W_U.to(x.dtype), self.b_U
        else:
            ids = ids.to(x.device)
            columns = self.W_U.T[ids].to(x.dtype)
            each = "batch id d_model" if ids.ndim == 2 else "id d_model"
            logits = einsum(x, columns, f"batch read d_model, {each} -> batch read id")
            bias = None if self.b_U is None else self.b_U[ids]
            bias = bias if bias is None or bias.ndim == 1 else rearrange(bias, "batch id -> batch 1 id")
        return logits if bias is None else logits + bias.to(logits)

    @property
    def step(self) -> float:
        """The relative rounding of the way to the logits: a norm may be done in float32 in a model of float64, as Llama's is."""
        step = torch.finfo(self.W_U.dtype).eps
        return step if self.eps is None else max(step, torch.finfo(torch.float32).eps)

    def _centre(self, stream: Tensor) -> Tensor:
        return stream - stream.mean(-1, keepdim=True) if self.centred else stream


def stream_readout(model: Any) -> Readout:
    """The final norm and unembedding of `model`, from its weights. Raises `ModelError` when it has others than are known here.

    Known are no norm, LayerNorm and RMSNorm as `ln_final`, TransformerLens' or torch's, and an `unembed` with `W_U` and `b_U` or
    that is a linear layer. What is returned is not yet compared with what the model does: `checked_readout` is.
    """
    cap = getattr(getattr(model, "cfg", None), "output_logits_soft_cap", None)
    if isinstance(cap, int | float) and cap > 0:
        raise _unknown(model, f"it caps its logits softly at {cap:g}, so that they are no sum of what the layers write")
    unembed: Any = getattr(model, "unembed", None)
    linear = isinstance(unembed, nn.Linear)
    weight = unembed.weight.T if linear else getattr(unembed, "W_U", None)
    bias = unembed.bias if linear else getattr(unembed, "b_U", None)
    if not isinstance(weight, Tensor) or weight.ndim != 2:
        raise _unknown(model, "it has no unembedding where one is expected (model.unembed, a linear layer or with W_U)")
    return Readout(weight.detach(), _detached(bias), *_final_norm(model))


def _final_norm(model: Any) -> tuple[Tensor | None, Tensor | None, bool, float | None]:
    """Gain, shift, whether the mean is subtracted, and eps of the norm before the unembedding."""
    norm, config = getattr(model, "ln_final", None), getattr(model, "cfg", None)
    kind = getattr(config, "normalization_type", None)
    if norm is None or isinstance(norm, nn.Identity):
        if norm is None and kind is not None:
            raise _unknown(model, f"its configuration speaks of a norm ({kind!r}) and there is no ln_final")
        return None, None, False, None
    if isinstance(norm, nn.LayerNorm | nn.RMSNorm):
        small = torch.finfo(next(model.parameters()).dtype).eps if norm.eps is None else norm.eps
        return _detached(norm.weight), _detached(getattr(norm, "bias", None)), isinstance(norm, nn.LayerNorm), small
    eps = EPSILON if isinstance(norm, Norm) else getattr(config, "eps", None)
    if kind not in NORMS or not isinstance(eps, float):
        raise _unknown(model, f"its final norm is a {type(norm).__name__} of kind {kind!r} with eps {eps!r}")
    gain, shift = _detached(getattr(norm, "w", None)), _detached(getattr(norm, "b", None))
    if gain is not None and getattr(config, "rmsnorm_uses_offset", False):
        gain = gain + 1
    return gain, shift, kind.startswith("LN"), eps


def checked_readout(model: HookedModel, tokens: Int[Tensor, "batch pos"]) -> Readout:
    """`stream_readout`, after the logits it gives for the first example are found to be the model's own, at every position.

    Raises `ModelError` when they are not. Cost: one forward pass on one example.
    """
    check_model(model)
    check_tokens(model, tokens)
    readout = stream_readout(model)
    deviation = measure(model, tokens[:1], [_Deviation(readout, sites_of(model, "resid_post")[-1])])[_Deviation.name]
    worst = float(deviation.values.max())
    if worst != worst:  # noqa: PLR0124
        raise ModelError(f"reading logits off a {type(model).__name__}", "its output is NaN", "Look at its weights")
    if worst > 1:
        raise _unknown(
            model,
            "its logits are not the final norm and the unembedding of its last resid_post "
            f"(off by {worst:.3g} times what rounding explains): it does something else in between, or reads another stream",
        )
    return readout


@dataclass(frozen=True, eq=False)
class _Deviation(Probe):
    """How far the readout's logits are from the model's, in units of what rounding may do."""

    readout: Readout
    last: Site
    name: ClassVar[str] = "deviation"

    def sites(self, model: HookedModel) -> Sequence[Site]:
        return [self.last, OUTPUT]

    def read(self, activation: Tensor, site: Site, prepared: Any) -> Tensor:
        return activation

    def result(self, readings: Readings) -> Result:
        stream, logits = readings[self.last], readings[OUTPUT]
        x = self.readout.normed(stream)
        lengths = x.norm(dim=-1, keepdim=True) * self.readout.W_U.to(x.dtype).norm(dim=0)
        if self.readout.b_U is not None:
            lengths = lengths + self.readout.b_U.to(x.dtype).abs()
        bound = ROUNDING * self.readout.step * lengths
        off = (self.readout.logits(stream) - logits).abs() / bound.clamp(min=torch.finfo(x.dtype).tiny)
        worst = off.max().clamp(max=torch.finfo(off.dtype).max)  # a result holds no infinity; NaN stays
        return Result(name=self.name, values=worst, axes=())


@dataclass(frozen=True, eq=False)
class LogitLens(Probe):
    """The metrics' values from the stream before the first block and after each."""

    readout: Readout
    metrics: tuple[Metric, ...]
    name: ClassVar[str] = "logit_lens"

    def sites(self, model: HookedModel) -> Sequence[Site]:
        return lens_sites(model)

    def read(self, activation: Tensor, site: Site, prepared: Any) -> Tensor:
        return torch.stack([self._value(metric, activation, prepared) for metric in self.metrics], dim=1)

    def _value(self, metric: Metric, stream: Tensor, tokens: Tensor) -> Tensor:
        reads = metric.reads
        return metric.score(self.readout.logits(gather(stream, reads.positions, 1, "position"), reads.ids), tokens)

    def result(self, readings: Readings) -> Result:
        return Result(name=self.name, values=torch.stack(list(readings.values()), dim=1), axes=("example", "layer", "pos"))


def logit_lens(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"],
    metric: MetricLike,
    *,
    places: Sequence[int] | None = None,
    batch_size: int | None = None,
) -> Result:
    """A metric of the logits read off the residual stream before the first block and after each: axis (layer,).

    `metric` is any of `interp.metrics`: `prob(answers)` for the probability of the answer, `logit_diff`, `loss()`, a callable.
    Mean and `stderr` are over examples. The row "input" is the stream that the first block reads (the embedding; in a
    ConvAttn, what comes out of the convolution); the last row equals the metric of the model itself. With `places` a metric of
    one position (`prob`, `logit_diff`, `logit`) is read at each of these instead: axes (layer, pos).

    The final norm is applied anew to each stream. In a toy without a residual stream a layer's output is read the same way,
    though later layers never pass it on to the logits.
    Raises `ModelError` when the logits are not the final norm and unembedding of the last stream (see `checked_readout`),
    and `DataError` when the metric does not fit the tokens or reads what looks like padding. Cost: one forward pass, and per
    layer the logits the metric reads.
    """
    started = time.perf_counter()
    readout = checked_readout(model, tokens)
    chosen = _at_places(as_metric(metric), places)
    chosen[0].check_examples(len(tokens))
    for one in chosen:
        check_reads_unpadded(model, tokens, one)
    check_treats_rows_alone(model, tokens, chosen[0], batch_size)
    values = torch.cat(
        [
            measure(model, tokens[rows], [LogitLens(readout, tuple(one.select(rows) for one in chosen))])[LogitLens.name].values
            for rows in row_chunks(len(tokens), batch_size)
        ]
    )
    mean, stderr = mean_over_examples(values)
    labels = {"layer": layer_labels(model)} | ({} if places is None else {"pos": tuple(map(str, places))})
    result = Result(
        name=f"logit_lens: {chosen[0].name}",
        values=mean if places is not None else mean[:, 0],
        stderr=stderr if places is not None or stderr is None else stderr[:, 0],
        axes=("layer", "pos") if places is not None else ("layer",),
        labels=labels,
        count=len(tokens),
        unit=chosen[0].unit,
        description=f"{chosen[0].name} of the stream after each layer, through the final norm and the unembedding",
    )
    return result.with_provenance(provenance_of(cast(nn.Module, model), tokens, time.perf_counter() - started))


def _at_places(metric: Metric, places: Sequence[int] | None) -> tuple[Metric, ...]:
    if places is None:
        return (metric,)
    fields: list[str] = (
        [field.name for field in dataclasses.fields(cast(Any, metric))] if dataclasses.is_dataclass(metric) else []
    )
    if "position" not in fields or isinstance(metric, KL):
        raise DataError(
            f"the logit lens of {metric.name} at several places",
            "this metric does not read one position",
            "Leave places out, or use prob, logit or logit_diff",
        )
    if len(places) == 0:
        raise DataError("the logit lens at no places", "there is nothing to read", "Give at least one position")
    return tuple(dataclasses.replace(cast(Any, metric), position=position_of(place)) for place in places)


@dataclass(frozen=True, eq=False)
class _TopTokens(Probe):
    """The likeliest ids at one position of each stream, with their probabilities."""

    readout: Readout
    position: Position
    k: int
    name: ClassVar[str] = "top_tokens"

    def sites(self, model: HookedModel) -> Sequence[Site]:
        return lens_sites(model)

    def read(self, activation: Tensor, site: Site, prepared: Any) -> Tensor:
        logits = self.readout.logits(gather(activation, positions(self.position), 1, "position"))[:, 0]
        best = logits.softmax(-1).topk(self.k)
        return torch.stack([best.values.double(), best.indices.double()], dim=-1)

    def result(self, readings: Readings) -> Result:
        values = torch.stack(list(readings.values()), dim=1)
        return Result(name=self.name, values=values, axes=("example", "layer", "rank", "what"))


def logit_lens_tokens(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"],
    *,
    k: int = 3,
    position: Position = -1,
    batch_size: int | None = None,
) -> "pd.DataFrame":
    """The `k` likeliest next tokens by the logit lens: a table with example, layer, rank (1 first), id, token and probability.

    Read at `position`, one for all or one per example. "token" is the text of the id, empty for a model without a tokenizer.
    All else as in `logit_lens`.
    """
    import pandas as pd

    readout, position = checked_readout(model, tokens), position_of(position)
    d_vocab = readout.W_U.shape[1]
    if not 1 <= k <= d_vocab or (isinstance(position, Tensor) and len(position) != len(tokens)):
        told = f"the vocabulary has {d_vocab} tokens, and there are {len(tokens)} examples"
        raise DataError(f"the {k} likeliest tokens at {position!r}", told, "Give 1 ≤ k ≤ the vocabulary, and a position for each")
    parts = []
    for rows in row_chunks(len(tokens), batch_size):
        here = position[rows] if isinstance(position, Tensor) else position
        parts.append(measure(model, tokens[rows], [_TopTokens(readout, here, k)])[_TopTokens.name].values)
    found = torch.cat(parts).cpu()
    tokenizer = getattr(model, "tokenizer", None)
    labels = layer_labels(model)
    records = [
        (example, labels[layer], rank + 1, int(token), "" if tokenizer is None else tokenizer.decode([int(token)]), share)
        for example, layers in enumerate(found.tolist())
        for layer, ranks in enumerate(layers)
        for rank, (share, token) in enumerate(ranks)
    ]
    return pd.DataFrame(records, columns=["example", "layer", "rank", "id", "token", "probability"])


def lens_sites(model: HookedModel) -> list[Site]:
    """The stream before the first block, and after each."""
    after = sites_of(model, "resid_post")
    before = Site("resid_pre", after[0].layer)
    check_site(model, before)
    return [before, *after]


def layer_labels(model: HookedModel) -> tuple[str, ...]:
    """ "input", then the layers' numbers."""
    return (INPUT, *(str(site.layer) for site in sites_of(model, "resid_post")))


def _detached(weight: Any) -> Tensor | None:
    return weight.detach() if isinstance(weight, Tensor) else None


def _unknown(model: Any, truth: str) -> ModelError:
    return ModelError(
        f"reading logits off the residual stream of a {type(model).__name__}",
        truth,
        "Needs model.unembed, model.ln_final (LayerNorm, RMSNorm or none), and nothing behind them",
    )
