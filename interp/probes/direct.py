"""Direct logit attribution: how much each part of a model writes straight into a logit, or a difference of logits.

The last residual stream is a sum of what the embedding, each head and each MLP wrote, and with the final norm's scale held at
its value in the run, the logits are linear in it: so a logit is a sum over parts. TransformerLens' tool of the same name gives
the same numbers where it runs (a HookedTransformer, a bridge in compatibility mode); here every model goes one way, and no
number is returned before the parts are found to add up to the model's own logits, example by example.
"""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast, get_args

import torch
from einops import einsum, rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.errors import ConfigError, DataError, ModelError, nearest
from interp.metrics import MetricLike
from interp.metrics.base import gather
from interp.metrics.standard import LogitDiff, positions
from interp.metrics.values import row_chunks
from interp.metrics.weighted import Logit
from interp.models.calling import check_tokens, trial
from interp.models.toys import Toy
from interp.probes.lens import ROUNDING, Readout, stream_readout
from interp.provenance import provenance_of
from interp.result import Result, mean_over_examples
from interp.running import Probe, Readings, measure
from interp.sites import LOGITS, OUTPUT, HookedModel, Site, check_model, layers_with, sites_of

By = Literal["component", "layer", "head"]
BIAS = "bias"  # the row of what is added behind the last stream
_OUTPUTS = re.compile(r"blocks\.(\d+)\.hook_([a-z]+)_out")


def direct_logit_attribution(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"],
    metric: MetricLike,
    *,
    by: By = "component",
    batch_size: int | None = None,
) -> Result:
    """What each part of the model adds directly to a logit difference, in logits; positive parts favour the answer.

    `metric` is `interp.metrics.logit_diff(answers, wrong)` or `logit(answers)`, at its position. Mean and `stderr` are over
    examples.

    * `by="component"`: axis (component,) with a row for the embeddings (and a ConvAttn's convolution), each head ("L0H1"), each
      layer's attention bias, each MLP, and "bias": what is left at an all-zero stream, from the final norm's shift and the
      unembedding's bias. The rows sum exactly to the model's logit difference.
    * `by="layer"`: the same with one row for all of a layer's attention, its bias included; also for models whose heads cannot be
      told apart. It sums to the same.
    * `by="head"`: axes (layer, head), the heads alone.

    The final norm's scale is held at its value in the run, for each example; the mean that a LayerNorm subtracts is
    taken from each part. In a toy without a residual stream only the last layer's heads write to the logits: all other rows
    are 0. Effects through later layers are not counted: those are what patching measures. Computed in float64.

    Raises `ModelError` when the model's final norm or unembedding is of an unknown kind, or when, for any example, the heads do
    not add up to their layer's output, the parts to the last stream, or that to the logits; `ConfigError` for another metric.
    Cost: one forward pass, and one over one example to find which hook points fire.
    """
    started = time.perf_counter()
    check_model(model)
    check_tokens(model, tokens)
    if by not in get_args(By):
        known = get_args(By)
        raise ConfigError(f"direct logit attribution by {by!r}", f"the ways are {known}", f"{nearest(str(by), known)}Use one")
    if not isinstance(metric, LogitDiff | Logit):
        raise ConfigError(
            f"direct logit attribution of {getattr(metric, 'name', metric)!r}",
            "only a logit, or a difference of logits, is a sum over parts",
            "Use interp.metrics.logit_diff or interp.metrics.logit",
        )
    metric.check_examples(len(tokens))
    readout, parts = stream_readout(model), _Parts.of(model, tokens, by)
    found = []
    for rows in row_chunks(len(tokens), batch_size):
        one = metric.select(rows)
        assert isinstance(one, LogitDiff | Logit)
        probe = _Contributions(model, parts, one, readout, *_direction(readout, one, len(rows)))
        found.append(measure(model, tokens[rows], [probe])[_Contributions.name].values)
    result = _summed(parts, torch.cat(found), by, metric)
    return result.with_provenance(provenance_of(cast(nn.Module, model), tokens, time.perf_counter() - started))


@dataclass(frozen=True, eq=False)
class _Parts:
    """The sites at which parts are read, with the labels of what is read there; heads are read at z."""

    labels: Mapping[Site, tuple[str, ...]]
    heads: Mapping[int, tuple[Tensor, Tensor | None]]  # layer -> W_O [head d_head d_model] and b_O
    silent: frozenset[Site]  # parts that do not reach the logits: there is no residual stream
    last: Site

    @staticmethod
    def of(model: HookedModel, tokens: Tensor, by: By) -> "_Parts":
        last = sites_of(model, "resid_post")[-1]
        written = [(None, kind, Site(kind)) for kind in ("embed", "pos_embed", "conv") if Site(kind).hook_name in model.hook_dict]
        found = [*written, *_layers_writes(model, heads=by != "layer")]
        fired = trial(model, tokens[:1], {site.hook_name: lambda activation: None for _, _, site in found})[1]
        found = [part for part in found if fired[part[2].hook_name]]  # a bridge lists pos_embed where positions are rotary
        heads = {layer: _output_weights(model, layer) for layer, what, _ in found if what == "z" and layer is not None}
        streamless = isinstance(model, Toy) and not model.config.residual
        silent = frozenset(site for layer, _, site in found if streamless and layer != last.layer)
        return _Parts({site: _labels(layer, what, heads) for layer, what, site in found}, heads, silent, last)


