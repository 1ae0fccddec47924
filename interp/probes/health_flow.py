"""The checks of `interp.diagnose` that follow the residual stream, gradients, units and dropout; added to `CHECKS`."""

import torch
from jaxtyping import Float
from torch import Tensor

from interp.probes.health_checks import (
    FEW_TOKENS,
    GAIN_ERROR,
    Check,
    NotApplicable,
    Outcome,
    check,
    relative_change,
)
from interp.probes.health_reading import Reading

PATHS = {
    "stream": "what enters the layer",
    "attention": "what its attention adds",
    "MLP": "what its MLP adds",
}


@check(
    "residual path",
    0.0,
    "with attention and MLP held fixed, resid_post follows resid_pre; and it follows what each of the two adds",
    "the gradient along a missing path is exactly 0, along one that is there never",
)
def residual_path(reading: Reading, this: Check) -> Outcome:
    paths = _paths(reading)
    layers = sorted(paths["stream"])
    gains = {
        name: torch.stack([followed.get(n, torch.full((2,), torch.nan))[1] for n in layers]) for name, followed in paths.items()
    }
    broken = {name: [n for n, gain in zip(layers, gain.tolist(), strict=True) if gain == 0] for name, gain in gains.items()}
    result = this.per_layer(gains["stream"], layers, "cosine with an unchanged stream; 0: no path")
    missing = [name for name, where in broken.items() if where]
    if not missing:
        return result, None
    where = "; ".join(f"layer {', '.join(map(str, broken[name]))}" for name in missing)
    lost = " and ".join(PATHS[name] for name in missing)
    causes = {
        "stream": "the residual connection is missing or around the wrong sum: a token knows itself only by what attention tells",
        "attention": "the residual goes around the wrong sum: attention's output is not in the stream that the MLP is added to",
        "MLP": "the MLP's output is computed and not added",
    }
    evidence = f"with attention and MLP held fixed, resid_post does not change with {lost}: gradient exactly 0"
    return result, this.found(where, evidence, causes[missing[0]], 0.0)


@check(
    "stream is rescaled",
    GAIN_ERROR,
    "where the stream is passed on in its own direction, it is passed on once: a gain of 1, to a thousandth",
    "a sum of stream and additions has gain 1 to rounding; a norm after the sum turns the direction and is not judged",
)
def stream_is_rescaled(reading: Reading, this: Check) -> Outcome:
    followed = _paths(reading)["stream"]
    straight = {n: pair[0] for n, pair in followed.items() if pair[1] > 1 - 1e-6}
    if not straight:
        raise NotApplicable("no layer passes the stream on in its own direction (norms after the sum)")
    gains = torch.stack(list(straight.values()))
    result = this.per_layer(gains, list(straight), "gain")
    wrong = (gains - 1).abs() > this.limit
    if not bool(wrong.any()):
        return result, None
    worst = float(gains[(gains - 1).abs().argmax()])
    where = ", ".join(f"layer {n}" for n, is_wrong in zip(straight, wrong.tolist(), strict=True) if is_wrong)
    cause = (
        "the residual goes around the wrong sum: the stream is added again"
        if worst > 1.5
        else "the sum is multiplied by a factor"
    )
    return result, this.found(where, f"resid_pre enters resid_post {worst:.3g} times", cause, worst)


@check(
    "attention is not used",
    0.0,
    "the loss depends on what each layer's attention brings (z, or attn_out)",
    "the gradient is exactly 0 only if nothing downstream reads it",
)
def attention_not_used(reading: Reading, this: Check) -> Outcome:
    sizes: dict[int, float] = {}
    if reading.logits is not None and not _finite(reading.logits):
        raise NotApplicable("logits are not finite")
    for site, slope in reading.slopes.items():
        if site.kind in ("z", "attn_out") and site.layer is not None:  # a bridge shows z as a copy, which nothing depends on
            sizes[site.layer] = max(sizes.get(site.layer, 0.0), float(slope.double().norm()))
    if not sizes or not any(bool(slope.any()) for site, slope in reading.slopes.items() if site.kind == "resid_post"):
        raise NotApplicable(reading.unreadable.get("slopes", "no gradients were read, or z and attn_out are not hooked"))
    sizes = dict(sorted(sizes.items()))
    result = this.per_layer(torch.tensor(list(sizes.values())), list(sizes), "norm of the loss's gradient")
    unused = [str(layer) for layer, size in sizes.items() if size == 0]
    if not unused:
        return result, None
    cause = "attention's output is computed and thrown away: the residual goes around the wrong sum, or the graph is cut"
    return result, this.found(f"layer {', '.join(unused)}", "the loss's gradient at attention's output is exactly 0", cause, 0.0)


@check(
    "gradients vanish or explode",
    1e4,
    "|gradient| of the stream differs by less than 10,000 between layers, and |gradient| · |activation| by less than 1,000",
    "the product, free of the stream's scale, stays within 10 or so in residual networks; norms may grow some 100 times on top",
)
def gradients_by_layer(reading: Reading, this: Check) -> Outcome:
    slopes, stream = reading.stream(reading.slopes), reading.stream({site: reading.at[site] for site in reading.slopes})
    if len(slopes) < 2 or not bool(slopes[-1].any()):
        raise NotApplicable(reading.unreadable.get("slopes", "no gradients were read, or the loss has none"))
    size = torch.stack([slope.norm().cpu() for slope in slopes])
    flow = size * torch.stack([x.norm().cpu() for x in stream])
    if not bool(flow.isfinite().all()):
        raise NotApplicable("gradients or activations are not finite")
    result = this.per_layer(size, [*range(len(size) - 1), "end"], "norm of the loss's gradient")
    over = next((x for x, limit in ((size, this.limit), (flow, this.limit / 10)) if not _ratio(x) <= limit), None)
    if over is None:
        return result, None
    towards = "vanish" if float(over[0]) < float(over[-1]) else "explode"
    cause = {
        "vanish": "no residual path, a cut graph, saturated layers, or initial weights too small",
        "explode": "initial weights too large, or no norm where one belongs",
    }[towards]
    evidence = (
        f"gradients {towards} on the way to the first layer: norm {float(size[0]):.2g} there, {float(size[-1]):.2g} at the end"
    )
    return result, this.found("residual stream", evidence, cause, _ratio(over))


