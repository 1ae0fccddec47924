"""Finding a phase change in a timeline: a plateau, a sigmoid rise or fall in log steps, and a plateau."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from interp.display import number
from interp.errors import ResultError
from interp.result import Result
from interp.seeds import seed_for

QUANTITIES = ("t50", "t10", "t90", "width", "height", "before", "after")
FEWEST = 8
TENTHS = math.log(9.0)  # a sigmoid is at 0.9 this many scales after its middle
RESAMPLES = 2000
N_MIDDLES, N_SCALES = 121, 48


@dataclass(frozen=True)
class PhaseChange:
    """Whether curves have a phase change, and where.

    `found`: more than half of the seeds have one, in the same direction; `share` is their share. `numbers` has axes (quantity,
    part), part being the median over the seeds that have one and the bounds of its interval (NaN with one seed, or when not
    found). `per_seed` has axes (seed, quantity), NaN for a seed without one, and `reasons` says for every seed why it counts as
    one or not.

    Quantities: `t50`, `t10`, `t90`, the steps at which half, a tenth and nine tenths of the change are done; `width`, log10 of
    t90 / t10 (decades); `height`, after minus before; `before` and `after`, the plateaus.
    """

    found: bool
    share: float
    numbers: Result
    per_seed: Result
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        if not self.found:
            return f"no phase change ({self.share:.0%} of seeds): {'; '.join(dict.fromkeys(self.reasons))}"
        middle, low, high = self.numbers.values[0].tolist()
        bounds = "" if math.isnan(low) else f" (between {number(low)} and {number(high)})"
        width, height = self.numbers.values[[3, 4], 0].tolist()
        return f"phase change at step {number(middle)}{bounds}, {width:.2g} decades wide, height {height:.3g}"


def phase_change(
    timeline: Result,
    *,
    null: Result | None = None,
    smallest: float = 0.0,
    gain: float = 0.5,
    confidence: float = 0.95,
    seed: int = 0,
) -> PhaseChange:
    """Fit plateau–sigmoid–plateau in log steps to each seed of a timeline, axes (seed, step), and say whether it is there.

    A seed has a phase change when all hold: (1) left-out readings are predicted with at least `gain` less squared error than by
    the better of a constant and a line in log step (each reading left out in turn), so that noise and slow drift do not pass;
    (2) both plateaus are seen: at least two readings up to t10 and two from t90 on; (3) the height is at least three times the
    standard deviation of the residuals, at least `smallest` (in the timeline's unit: what you would call a change), and more than
    twice the range of any curve of `null`, the same timeline of models that cannot have the change (a one-layer model without
    smear, for induction: its score moves too as it trains, by a real 0.05 or so; without `null` or `smallest` that counts).

    In simulations (8 to 40 readings) white noise, lines in log step, power laws and curves linear in steps never passed; a random
    walk did in up to one seed of seven, so judge by several seeds.

    The interval is that of the median under resampling of seeds (`confidence`, 2000 resamples from a stream of its own). Reading
    at step 0 is left out. Assumes one change; of several, the largest is fitted. Raises `ResultError` for other axes, fewer than
    8 defined readings, and steps that are no numbers. Cost: about 0.05 s a seed for 20 readings.
    """
    steps, curves = _curves(timeline)
    if null is not None:
        smallest = max(smallest, math.nextafter(2 * float(np.ptp(_curves(null)[1], axis=1).max()), math.inf))
    judged = [_judged(steps, curve, gain, smallest) for curve in curves]
    per_seed = np.array([[fit[name] for name in QUANTITIES] for fit, _ in judged])
    heights = per_seed[:, QUANTITIES.index("height")]
    changes = np.array([reason == "changes" for _, reason in judged])
    rises = 2 * (heights[changes] > 0).sum() >= changes.sum()
    changed = changes & ((heights > 0) == rises)
    reasons = [
        "it changes the other way than most" if one and not kept else reason
        for (_, reason), one, kept in zip(judged, changes, changed, strict=True)
    ]
    share = float(changed.mean())
    numbers = np.full((len(QUANTITIES), 3), np.nan)
    if share > 0.5:
        kept = per_seed[changed]
        numbers[:, 0] = np.median(kept, axis=0)
        if len(kept) > 1:
            numbers[:, 1:] = _interval(kept, confidence, seed)
    per_seed[~changed] = np.nan
    about = f"of {timeline.name}: plateau, sigmoid, plateau in log steps; {int(changed.sum())} of {len(changed)} seeds change"
    return PhaseChange(
        found=share > 0.5,
        share=share,
        numbers=Result(
            name="phase change",
            values=torch.from_numpy(numbers),
            axes=("quantity", "part"),
            labels={"quantity": QUANTITIES, "part": ("median", "low", "high")},
            count=len(curves),
            unit="steps; width in decades; height, before and after as the curve",
            description=about,
            provenance=timeline.provenance,
        ),
        per_seed=Result(
            name="phase change per seed",
            values=torch.from_numpy(per_seed),
            axes=("seed", "quantity"),
            labels={"seed": timeline.labels_of("seed"), "quantity": QUANTITIES},
            unit="steps; width in decades; height, before and after as the curve",
            description=about,
            provenance=timeline.provenance,
        ),
        reasons=tuple(reasons),
    )


def _curves(timeline: Result) -> tuple[ndarray, ndarray]:
    asked = f"phase change of {timeline.name!r}"
    if timeline.axes != ("seed", "step"):
        raise ResultError(asked, f"its axes are {timeline.axes}", "Give a result of interp.training.timeline, axes (seed, step)")
    try:
        steps = np.array([float(label) for label in timeline.labels_of("step")])
    except ValueError:
        raise ResultError(asked, "its steps are no numbers", "Label the step axis with step numbers") from None
    values = timeline.values.detach().cpu().to(torch.float64).numpy()
    usable = (steps > 0) & ~np.isnan(values).any(0)
    if int(usable.sum()) < FEWEST or not len(values):
        raise ResultError(
            asked,
            f"{len(values)} seeds with {int(usable.sum())} readings after step 0",
            f"Read at {FEWEST} or more steps (train.n_evals)",
        )
    order = np.argsort(steps[usable])
    return steps[usable][order], values[:, usable][:, order]


def _judged(steps: ndarray, curve: ndarray, gain: float, smallest: float) -> tuple[dict[str, float], str]:
    """The fit of one curve, and 'changes' or why it does not count as a phase change."""
    x = np.log(steps)
    low, height, middle, scale, residual = (part[0] for part in _fitted(x, curve[None], np.ones((1, len(x)))))
    found = dict(
        t50=math.exp(middle),
        t10=math.exp(middle - TENTHS * scale),
        t90=math.exp(middle + TENTHS * scale),
        width=2 * TENTHS * scale / math.log(10),
        height=height,
        before=low,
        after=low + height,
    )
    spread = float(np.ptp(curve))
    if spread <= 1e-12 * max(1.0, float(np.abs(curve).max())):
        return found, "it is constant"
    simple, sigmoid = _left_out_errors(x, curve)
    if sigmoid > (1 - gain) * simple:
        return found, "a constant or a line in log step predicts left-out readings about as well"
    if (steps <= found["t10"]).sum() < 2 or (steps >= found["t90"]).sum() < 2:
        return found, "a plateau is missing: it still changes where the readings begin or end"
    noise = math.sqrt(residual / max(1, len(x) - 4))
    if abs(height) < max(smallest, 3 * noise):
        return found, "its height is within the noise" if abs(height) < 3 * noise else "its height is below what counts"
    return found, "changes"


def _left_out_errors(x: ndarray, curve: ndarray) -> tuple[float, float]:
    """Mean squared error on each reading left out in turn: of the better of constant and line, and of the sigmoid."""
    n = len(x)
    weights = 1.0 - np.eye(n)
    low, height, middle, scale, _ = _fitted(x, np.repeat(curve[None], n, 0), weights)
    sigmoid = low + height * _sigmoid((x - middle) / scale)
    others = [weights[i].astype(bool) for i in range(n)]
    constant = np.array([curve[kept].mean() for kept in others])
    line = np.array([np.polyval(np.polyfit(x[kept], curve[kept], 1), x[i]) for i, kept in enumerate(others)])
    simple = min(float(np.mean((prediction - curve) ** 2)) for prediction in (constant, line))
    return simple, float(np.mean((sigmoid - curve) ** 2))


def _fitted(x: ndarray, curves: ndarray, weights: ndarray) -> tuple[ndarray, ...]:
    """Weighted least squares per row of `curves` [fit reading]: low, height, middle, scale, and the sum of squared residuals.

    A grid of middles and scales, with the plateaus in closed form; then finer grids around the best.
    """
    span = float(x[-1] - x[0])
    step, ratio = span / (N_MIDDLES - 1), (span / max(0.25 * float(np.diff(x).min()), span / 500)) ** (1 / (N_SCALES - 1))
    middles = np.tile(x[0] + step * np.arange(N_MIDDLES), N_SCALES)
    scales = np.repeat(span / ratio ** np.arange(N_SCALES), N_MIDDLES)
    parts = _best(x, curves, weights, middles[None], scales[None])
    around = np.linspace(-1, 1, 13)
    for _ in range(3):
        middles = parts[2][:, None] + step * np.tile(around, 13)
        scales = parts[3][:, None] * ratio ** np.repeat(around, 13)
        parts = _best(x, curves, weights, middles, scales)
        step, ratio = step / 4, ratio**0.25
    return parts


def _best(x: ndarray, curves: ndarray, weights: ndarray, middles: ndarray, scales: ndarray) -> tuple[ndarray, ...]:
    """The best of each fit's candidates [fit candidate] (or [1 candidate] for all): the plateaus solve a regression."""
    shapes = _sigmoid((x - middles[..., None]) / scales[..., None])  # fit candidate reading
    total = weights.sum(1)[:, None]
    mean_y, mean_yy = ((weights * curves**power).sum(1)[:, None] / total for power in (1, 2))
    mean_s, mean_ss, mean_sy = (
        (of @ by[..., None])[..., 0] / total for of, by in ((shapes, weights), (shapes**2, weights), (shapes, weights * curves))
    )
    covariance, variance = mean_sy - mean_s * mean_y, mean_ss - mean_s**2
    height = np.where(variance > 1e-9, covariance / np.maximum(variance, 1e-9), 0.0)
    residual = np.maximum(mean_yy - mean_y**2 - height * covariance, 0.0) * total
    rows, best = np.arange(len(curves)), residual.argmin(1)
    place = rows if len(middles) == len(curves) else np.zeros_like(rows)
    low = mean_y[:, 0] - height[rows, best] * mean_s[rows, best]
    return low, height[rows, best], middles[place, best], scales[place, best], residual[rows, best]


def _sigmoid(z: Any) -> Any:
    return 0.5 * (1 + np.tanh(0.5 * z))


def _interval(values: ndarray, confidence: float, seed: int) -> Float[ndarray, "quantity 2"]:
    generator = torch.Generator().manual_seed(seed_for("phase change", seed))
    drawn: Tensor = torch.randint(len(values), (RESAMPLES, len(values)), generator=generator)
    medians = np.median(values[drawn.numpy()], axis=1)
    tail = (1 - confidence) / 2
    return np.quantile(medians, [tail, 1 - tail], axis=0).T
