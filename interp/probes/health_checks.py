"""The checks of `interp.diagnose`: each a small function, with the limit beyond which it speaks and why that limit.

A check measures something per layer (and head), compares it with its limit, and names the likely cause. Limits are set so that
healthy models, untrained and trained, stay far inside them and the bug is far outside.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from einops import einsum, rearrange, reduce
from jaxtyping import Bool, Float
from torch import Tensor

from interp.probes.health_reading import KEPT, Reading
from interp.result import Result
from interp.sites import Site

PerHead = Float[Tensor, "layer head"]
FEW_TOKENS = 64  # below this many real tokens a unit may be silent by chance
GAIN_ERROR = 1e-3  # of a stream that is passed on unchanged; in float32 it is 1e-6
HALF = (torch.float16, torch.bfloat16)


class NotApplicable(Exception):
    """The check has nothing to look at; the message says why."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: which check says so, where, its evidence in numbers, and the likely cause."""

    check: str
    where: str
    evidence: str
    cause: str
    value: float  # the worst that was measured
    limit: float


Outcome = tuple[Result, Finding | None]


@dataclass(frozen=True)
class Check:
    """A check, its limit in words and numbers, and the reason for it."""

    name: str
    limit: float
    rule: str
    reason: str
    look: Callable[[Reading, "Check"], Outcome]

    def found(self, where: str, evidence: str, cause: str, value: float | int) -> Finding:
        return Finding(self.name, where, evidence, cause, float(value), self.limit)

    def per_head(self, values: PerHead, layers: Sequence[int], unit: str) -> Result:
        return Result(
            name=self.name,
            values=values.cpu().double(),
            axes=("layer", "head"),
            labels={"layer": tuple(map(str, layers))},
            unit=unit,
            description=self.rule,
        )

    def per_layer(self, values: Float[Tensor, " layer"], layers: Sequence[int | str], unit: str) -> Result:
        return Result(
            name=self.name,
            values=values.cpu().double(),
            axes=("layer",),
            labels={"layer": tuple(map(str, layers))},
            unit=unit,
            description=self.rule,
        )


CHECKS: list[Check] = []


def check(name: str, limit: float, rule: str, reason: str) -> Callable:
    """Add a function (reading, check) -> (result, finding or None) to `CHECKS`; it raises `NotApplicable` to be left out."""

    def added(look: Callable[[Reading, Check], Outcome]) -> Callable[[Reading, Check], Outcome]:
        CHECKS.append(Check(name, limit, rule, reason, look))
        return look

    return added


@check(
    "not finite",
    0.0,
    "no entry of an activation or of the logits is NaN or infinite",
    "a forward pass on valid tokens has no reason to hold one",
)
def not_finite(reading: Reading, this: Check) -> Outcome:
    sites = sorted(reading.at, key=lambda site: (site.layer or 0, KEPT.index(site.kind)))
    counts = {str(site): int((~_of_real(reading, site).isfinite()).sum()) for site in sites}
    if reading.logits is not None:
        counts["logits"] = int((~reading.logits.isfinite()).sum())
    if not counts:
        raise NotApplicable("nothing was read")
    result = this.per_layer(torch.tensor(list(counts.values())).double(), list(counts), "entries that are not finite")
    first = next((name for name, count in counts.items() if count), None)
    if first is None:
        return result, None
    cause = "a softmax over a row whose keys are all masked with −inf (a mask of the wrong polarity, or an empty sequence)"
    if not first.startswith("pattern"):
        cause = "weights or activations overflow, or a division by zero before this site"
    return result, this.found(first, f"{counts[first]} entries at {first}, the first site that has any", cause, counts[first])


