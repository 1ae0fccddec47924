"""Results: parts that must fit, tables, and files that come back equal."""

import dataclasses
import itertools
import math
import re
from pathlib import Path
from typing import Any

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
    assert scores().at(layer="3", head=1).item() == 0.9  # by its label
    with pytest.raises(ResultError, match="Did you mean 'layer'"):
        scores().at(layr=0)
    named = Result(name="n", values=torch.tensor([1.0, 2.0]), axes=("score",), labels={"score": ("induction", "loss")})
    assert named.at(score="loss").item() == 2.0
    with pytest.raises(ResultError, match="none of the 2 labels.*Did you mean 'induction'.*or one of induction, loss"):
        named.at(score="inductoin")
    twice = Result(name="n", values=torch.tensor([1.0, 2.0]), axes=("pos",), labels={"pos": ("the", "the")})
    with pytest.raises(ResultError, match="2 of the 2 labels of axis 'pos' are that. Give an index"):
        twice.at(pos="the")
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


def heads(layers: int, heads: int, **more: Any) -> Result:
    values = torch.randn(layers, heads, generator=torch.Generator().manual_seed(layers)).double()
    return Result(name="a score", values=values, axes=("layer", "head"), **more)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


CELL = re.compile(r'<td title="([^"]*)"(?: style="background:#(\w{6});color:#(\w{3})")?>([^<]*)</td>')


def test_a_grid_is_a_small_table_in_which_every_value_can_be_read() -> None:
    grid = heads(12, 12, baseline=0.25, count=7, unit="nats")
    shown = dataclasses.replace(grid, values=grid.values.clone(), stderr=grid.values.abs() / 10)
    shown.values[3, 4] = torch.nan
    html = shown._repr_html_()
    assert len(html) < 30_000 and "<script" not in html and "http" not in html
    assert "layer (12) × head (12) · nats · over 7 examples · baseline 0.250" in html
    cells = CELL.findall(html)
    assert len(cells) == 144 and html.count('<th scope="row">') == 12
    largest = shown.values.abs().nan_to_num().max()
    for (hint, background, ink, text), value, place in zip(
        cells, shown.values.flatten().tolist(), itertools.product(range(12), range(12)), strict=True
    ):
        assert hint.startswith(f"layer {place[0]}, head {place[1]}: ")
        if math.isnan(value):
            assert (text, background) == ("–", "")
            continue
        assert float(hint.split()[4].replace("−", "-")) == pytest.approx(value, rel=1e-3) and "baseline 0.250" in hint
        assert float(text.replace("−", "-")) == pytest.approx(value, abs=0.005)
        bright, dark = sorted((luminance(background), luminance(ink * 2)), reverse=True)
        assert (bright + 0.05) / (dark + 0.05) >= 4.5, "the number is readable on its colour"
        red, blue = int(background[:2], 16), int(background[4:], 16)
        assert abs(value) < 0.01 * largest or (red > blue) == (value > 0), "red above zero, blue below"


def test_white_is_zero_and_full_colour_the_largest() -> None:
    for values, colours in (([0.0, 0.5, 2.0], ["ffffff", "08519c"]), ([0.0, -1.0, -2.0], ["ffffff", "08519c"])):
        cells = CELL.findall(Result(name="x", values=torch.tensor([values]), axes=("a", "b"))._repr_html_())
        assert [cells[0][1], cells[2][1]] == colours
    both = Result(name="x", values=torch.tensor([[3.0, -3.0]]), axes=("a", "b"))._repr_html_()
    assert [cell[1] for cell in CELL.findall(both)] == ["b2182b", "08519c"] and "blue −3.00, white 0, red 3.00" in both


ALLOWED = {"div", "p", "b", "small", "table", "thead", "tbody", "tr", "th", "td", "details", "summary"}
SHAPES: list[tuple[int, ...]] = [(), (1,), (7,), (30,), (2, 3), (0, 3), (40, 40), (3, 2, 4), (5, 12, 12), (2, 3, 4, 5)]


