"""Figures: the numbers reach the picture, hostile labels do no harm, and nothing is left behind in matplotlib."""

import base64
import gzip
import re
from io import StringIO
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.patches import StepPatch

from interp.errors import ReportError
from interp.report import bar_chart, curve_grid, curves, filter_distributions, heat_map, kernel_maps, score_bars, svg
from interp.report.download import packed_csv
from interp.result import Result

from .conftest import result

STEPS = {"step": ("0", "1", "10", "100")}


def seeds(values: list[list[float]]) -> Result:
    return Result(name="score", values=torch.tensor(values), axes=("seed", "step"), labels=STEPS)


BUILDERS = {
    "curves": lambda label: curves(
        {label: result(3, 4, axes=("seed", "step"), labels=STEPS), "b": result(4, axes=("step",))}, label, label
    ),
    "curve_grid": lambda label: curve_grid({label: {label: result(3, 4, axes=("seed", "step"), labels=STEPS)}}, label, label),
    "score_bars": lambda label: score_bars({label: result(3, axes=("seed",))}, label, baseline=0.2, baseline_label=label),
    "kernel_maps": lambda label: kernel_maps(
        result(2, 5, 6, axes=("tap", "out", "in"), labels={"tap": (label, "b")}, unit=label)
    ),
    "filter_distributions": lambda label: filter_distributions(
        result(2, 30, axes=("tap", "filter"), labels={"tap": (label, "b")})
    ),
    "heat_map": lambda label: heat_map(result(2, 3, axes=("layer", "head"), labels={"head": (label, "b", "c")}), title=label),
}


@pytest.mark.parametrize("name", BUILDERS)
def test_any_label_gives_a_well_formed_picture_with_the_same_bytes(name):
    label = "$\\foo$ <b>&\x00\x1b 你"
    before = dict(matplotlib.rcParams)
    first, second = (svg.to_svg(BUILDERS[name](label).figure) for _ in range(2))
    assert first == second and dict(matplotlib.rcParams) == before
    text = "".join(ElementTree.fromstring(first).itertext())
    assert "$\\foo$ <b>&" in text.replace("·", " ") and "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", first)
    assert not re.search("[\"'<>&#\n]", svg.data_address(first))


def test_curve_is_the_mean_over_seeds_and_the_band_spans_them():
    figure = curves({"m": seeds([[0.0, 1.0, 2.0, torch.nan], [1.0, 3.0, 6.0, 5.0]])}, "x", "y").figure
    axes = figure.axes[0]
    mean = next(line for line in axes.lines if line.get_label() == "m")
    assert mean.get_xdata().tolist() == [0, 1, 10, 100] and mean.get_ydata().tolist() == [0.5, 2.0, 4.0, 5.0]
    corners = {tuple(point) for point in axes.collections[0].get_paths()[0].vertices.tolist()}
    assert {(0, 0), (0, 1), (10, 2), (10, 6)} <= corners and len(axes.lines) == 3


def rows_of(name: str, result: Result) -> list[tuple]:
    """Long form, the slow way: a name, where each value stands, the value."""
    places = np.ndindex(*result.values.shape)
    labels = [result.labels_of(axis) for axis in result.axes]
    return [(name, *(names[i] for names, i in zip(labels, at, strict=True)), result.values[at].item()) for at in places]


def plain(data) -> list[tuple]:
    shown = data.astype(object).where(data.notna(), None)
    return [tuple(str(cell) if i < len(row) - 1 else cell for i, cell in enumerate(row)) for row in shown.to_numpy().tolist()]