@check(
    "mass on padding",
    1e-3,
    "real tokens give padding less than a thousandth of their attention",
    "a mask of −1e4 or lower leaves it less than e^-1000; without one it gets about the share of keys that are padding",
)
def mass_on_padding(reading: Reading, this: Check) -> Outcome:
    if bool(reading.real.all()):
        raise NotApplicable("no token of this batch is padding")
    patterns = _patterns(reading)
    padded = ~reading.real.all(1)
    mass = {}
    for layer, pattern in patterns.items():
        on_padding = einsum(pattern[padded], (~reading.real[padded]).to(pattern), "b head query key, b key -> b head query")
        mass[layer] = _over_real(on_padding, reading.real[padded])
    values = _stacked(mass)
    result = this.per_head(values, list(patterns), "share of attention")
    if not _worst(values) > this.limit:
        return result, None
    share = float((~reading.real[padded]).double().mean())
    cause = f"no padding mask reaches the scores ({share:.2f} of the keys of padded rows are padding)"
    if bool(_row_errors(reading, patterns).gt(0.03).any()):
        cause = "rows do not sum to 1: the softmax runs over another axis, and hiding keys from it does not take their shares"
    elif _worst(values) > 0.5 + share / 2:
        cause = "the padding mask has the wrong polarity: it hides the real tokens and shows the padding"
    return result, this.found(
        _heads(values > this.limit, list(patterns)), f"up to {_worst(values):.3g} of the attention", cause, _worst(values)
    )


@check(
    "rows do not sum to 1",
    1e-3,
    "the attention of every real token sums to 1, to a thousandth (0.03 in half precision)",
    "a float32 softmax misses 1 by about 1e-6, a half-precision one by up to 0.01; any other axis gives other sums",
)
def rows_sum_to_one(reading: Reading, this: Check) -> Outcome:
    if reading.dropping:
        raise NotApplicable("dropout is on, and the model may read its weights after it")
    patterns = _patterns(reading)
    limit = 0.03 if any(t.dtype in HALF for s, t in reading.at.items() if s.kind == "pattern") else this.limit
    values = _row_errors(reading, patterns)
    result = this.per_head(values, list(patterns), "distance from 1")
    if not _worst(values) > limit:
        return result, None
    worst = list(patterns.values())[int(values.nan_to_num().amax(1).argmax())]
    sums = {"queries": worst.sum(-2), "heads": worst.sum(1), "examples": worst.sum(0)}
    axis = next((name for name, total in sums.items() if float((total[total > 0] - 1).abs().max()) < limit), None)
    cause = f"the softmax runs over {axis} instead of keys" if axis else "weights are changed after the softmax, or there is none"
    return result, this.found(
        _heads(values > limit, list(patterns)), f"a row's sum is up to {_worst(values):.3g} away from 1", cause, _worst(values)
    )


@check(
    "attention is uniform",
    1e-4,
    "the logarithms of a token's shares differ by more than 1e-4 (standard deviation over the keys it sees)",
    "equal scores leave rounding, 1e-6; untrained models with weights of 0.02 and width 16 have 5e-3, wider ones more",
)
def uniform_attention(reading: Reading, this: Check) -> Outcome:
    patterns, seen = _patterns(reading), reading.visible
    rows = _rows_with_choice(reading)
    spread = {}
    for layer, pattern in patterns.items():
        logs = _centred(pattern.double().clamp_min(1e-40).log(), seen)
        deviation = (logs.square().sum(-1) / seen.sum(-1)).sqrt()
        spread[layer] = _over_real(deviation, rows)
    values = _stacked(spread)
    result = this.per_head(values, list(patterns), "standard deviation of log shares")
    flat = values < this.limit
    if not bool(flat.any()):
        return result, None
    low = float(values[~values.isnan()].min())
    cause = "scores do not depend on the tokens: queries or keys are zero, scores are overwritten, or every key is masked alike"
    return result, this.found(
        _heads(flat, list(patterns)), f"log shares spread by {low:.2g} only: entropy is maximal", cause, low
    )