@check(
    "dead units",
    0.5,
    f"at most half of a layer's units are silent on every token of the batch ({FEW_TOKENS} tokens or more)",
    "a ReLU unit of an untrained layer fires on about every second token, of a trained one on a few in a hundred",
)
def dead_units(reading: Reading, this: Check) -> Outcome:
    units = {n: x[reading.real] for n, x in reading.layers("mlp_post").items() if x.shape[:2] == reading.real.shape}
    if not units:
        raise NotApplicable("mlp_post is not hooked")
    if int(reading.real.sum()) < FEW_TOKENS:
        raise NotApplicable(f"the batch has {int(reading.real.sum())} real tokens, fewer than {FEW_TOKENS}")
    shares = torch.stack([_silent(x).cpu() for x in units.values()])
    result = this.per_layer(shares, list(units), "share of units")
    if not bool((shares > this.limit).any()):
        return result, None
    where = ", ".join(f"layer {n}" for n, share in zip(units, shares.tolist(), strict=True) if share > this.limit)
    cause = (
        "their inputs are negative whatever the token: a bias gone far below 0, a learning rate too high, or weights too large"
    )
    return result, this.found(
        where, f"up to {float(shares.max()):.0%} of the units are silent on every token", cause, float(shares.max())
    )


@check(
    "norms grow with depth",
    10.0,
    "no layer multiplies the median norm of the stream by more than 30, nor each layer on average (3 or more) by more than 10",
    "normalised layers add about as much each, so norms grow as the layers' number; a first layer may outgrow a small embedding",
)
def norms_by_depth(reading: Reading, this: Check) -> Outcome:
    stream = reading.stream(reading.at)
    if len(stream) < 2:
        raise NotApplicable("resid_pre and resid_post are not hooked")
    norms = torch.stack([x.norm(dim=-1).median().cpu() for x in stream])
    if not bool(norms.isfinite().all()) or not bool((norms > 0).all()):
        raise NotApplicable("norms are zero or not finite")
    result = this.per_layer(norms, [*range(len(norms) - 1), "end"], "median norm")
    steps, mean = norms[1:] / norms[:-1], float((norms[-1] / norms[0]) ** (1 / (len(norms) - 1)))
    if not (float(steps.max()) > 3 * this.limit or (len(steps) >= 3 and mean > this.limit)):
        return result, None
    at = int(steps.argmax())
    ends = f"median norm {float(norms[0]):.3g} at the start and {float(norms[-1]):.3g} at the end"
    evidence = f"{ends}, ×{float(steps.max()):.3g} in layer {at}"
    return result, this.found(
        f"layer {at}", evidence, "initial weights too large, or a norm missing before a layer", float(steps.max())
    )


@check(
    "dropout on in eval",
    1e-3,
    "in eval mode two passes agree to a thousandth of the logits' spread, and no dropout module is in training mode",
    "without randomness they are equal, or differ by the rounding of a parallel sum",
)
def dropout_on_in_eval(reading: Reading, this: Check) -> Outcome:
    if reading.again is None or reading.logits is None:
        raise NotApplicable("read while training: only one pass, in the mode it was in")
    change, _ = relative_change(reading.logits, reading.again) if _finite(reading.logits) else (0.0, 0.0)
    result = this.per_layer(torch.tensor([change]), ["logits"], "of the logits' spread")
    left = list(reading.left_on or ())
    if not change > this.limit and not left:
        return result, None
    if left:
        shown = ", ".join(left[:4]) + (" …" if len(left) > 4 else "")
        cause = "eval() did not reach them: a train() that is overridden, or a mode set by hand"
        return result, this.found(
            shown, f"{len(left)} dropout modules are in training mode in a model in eval mode", cause, len(left)
        )
    cause = "dropout is applied whatever the mode: F.dropout without training=self.training, or noise of another kind"
    return result, this.found("logits", f"two passes differ by {change:.3g} of the logits' spread", cause, change)


def _paths(reading: Reading) -> dict[str, dict[int, Float[Tensor, "2"]]]:
    if not reading.residual:
        raise NotApplicable("the model says that it has no residual stream")
    if "stream" not in reading.paths:
        raise NotApplicable(reading.unreadable.get("paths", "not tried (needs finite logits and a call of its own)"))
    return reading.paths


def _silent(units: Float[Tensor, "token unit"]) -> Tensor:
    largest = units.abs().amax(0)
    return (largest <= 1e-6 * largest.max()).double().mean()


def _ratio(sizes: Float[Tensor, " layer"]) -> float:
    """Largest over smallest; infinite when the smallest is 0."""
    return float(sizes.max() / sizes.min())


def _finite(tensor: Tensor) -> bool:
    return bool(tensor.isfinite().all())