def _layers_writes(model: HookedModel, heads: bool) -> list[tuple[int | None, str, Site]]:
    """What each layer adds to the stream: every hook_…_out of a block, attention (or what stands for it) before the MLP."""
    matches = [match for name in model.hook_dict if (match := _OUTPUTS.fullmatch(name))]
    points = {id(model.hook_dict[match[0]]): (int(match[1]), match[2], Site(match[0])) for match in matches}
    found: list[tuple[int | None, str, Site]] = []
    for layer, what, site in sorted(points.values(), key=lambda part: (part[0], part[1] == "mlp", part[1])):
        if what == "attn" and heads and layer in layers_with(model, "z"):
            found.append((layer, "z", Site("z", layer)))
        found.append((layer, what, site))
    return found


def _labels(layer: int | None, what: str, heads: Mapping[int, tuple[Tensor, Tensor | None]]) -> tuple[str, ...]:
    if layer is None:
        return (what,)
    if what == "z":
        weight, bias = heads[layer]
        names = tuple(f"L{layer}H{head}" for head in range(len(weight)))
        return names if bias is None else (*names, f"L{layer} attn bias")
    return (f"L{layer} {'MLP' if what == 'mlp' else what}",)


def _output_weights(model: Any, layer: int) -> tuple[Tensor, Tensor | None]:
    try:
        attention = model.blocks[layer].attn
        weight, bias = attention.W_O, getattr(attention, "b_O", None)
        assert weight.ndim == 3
    except (AttributeError, TypeError, IndexError, AssertionError) as error:
        raise ModelError(
            f"splitting layer {layer} of a {type(model).__name__} into heads",
            f"they need its output weights, blocks[{layer}].attn.W_O [head d_head d_model] ({error})",
            'Use by="layer"',
        ) from None
    return weight.detach(), bias.detach() if isinstance(bias, Tensor) else None