@check(
    "attention has collapsed",
    0.5,
    "in at most half of the rows, the second largest share is below 6e-8 of the largest",
    "6e-8 is float32's rounding: past it the softmax passes no gradient to queries and keys, and training cannot mend it",
)
def collapsed_attention(reading: Reading, this: Check) -> Outcome:
    patterns, rows = _patterns(reading), _rows_with_choice(reading)
    shares, entropies = {}, {}
    for layer, pattern in patterns.items():
        first, second = pattern.topk(2, dim=-1).values.unbind(-1)
        shares[layer] = _over_real((second <= 6e-8 * first).to(pattern), rows)
        entropies[layer] = _over_real(-torch.xlogy(pattern, pattern).sum(-1), rows)
    values, entropy = _stacked(shares), _stacked(entropies)
    result = this.per_head(values, list(patterns), "share of rows")
    over = values > this.limit
    if not bool(over.any()):
        return result, None
    evidence = f"up to {_worst(values):.0%} of rows look at one key alone; entropy {float(entropy[over].mean()):.2g} nats"
    cause = "scores are far too large: weights initialised or grown too large, or the scale 1/√d_head missing"
    return result, this.found(_heads(over, list(patterns)), evidence, cause, _worst(values))


@check(
    "scale of the scores",
    3.0,
    "scores are queries · keys / √d_head (or times what the model's cfg states), within a factor of 3",
    "the slope of log shares on q · k, judged where that line is all but exact (r² > 0.999); heads narrower than 9 do without",
)
def scale_of_scores(reading: Reading, this: Check) -> Outcome:
    patterns, queries, keys = _patterns(reading), reading.layers("q"), reading.layers("k")
    seen = reading.visible & rearrange(reading.real, "batch query -> batch 1 query 1")
    ratios = {}
    for layer, pattern in patterns.items():
        if layer not in queries or layer not in keys or queries[layer].shape != keys[layer].shape or queries[layer].ndim != 4:
            continue
        product = einsum(queries[layer].double(), keys[layer].double(), "b query head d, b key head d -> b head query key")
        if product.shape != pattern.shape:
            continue
        told = seen & (pattern > 1e-30)
        x, y = _centred(product, told), _centred(pattern.double().clamp_min(1e-40).log(), told)
        xy, xx, yy = (reduce(a * b, "b head query key -> head", "sum") for a, b in ((x, y), (x, x), (y, y)))
        scale = reading.scale or queries[layer].shape[-1] ** -0.5
        fits = (xy.square() > 0.999 * xx * yy) & (xx > 0) & (yy > 0)
        ratios[layer] = torch.where(fits, xy / xx / scale, torch.nan)
    if not ratios or bool(_stacked(ratios).isnan().all()):
        raise NotApplicable("the scores are not a multiple of q · k here (positions enter in between), or q and k are not hooked")
    values = _stacked(ratios)
    result = this.per_head(values, list(ratios), "times what it should be")
    off = values.log().abs() > math.log(this.limit)
    if not bool(off.any()):
        return result, None
    most = float(values[off][values[off].log().abs().argmax()])
    evidence = f"scores are {most:.3g} times what they should be"
    return result, this.found(_heads(off, list(ratios)), evidence, "the scale 1/√d_head is missing or wrong", most)


@check(
    "attention to the future",
    1e-4,
    "in a causal model, tokens after a query get less than 1e-4 of its attention",
    "a causal mask leaves them exactly 0, or e^-10000; without one they get about half",
)
def attention_to_the_future(reading: Reading, this: Check) -> Outcome:
    if not reading.causal:
        raise NotApplicable("the model is bidirectional" if reading.causal is False else "nothing says that the model is causal")
    patterns = _patterns(reading)
    rows = reading.real.clone()
    rows[:, -1] = False
    future = {layer: _over_real(p.triu(1).sum(-1), rows) for layer, p in patterns.items()}
    rows[:, 0] = False
    past = _stacked({layer: _over_real(p.tril(-1).sum(-1), rows) for layer, p in patterns.items()})
    values = _stacked(future)
    result = this.per_head(values, list(patterns), "share of attention")
    over = values > this.limit
    if not bool(over.any()):
        return result, None
    cause = "the causal mask is missing"
    if bool((past[over] < this.limit).all()):
        cause = "the causal mask is transposed: earlier tokens are hidden and later ones shown"
    evidence = f"up to {_worst(values):.3g} of the attention is on later tokens"
    return result, this.found(_heads(over, list(patterns)), evidence, cause, _worst(values))


