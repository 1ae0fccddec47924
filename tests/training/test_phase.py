"""Phase changes: found where curves were made with one, at the step they were made with; not found in noise or drift."""

import numpy as np
import pytest
import torch

from interp.errors import ResultError
from interp.result import Result
from interp.training import PhaseChange, phase_change

STEPS = np.unique(np.round(np.geomspace(1, 3000, 18)))
X = np.log(STEPS)


def sigmoid(t50: float, width: float = 0.5, height: float = 0.8, before: float = 0.1) -> np.ndarray:
    """A curve whose 10–90 % width is `width` decades."""
    return before + height / (1 + np.exp(-(X - np.log(t50)) * 2 * np.log(9) / (width * np.log(10))))


def timeline(curves: list[np.ndarray], step_zero: bool = False) -> Result:
    steps = [0, *STEPS] if step_zero else list(STEPS)
    curves = [np.concatenate([[99.0], curve]) for curve in curves] if step_zero else curves
    return Result(
        name="induction",
        values=torch.from_numpy(np.stack(curves)),
        axes=("seed", "step"),
        labels={"step": tuple(str(int(step)) for step in steps), "seed": tuple(map(str, range(len(curves))))},
    )


def numbers(found: PhaseChange) -> dict[str, list[float]]:
    return dict(zip(found.numbers.labels_of("quantity"), found.numbers.values.tolist(), strict=True))


@pytest.mark.parametrize(
    ("t50", "width", "height", "before"), [(300, 0.5, 0.8, 0.1), (40, 0.8, -2.0, 4.0), (100.0, 0.3, 1e-4, 0.0)]
)
def test_known_curves_are_found_exactly(t50: float, width: float, height: float, before: float) -> None:
    found = phase_change(timeline([sigmoid(t50, width, height, before)], step_zero=True))
    assert found.found
    got = {name: values[0] for name, values in numbers(found).items()}
    assert got["t50"] == pytest.approx(t50, rel=0.01)
    assert got["width"] == pytest.approx(width, rel=0.03)
    assert got["height"] == pytest.approx(height, rel=0.01)
    assert [got["before"], got["after"]] == pytest.approx([before, before + height], abs=0.01 * abs(height))
    assert np.log10(got["t90"] / got["t10"]) == pytest.approx(got["width"])
    assert got["t10"] * got["t90"] == pytest.approx(got["t50"] ** 2)
    assert np.isnan(numbers(found)["t50"][1:]).all(), "no interval from one seed"


def test_the_interval_is_over_seeds() -> None:
    noise = np.random.default_rng(0)
    middles = [200, 260, 320, 400, 500]
    found = phase_change(timeline([sigmoid(middle) + 0.01 * noise.standard_normal(len(X)) for middle in middles]))
    middle, low, high = numbers(found)["t50"]
    assert found.share == 1.0
    assert middle == pytest.approx(320, rel=0.05)
    assert 190 < low < middle < high < 520
    assert [row[0] for row in found.per_seed.values.tolist()] == pytest.approx(middles, rel=0.07)
    again = phase_change(timeline([sigmoid(one) for one in middles]))
    assert "phase change at step 32" in str(again)
    narrow = numbers(phase_change(timeline([sigmoid(320)] * 5)))["t50"]
    assert narrow == pytest.approx([320] * 3, rel=0.01)


@pytest.mark.parametrize("kind", ["noise", "drift", "linear in steps", "square root", "power law", "spike"])
def test_what_is_no_phase_change(kind: str) -> None:
    random = np.random.default_rng(1)
    curves = {
        "noise": lambda: 0.02 * random.standard_normal(len(X)),
        "drift": lambda: 0.05 * X + 0.01 * random.standard_normal(len(X)),
        "linear in steps": lambda: STEPS / 3000 + 0.01 * random.standard_normal(len(X)),
        "square root": lambda: np.sqrt(STEPS / 3000) + 0.01 * random.standard_normal(len(X)),
        "power law": lambda: 4 * STEPS**-0.3 + 0.02 * random.standard_normal(len(X)),
        "spike": lambda: np.where(np.arange(len(X)) == 6, 1.0, 0.0) + 0.01 * random.standard_normal(len(X)),
    }
    found = phase_change(timeline([curves[kind]() for _ in range(6)]))
    assert not found.found
    assert found.share == 0.0
    assert found.numbers.values.isnan().all()
    assert found.per_seed.values.isnan().all()
    assert str(found).startswith("no phase change (0% of seeds)")


def test_why_not() -> None:
    assert phase_change(timeline([np.full(len(X), 0.25)])).reasons == ("it is constant",)
    assert "plateau is missing" in phase_change(timeline([sigmoid(2500, width=0.6)])).reasons[0]
    small = phase_change(timeline([sigmoid(300, height=0.1)]), smallest=0.3)
    assert small.reasons == ("its height is below what counts",)
    mixed = phase_change(timeline([sigmoid(300), sigmoid(300), sigmoid(300, height=-0.5)]))
    assert mixed.reasons == ("changes", "changes", "it changes the other way than most")
    assert mixed.share == pytest.approx(2 / 3)
    assert mixed.per_seed.values[2].isnan().all()
    split = phase_change(timeline([sigmoid(300), np.zeros(len(X)), np.zeros(len(X)), sigmoid(200)]))
    assert not split.found, "half of the seeds are not most of them"


def test_a_change_must_exceed_what_the_null_does() -> None:
    null = timeline([sigmoid(110, 0.6, -0.05), sigmoid(150, 0.6, -0.04)])
    assert phase_change(null).found, "a small change is one"
    assert not phase_change(null, null=null).found
    assert phase_change(timeline([sigmoid(300)]), null=null).found
    assert not phase_change(timeline([sigmoid(300, height=0.09)]), null=null).found
    assert phase_change(timeline([sigmoid(300, height=0.11)]), null=null).found


def test_timelines_that_cannot_be_fitted() -> None:
    good = timeline([sigmoid(300)])
    with pytest.raises(ResultError, match="its axes are"):
        phase_change(good.at(seed=0))
    few = Result(name="m", values=torch.zeros(1, 5), axes=("seed", "step"), labels={"step": tuple("01248")})
    with pytest.raises(ResultError, match="1 seeds with 4 readings after step 0"):
        phase_change(few)
    named = Result(name="m", values=torch.zeros(1, 2), axes=("seed", "step"), labels={"step": ("early", "late")})
    with pytest.raises(ResultError, match="no numbers"):
        phase_change(named)
    holes = good.values.clone()
    holes[0, :12] = torch.nan
    with pytest.raises(ResultError, match="1 seeds with 6 readings"):
        phase_change(Result(name="m", values=holes, axes=good.axes, labels=good.labels))