@dataclass(frozen=True, eq=False)
class _Contributions(Probe):
    """Each part's share in the metric, per example: axes (example, component), "bias" last. Checks all sums."""

    model: HookedModel
    parts: _Parts
    metric: LogitDiff | Logit
    readout: Readout
    direction: Float[Tensor, "batch d_model"]  # what a stream of scale 1 is multiplied with
    bias: Float[Tensor, " batch"]
    reach: Float[Tensor, " batch"]  # the length of all that the direction is the difference of
    name: ClassVar[str] = "direct_logit_attribution"

    def sites(self, model: HookedModel) -> Sequence[Site]:
        return [*self.parts.labels, self.parts.last, OUTPUT]

    def read(self, activation: Tensor, site: Site, prepared: Any) -> Tensor:
        """[batch part 3]: along the direction, length, and what the final norm would divide it by."""
        if site.kind == LOGITS:
            return self.metric(activation, prepared).double()
        everywhere = activation.expand(len(prepared), *activation.shape[1:])  # positions may come once for all examples
        here = gather(everywhere.flatten(2), positions(self.metric.position), 1, "position")[:, 0].double()
        written = self._written(here, site)
        along = einsum(written, self.direction, "batch part d_model, batch d_model -> batch part")
        return torch.stack([along, written.norm(dim=-1), self.readout.scale(written)[..., 0]], dim=-1)

    def _written(self, here: Tensor, site: Site) -> Float[Tensor, "batch part d_model"]:
        if site.kind != "z":
            return rearrange(here, "batch d_model -> batch 1 d_model")
        weight, bias = self.parts.heads[site.layer or 0]
        z = rearrange(here, "batch (head d_head) -> batch head d_head", head=len(weight))
        heads = einsum(z, weight.double(), "batch head d_head, head d_head d_model -> batch head d_model")
        return heads if bias is None else torch.cat([heads, bias.double().expand(len(here), 1, -1)], dim=1)

    def result(self, readings: Readings) -> Result:
        last = readings[self.parts.last][:, 0]
        split = {site for site in readings if site.kind == "attn_out" and site.layer in self.parts.heads}
        for site in split:
            self._check_heads(site, readings)
        kept = {site: readings[site] for site in self.parts.labels if site not in split}
        reaching = [values for site, values in kept.items() if site not in self.parts.silent]
        self._check_sums(torch.cat(reaching, dim=1), last, readings[OUTPUT])
        shares = [values[..., 0] * (0.0 if site in self.parts.silent else 1.0) / last[:, 2:] for site, values in kept.items()]
        values = torch.cat([*shares, self.bias[:, None]], dim=1)
        return Result(name=self.name, values=values, axes=("example", "component"))

    def _check_heads(self, site: Site, readings: Readings) -> None:
        heads, whole = readings[Site("z", site.layer)], readings[site][:, 0]
        off, bound = (heads[..., 0].sum(1) - whole[:, 0]).abs(), self._rounding(heads[..., 1].sum(1))
        self._check(off, bound, f"the heads of layer {site.layer} do not add up to its attn_out", 'Use by="layer"')

    def _check_sums(self, parts: Tensor, last: Tensor, wanted: Tensor) -> None:
        off = (parts[..., 0].sum(1) - last[:, 0]).abs()
        bound = self._rounding(parts[..., 1].sum(1))  # the stream is rounded after each part
        remedy = "Open another part of the model with interp.hooked, or measure by patching"
        self._check(off, bound, "what its parts write does not add up to the last residual stream", remedy)
        scale = last[:, 2]
        off = (last[:, 0] / scale + self.bias - wanted).abs()
        bound = ROUNDING * self.readout.step * (last[:, 1] * self.reach / scale + self.bias.abs() + wanted.abs())
        truth = "its logits are not the final norm and unembedding of its last resid_post"
        self._check(off, bound, truth, "Needs model.unembed and model.ln_final with nothing behind them")

    def _rounding(self, lengths: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """How far rounding in the model's number type may carry a product of vectors of these lengths with the direction."""
        return ROUNDING * torch.finfo(self.readout.W_U.dtype).eps * lengths * self.direction.norm(dim=-1)

    def _check(self, off: Tensor, bound: Tensor, truth: str, remedy: str) -> None:
        if bool((off <= bound).all()):
            return
        worst = int((off - bound).nan_to_num(torch.inf).argmax())
        amounts = (
            f"in example {worst} of a batch they differ by {float(off[worst]):.3g}, rounding explains {float(bound[worst]):.3g}"
        )
        raise ModelError(f"direct logit attribution on a {type(self.model).__name__}", f"{truth} ({amounts})", remedy)


def _direction(readout: Readout, metric: LogitDiff | Logit, n_examples: int) -> tuple[Tensor, Tensor, Tensor]:
    """What a stream of scale 1 is multiplied with to give the metric [batch d_model], what is added, the directions' length."""
    d_vocab = readout.W_U.shape[1]
    groups = (metric.answers, metric.wrong) if isinstance(metric, LogitDiff) else (metric.answers,)
    device = readout.W_U.device
    gain = 1.0 if readout.gain is None else readout.gain.double()
    raw, bias, reach = (torch.zeros(n_examples, *shape, dtype=torch.float64, device=device) for shape in ((1,), (), ()))
    for sign, ids in zip((1, -1), groups, strict=False):
        if int(ids.max()) >= d_vocab:
            raise DataError(f"the logit of token id {int(ids.max())}", f"the model has {d_vocab}", "Use this model's tokenizer")
        rows = ids.to(device).expand(n_examples, -1)
        columns = readout.W_U.T[rows].double()
        raw, reach = raw + sign * columns.mean(1), reach + (columns * gain).norm(dim=-1).mean(1)
        bias = bias if readout.b_U is None else bias + sign * readout.b_U[rows].double().mean(1)
    if readout.shift is not None:
        bias = bias + raw @ readout.shift.double()
    direction = raw * gain
    return direction - direction.mean(-1, keepdim=True) if readout.centred else direction, bias, reach


def _summed(parts: _Parts, values: Float[Tensor, "example component"], by: By, metric: LogitDiff | Logit) -> Result:
    """Mean and standard error over examples, laid out as asked for."""
    hidden = {site for site in parts.labels if site.kind == "attn_out" and site.layer in parts.heads}
    kept = {site: names for site, names in parts.labels.items() if site not in hidden}
    mean, stderr = mean_over_examples(values)
    told = " (no residual stream: only the last layer's heads write to the logits)" if parts.silent else ""
    common: dict[str, Any] = {
        "name": "direct_logit_attribution",
        "count": len(values),
        "unit": metric.unit,
        "description": f"what each part adds directly to the {metric.name}; positive favours the answer{told}",
    }
    if by != "head":
        names = (*(name for labels in kept.values() for name in labels), BIAS)
        return Result(values=mean, stderr=stderr, axes=("component",), labels={"component": names}, **common)
    starts = dict(zip(kept, torch.tensor([0, *map(len, kept.values())]).cumsum(0).tolist(), strict=False))
    chosen = {site: range(starts[site], starts[site] + len(parts.heads[site.layer or 0][0])) for site in kept if site.kind == "z"}
    if not chosen or len({len(places) for places in chosen.values()}) > 1:
        counts = {str(site): len(places) for site, places in chosen.items()}
        raise ModelError("direct logit attribution by head", f"its layers have heads {counts or 'nowhere'}", 'Use by="component"')
    grid = torch.tensor([list(places) for places in chosen.values()])
    return Result(
        values=mean[grid],
        stderr=None if stderr is None else stderr[grid],
        axes=("layer", "head"),
        labels={"layer": tuple(str(site.layer) for site in chosen)},
        **common,
    )