@check(
    "output depends on later tokens",
    1e-3,
    "in a causal model, exchanging later tokens changes earlier logits by less than a thousandth of their spread",
    "nothing but rounding, about 1e-6, can change them",
)
def depends_on_later_tokens(reading: Reading, this: Check) -> Outcome:
    if reading.earlier is None or reading.logits is None:
        raise NotApplicable("not causal, or no logits at every position")
    half = reading.tokens.shape[1] // 2
    change, spread = relative_change(reading.logits[:, :half], reading.earlier[:, :half])
    result = this.per_layer(torch.tensor([change]), ["logits"], "of the logits' spread")
    if not change > this.limit:
        return result, None
    evidence = f"logits of the first {half} positions change by {change:.3g} of their spread ({spread:.3g})"
    return result, this.found("logits", evidence, "information flows back from later tokens: mask, shift or pooling", change)


def _of_real(reading: Reading, site: Site) -> Tensor:
    """What stands at real tokens: what is at padding is never read."""
    tensor = reading.at[site]
    if site.kind == "pattern" and tensor.ndim == 4:
        tensor = rearrange(tensor, "batch head query key -> batch query head key")
    return tensor[reading.real] if tensor.shape[:2] == reading.real.shape else tensor


def _patterns(reading: Reading) -> dict[int, Tensor]:
    found = {layer: p for layer, p in reading.layers("pattern").items() if p.ndim == 4 and bool(p.isfinite().all())}
    found = {layer: p for layer, p in found.items() if (len(p), *p.shape[2:]) == (*reading.real.shape, reading.real.shape[1])}
    if not found:
        raise NotApplicable("the model has no attention pattern that can be read, or it is not finite")
    return found


def _row_errors(reading: Reading, patterns: dict[int, Tensor]) -> PerHead:
    rows = rearrange(reading.real, "batch query -> batch 1 query")
    return _stacked({layer: ((p.sum(-1) - 1).abs() * rows).amax((0, 2)) for layer, p in patterns.items()})


def _rows_with_choice(reading: Reading) -> Bool[Tensor, "batch query"]:
    rows = reading.real & (reduce(reading.visible, "batch 1 query key -> batch query", "sum") > 1)
    if not bool(rows.any()):
        raise NotApplicable("no token sees more than one key")
    return rows


def _over_real(values: Float[Tensor, "batch head query"], rows: Bool[Tensor, "batch query"]) -> Float[Tensor, " head"]:
    """Mean over the rows that count."""
    kept = torch.where(rearrange(rows, "batch query -> batch 1 query"), values.double(), 0.0)
    return reduce(kept, "batch head query -> head", "sum") / rows.sum()


def _centred(values: Tensor, seen: Tensor) -> Tensor:
    """Minus their mean over the keys that are seen; 0 elsewhere."""
    n = seen.sum(-1, keepdim=True).clamp_min(1)
    mean = torch.where(seen, values, 0.0).sum(-1, keepdim=True) / n
    return torch.where(seen, values - mean, 0.0)


def _stacked(by_layer: dict[int, Tensor]) -> PerHead:
    """One row per layer; NaN where a layer has fewer heads than another."""
    return torch.nn.utils.rnn.pad_sequence(list(by_layer.values()), batch_first=True, padding_value=math.nan)


def _worst(values: Tensor) -> float:
    return float(values[~values.isnan()].max())


def _heads(over: Tensor, layers: Sequence[int]) -> str:
    parts = []
    for layer, row in zip(layers, over.tolist(), strict=True):
        heads = [head for head, is_over in enumerate(row) if is_over]
        if heads:
            parts.append(f"layer {layer}, " + ("all heads" if len(heads) == len(row) else f"head {', '.join(map(str, heads))}"))
    return "; ".join(parts)


def relative_change(before: Tensor, after: Tensor) -> tuple[float, float]:
    """The largest change over the standard deviation of what it changes, and that deviation."""
    spread = float(before.double().std()) if before.numel() > 1 else 0.0
    largest = float((before.double() - after.double()).abs().max())
    return (largest / spread if spread else float(largest > 0)), spread