def test_a_figure_comes_with_every_number_in_it():
    of_seeds, alone = seeds([[0.0, 1.0, 2.0, 7.0], [1.0, 3.0, 6.0, 5.0]]), result(4, axes=("step",), labels=STEPS)
    drawn = curves({"m": of_seeds, "alone": alone}, "x", "y", baseline=0.3, baseline_label="chance")
    assert list(drawn.data) == ["line", "seed", "step", "value"]
    single = [(name, "None", step, value) for name, step, value in rows_of("alone", alone)]
    assert plain(drawn.data) == [*rows_of("m", of_seeds), *single, ("chance", "None", "None", 0.3)]
    grid = curve_grid({"left": {"m": of_seeds}, "right": {"m": of_seeds}}, "x", "y").data
    assert plain(grid) == [(panel, *row) for panel in ("left", "right") for row in rows_of("m", of_seeds)]
    for shared in (True, False):
        heights = [
            axes.get_ylim()
            for axes in curve_grid({"left": {"m": of_seeds}, "right": {"m": alone}}, "x", "y", shared_y=shared).figure.axes
        ]
        assert (heights[0] == heights[1]) == shared
    bars = {"a": result(3, axes=("seed",)), "b": result(2, axes=("seed",), seed=1)}
    assert plain(score_bars(bars, "x").data) == rows_of("a", bars["a"]) + rows_of("b", bars["b"])
    whole = result(2, 3, axes=("layer", "head"), labels={"head": ("x", "y", "z")})
    assert [("", *row) for row in plain(heat_map(whole).data)] == rows_of("", whole)
    assert plain(bar_chart(whole.at(layer=1)).data) == [row[1:] for row in rows_of("", whole.at(layer=1))]
    kernel = result(2, 4, 3, axes=("tap", "out", "in"))
    assert len(kernel_maps(kernel).data) == 24 and kernel_maps(kernel).data["value"].tolist() == kernel.values.flatten().tolist()


def test_bars_have_errors_and_baselines_where_they_are_known():
    parts = {"values": torch.tensor([0.5, torch.nan, -0.25]), "stderr": torch.tensor([0.1, 0, 0.2])}
    axes = bar_chart(Result(name="b", axes=("pos",), baseline=0.05, **parts)).figure.axes[0]
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([0.5, float("nan"), -0.25], nan_ok=True)
    assert next(line for line in axes.lines if line.get_label() == "baseline").get_ydata().tolist() == [0.05] * 3
    spans = [path.vertices[:, 1].tolist() for path in axes.collections[0].get_paths()]
    assert spans[0] == pytest.approx([0.4, 0.6]) and spans[2] == pytest.approx([-0.45, -0.05])


def unpacked(packed: str) -> str:
    return gzip.decompress(base64.b64decode(packed)).decode()


def test_a_packed_table_reads_back_as_the_same_numbers(monkeypatch):
    fine = np.array([0.1, 1 / 3, np.nan, 1e300, -0.0])
    coarse = np.float32([0.1, 1 / 3, np.nan, 2.5, 7]).astype(np.float64)
    data = pd.DataFrame({"a,b": ["x", 'q"', "\n", "", "é"], "n": range(5), "coarse": coarse, "fine": fine})
    text = unpacked(packed_csv(data))
    back = pd.read_csv(StringIO(text))
    assert back["fine"].equals(data["fine"]) and back["coarse"].astype(np.float32).equals(data["coarse"].astype(np.float32))
    assert list(back) == ["a,b", "n", "coarse", "fine"] and packed_csv(data) == packed_csv(data)
    assert ",0.1,0.1\n" in text, "a number that came from float32 is written as one"
    monkeypatch.setattr("interp.report.download.MOST_ROWS", 4)
    assert packed_csv(data) == ""


def test_drawing_twice_gives_the_same_picture():
    drawn = heat_map(result(3, 5, axes=("layer", "head")), title="map")
    assert svg.to_svg(drawn.figure) == svg.to_svg(drawn.figure)
    assert drawn._repr_html_() == drawn._repr_html_() and drawn._repr_html_().startswith('<img src="data:image/svg+xml')


def test_long_names_stay_inside_the_picture():
    names = {f"a line with a long name, number {i}": result(4, axes=("step",), labels=STEPS) for i in range(5)}
    figure = curves(names, "x", "y").figure
    figure.draw_without_rendering()
    legend = figure.legends[0].get_window_extent()
    assert 0 <= legend.x0 < legend.x1 <= figure.bbox.x1 and figure.axes[0].get_window_extent().height > 100


def test_logarithmic_steps_include_zero_and_are_written_in_words():
    figure = curves({"m": seeds([[0.0, 1.0, 2.0, 3.0]])}, "x", "y", log_x=True).figure
    ticks = re.findall(r">([\d.k]+)</text>", svg.to_svg(figure))
    assert ticks[:4] == ["0", "1", "10", "100"]


