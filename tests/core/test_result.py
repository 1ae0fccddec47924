"""Results: parts that must fit, tables, and files that come back equal."""

from pathlib import Path

import pytest
import torch

from interp.errors import InterpError, ResultError
from interp.result import Provenance, Result, mean_over_examples


def scores() -> Result:
    values = torch.tensor([[0.1, 0.9, 0.2], [0.3, float("nan"), 0.4]], dtype=torch.float64)
    return Result(
        name="induction",
        values=values,
        stderr=values / 10,
        axes=("layer", "head"),
        labels={"layer": ("3", "4")},
        baseline=torch.tensor([[0.05], [0.06]], dtype=torch.float64),
        count=7,
        unit="share",
        description="<attention>",
        provenance=Provenance(model="toy", seed=3, versions={"torch": "2"}),
    )


def test_top_skips_what_is_undefined() -> None:
    top = scores().top(9)
    assert top["value"].tolist() == [0.9, 0.4, 0.3, 0.2, 0.1]
    assert top.iloc[0].to_dict() == pytest.approx({"layer": 3, "head": 1, "value": 0.9, "stderr": 0.09, "baseline": 0.05})


def test_a_part_keeps_its_labels() -> None:
    row = scores().at(layer=1)
    assert row.axes == ("head",)
    assert row.values[2] == 0.4
    assert row.baseline[0] == 0.06
    assert scores().at(layer=0, head=1).item() == 0.9
    with pytest.raises(ResultError, match="Did you mean 'layer'"):
        scores().at(layr=0)
    with pytest.raises(ResultError, match="6 values"):
        scores().item()


def test_files_come_back_equal(tmp_path: Path) -> None:
    saved, loaded = scores(), Result.load(scores().save(tmp_path / "deep" / "scores.json"))
    assert torch.equal(
        saved.values,
        loaded.values,
    ) or torch.equal(saved.values.nan_to_num(-1), loaded.values.nan_to_num(-1))
    assert torch.equal(torch.as_tensor(saved.baseline), torch.as_tensor(loaded.baseline))
    for field in ("name", "axes", "labels", "count", "unit", "description", "provenance"):
        assert getattr(saved, field) == getattr(loaded, field)
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["scores.json"]


@pytest.mark.parametrize("content", ["", "[1]", '{"format": "other"}'])
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ResultError):
        Result.load(tmp_path / "x.json")


def test_parts_that_do_not_fit_are_refused() -> None:
    values = torch.zeros(2, 3)
    with pytest.raises(ResultError, match="axes"):
        Result(name="x", values=values, axes=("layer",))
    with pytest.raises(ResultError, match="labels"):
        Result(name="x", values=values, axes=("layer", "head"), labels={"head": ("a", "b")})
    with pytest.raises(ResultError, match="stderr"):
        Result(name="x", values=values, axes=("layer", "head"), stderr=torch.zeros(3, 2))
    with pytest.raises(ResultError, match="infinite"):
        Result(name="x", values=torch.full((2, 3), torch.inf), axes=("layer", "head"))


def test_mean_and_standard_error_by_hand() -> None:
    nan = float("nan")
    mean, stderr = mean_over_examples(torch.tensor([[1.0, 1.0, nan], [3.0, nan, nan], [8.0, nan, nan]]))
    assert mean[:2].tolist() == [4.0, 1.0]
    assert mean[2].isnan()
    assert stderr is not None
    assert stderr[0].item() == pytest.approx((13 / 3) ** 0.5)
    assert stderr[1:].isnan().all(), "one example has no spread"
    assert mean_over_examples(torch.ones(1, 4))[1] is None


def test_the_notebook_display_is_escaped_and_the_plot_drawn() -> None:
    assert "&lt;attention&gt;" in scores()._repr_html_()
    assert scores().plot().axes
    assert scores().at(layer=0).plot().axes
    cube = Result(name="x", values=torch.zeros(2, 3, 4), axes=("a", "b", "c"))
    with pytest.raises(ResultError, match=r"\.at"):
        cube.plot()


def test_errors_say_what_is_true_and_survive_pickling() -> None:
    import pickle

    error = ResultError("asked", "truth", "Remedy")
    assert str(error) == "asked: truth. Remedy"
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, InterpError)
    assert again.remedy == "Remedy"


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("bad", [{"axis": 9}, {"layer": 2}, {"layer": -3}, {"head": "1"}, {"head": 1.0}])
def test_a_place_that_is_not_there(bad: dict) -> None:
    with pytest.raises(ResultError):
        scores().at(**bad)


def test_results_can_be_compared_and_put_in_sets() -> None:
    one, other = scores(), scores()
    assert one != other and len({one, other}) == 2


@pytest.mark.parametrize(
    "damage",
    [
        {"provenance": {"unknown": 1}},
        {"values": "text"},
        {"values": [[1.0], [2.0, 3.0]]},
        {"labels": 3},
        {"axes": None},
    ],
)
def test_a_damaged_file_is_a_result_error(damage: dict) -> None:
    whole = scores().to_json()
    with pytest.raises(ResultError):
        Result.from_json(whole | damage)
    with pytest.raises(ResultError, match="values"):
        Result.from_json({key: value for key, value in whole.items() if key != "values"})


@pytest.mark.parametrize(
    "part", [{"baseline": float("inf")}, {"stderr": torch.tensor([0.0, torch.inf])}, {"baseline": torch.zeros(3)}]
)
def test_parts_that_could_not_be_saved_or_compared_are_refused(part: dict) -> None:
    with pytest.raises(ResultError):
        Result(name="x", values=torch.zeros(2), axes=("a",), **part)


def test_an_undefined_baseline_survives_saving(tmp_path: Path) -> None:
    path = Result(name="x", values=torch.zeros(2), axes=("a",), baseline=float("nan")).save(tmp_path / "x.json")
    assert Result.load(path).baseline is None