@pytest.mark.parametrize("shape", SHAPES)
def test_any_shape_is_shown_small_and_hostile_text_is_text(shape: tuple[int, ...]) -> None:
    bad = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\ud800"
    axes = tuple(f"{bad[:-1]}{i}" for i in range(len(shape)))
    labels = {axes[0]: tuple(f"{bad}{i}" for i in range(shape[0]))} if shape else {}
    for fill in (0.5, torch.nan):
        values = torch.full(shape, fill, dtype=torch.bfloat16, requires_grad=True)
        provenance = Provenance(model=bad, versions={bad: bad}, command=bad)
        of = {"unit": bad, "description": bad, "provenance": provenance, "stderr": values, "labels": labels}
        html = Result(name=bad, values=values, axes=axes, **of)._repr_html_()
        html.encode()
        tags = set(re.findall(r"<\s*/?\s*([a-zA-Z!?]+)", html))
        assert len(html) < 40_000 and tags <= set(
            ["div", "p", "b", "small", "table", "thead", "tbody", "tr", "th", "td", "details", "summary"]
        )


def test_a_single_value_is_shown_with_its_error() -> None:
    one = Result(name="x", values=torch.tensor([0.25]), axes=("a",), stderr=torch.tensor([0.0125]), unit="nats")
    assert "0.2500 ± 0.013 <small>nats" in one._repr_html_()
    assert "0.2500 <small>" in Result(name="x", values=torch.tensor(0.25), axes=())._repr_html_()


def test_scores_on_three_axes_are_not_mixed() -> None:
    values = torch.stack([torch.rand(12, 12) + 100, torch.rand(12, 12), torch.zeros(12, 12)])
    html = Result(
        name="x", values=values, axes=("score", "layer", "head"), labels={"score": ("big", "small", "no")}
    )._repr_html_()
    assert html.index("score big") < html.index("score small") and html.count("<tr>") == 3 * (1 + 3)


def test_the_largest_are_those_of_the_whole_table() -> None:
    values = torch.randint(0, 9, (6, 50), generator=torch.Generator().manual_seed(0)).double()
    values[values == 3] = torch.nan
    result = Result(name="x", values=values, axes=("layer", "head"), stderr=values / 2)
    slow = result.to_frame().dropna(subset=["value"]).sort_values("value", ascending=False, kind="stable").reset_index(drop=True)
    for k in (1, 17, 300, 1000):
        assert result.top(k).equals(slow.head(k)), "ties in the order of the table"
    assert len(result.top(0)) == len(result.top(-1)) == 0


def test_errors_say_what_is_true_and_survive_pickling() -> None:
    import pickle

    error = ResultError("asked", "truth", "Remedy")
    assert str(error) == "asked: truth. Remedy"
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, InterpError)
    assert again.remedy == "Remedy"


def test_a_result_in_a_terminal_is_a_line_and_printed_a_table() -> None:
    assert repr(scores()).startswith("<Result ") and "\n" not in repr(scores())
    head, names, first, *_ = str(scores()).splitlines()
    assert "layer (2) × head (3)" in head
    assert names.split() == ["layer", "head", "value", "stderr", "baseline"]
    assert "tensor" not in str(scores())
    many = Result(name="many", values=torch.arange(40.0), axes=("pos",))
    assert str(many).splitlines()[2].split() == ["39", "39.0"]
    assert str(many).splitlines()[-1].startswith("the 10 largest of 40")
    assert (
        str(Result(name="one", values=torch.tensor(0.5), axes=(), stderr=torch.tensor(0.01), unit="nats"))
        == "one: nats\n0.500 ± 0.010"
    )
    assert str(Result(name="none", values=torch.zeros(0, 2), axes=("a", "b"))).endswith("no values")
    assert "–" in str(Result(name="odd", values=torch.tensor([torch.nan, 1.0]), axes=("pos",), labels={"pos": ("\ud800", "b")}))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("bad", [{"axis": 9}, {"layer": 2}, {"layer": -3}, {"head": "9"}, {"head": 1.0}])
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