def test_bars_show_each_seed_and_their_mean():
    figure = score_bars({"m": Result(name="s", values=torch.tensor([0.2, 0.4, 0.9]), axes=("seed",))}, "x", baseline=0.1).figure
    axes = figure.axes[0]
    assert axes.patches[0].get_width() == pytest.approx(0.5) and axes.texts[0].get_text() == "0.500"
    dots = next(line for line in axes.lines if line.get_marker() == "o")
    assert dots.get_xdata().tolist() == pytest.approx([0.2, 0.4, 0.9])


def test_kernel_maps_share_one_symmetric_scale_and_keep_every_weight():
    kernel = result(3, 20, 30, axes=("tap", "out", "in"))
    images = [axes.images[0] for axes in kernel_maps(kernel).figure.axes if axes.images]
    limits = {image.get_clim() for image in images}
    assert len(images) == 3 and len(limits) == 1 and sum(limits.pop()) == 0
    assert all(np.allclose(image.get_array(), weights) for image, weights in zip(images, kernel.values.numpy(), strict=True))
    embedded = svg.to_svg(kernel_maps(kernel).figure).count("data:image/png")
    assert embedded >= 3


def test_embedded_images_get_small_and_keep_their_pixels():
    from io import BytesIO

    from PIL import Image

    pixels = np.full((300, 200, 4), 255, np.uint8)
    pixels[..., :2] = np.random.default_rng(0).integers(0, 12, (300, 200, 2))
    out = BytesIO()
    Image.fromarray(pixels).save(out, format="png")
    encoded = base64.b64encode(out.getvalue()).decode()
    small = svg._with_palette(encoded)
    assert len(small) < 0.7 * len(encoded)
    assert np.array_equal(np.asarray(Image.open(BytesIO(base64.b64decode(small))).convert("RGBA")), pixels)
    pixels[0, 0, 3] = 0  # transparent: left as it is
    out = BytesIO()
    Image.fromarray(pixels).save(out, format="png")
    assert svg._with_palette(base64.b64encode(out.getvalue()).decode()) == base64.b64encode(out.getvalue()).decode()


def test_large_kernel_stays_within_half_a_megabyte():
    picture = svg.data_address(svg.to_svg(kernel_maps(result(3, 384, 384, axes=("tap", "out", "in"))).figure))
    assert len(picture) < 650_000


def test_tap_whose_filters_are_all_zero_is_drawn():
    values = torch.stack([torch.linspace(0, 1, 16), torch.zeros(16)])
    svg.to_svg(filter_distributions(Result(name="norm", values=values, axes=("tap", "filter"))).figure)


def test_heat_map_writes_values_and_leaves_undefined_cells_empty():
    figure = heat_map(Result(name="h", values=torch.tensor([[-1.0, 2.0, torch.nan]]), axes=("layer", "head"))).figure
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["−1.0", "2.0"]
    assert (axes.images[0].norm.vmin, axes.images[0].norm.vmax) == (-2, 2)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: curves({}, "x", "y"),
        lambda: curves({"m": result(2, 3, axes=("step", "seed"))}, "x", "y"),
        lambda: curves({"m": result(3, axes=("step",), labels={"step": ("a", "b", "c")})}, "x", "y"),
        lambda: curves({"m": Result(name="n", values=torch.full((3,), torch.nan), axes=("step",))}, "x", "y"),
        lambda: kernel_maps(result(3, 4, axes=("tap", "out"))),
        lambda: heat_map(result(3, axes=("head",))),
        lambda: score_bars({"m": result(2, 3, axes=("seed", "step"))}, "x"),
    ],
)
def test_results_that_do_not_fit_are_refused(draw):
    with pytest.raises(ReportError) as caught:
        draw()
    assert caught.value.remedy


def test_a_tap_whose_filters_are_all_equal_is_a_line_at_its_value() -> None:
    """Masked taps are 0: a bin would show them spread up to the bin's upper edge. A tap that is spread stays a block."""
    values = torch.stack([torch.zeros(40), torch.linspace(0.5, 5.0, 40)])
    axes = filter_distributions(Result(name="norm", values=values, axes=("tap", "filter"))).figure.axes[0]
    blocks = [patch.get_data() for patch in axes.patches if isinstance(patch, StepPatch)]
    assert len(blocks) == 1 and blocks[0].values.mean() > 0.5, "only the second tap is a block"
    across = [line for line in axes.lines if np.ptp(line.get_xdata()) == pytest.approx(0.66)]
    assert [list(line.get_ydata()) for line in across] == [[0.0, 0.0]]
