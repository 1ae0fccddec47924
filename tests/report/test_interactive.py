"""The interactive blocks as text: what they hold is what was given, hostile text stays text, and what does not fit is refused."""

import base64
import gzip
import hashlib
import json
import re
from dataclasses import replace

import pytest
import torch

from interp.errors import ReportError
from interp.report import (
    AttentionMaps,
    Grid,
    HeadAtlas,
    NextTokens,
    Page,
    Section,
    StackedTokens,
    StepSlider,
    TokenRow,
    render_document,
    render_page,
    write_page,
)
from interp.report.values import Scale, scale_of
from interp.result import Provenance, Result

from .conftest import pattern
from .test_page import PAYLOADS, Elements, scripts_in

NAN = float("nan")


def result(values: object, axes: tuple[str, ...], **more: object) -> Result:
    return Result(**{"name": "r", "values": torch.as_tensor(values), "axes": axes} | more)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def patterns(layers: int, heads: int, size: int, causal: bool = True, **more: object) -> Result:
    scores = 3 * random(layers, heads, size, size, seed=size)
    hidden = torch.ones(size, size).triu(1).bool() & causal
    return result(scores.masked_fill(hidden, -torch.inf).softmax(-1), ("layer", "head", "query", "key"), **more)


def texts(size: int) -> list[str]:
    return [f" word{i}" if i else "<bos>" for i in range(size)]


def all_blocks(text: str = "plain") -> list[object]:
    """Every interactive block, with `text` wherever a caller's text can stand; sizes are pairwise different."""
    tokens = [text, *texts(7)[1:]]
    more = {"name": text, "unit": text, "description": text}
    heads = {"head": (text, "b", "c")}
    scores = {
        text: result(random(2, 3), ("layer", "head"), labels=heads, **more),
        "other": result(random(2, 3), ("layer", "head"), labels=heads),
    }
    places = {"pos": tuple(tokens), text: ("a", text)}
    frames = {
        name: result(random(5, 2, 3, seed=i), ("step", "layer", text), labels={text: (text, "b", "c")}, **more)
        for i, name in enumerate((text, "f"))
    }
    probabilities = result([[0.5, 0.25, 0.125, 0.0625]] * 6, ("pos", "rank"))
    guesses = [[text, tokens[i + 1], "\n", "x"] for i in range(6)]
    rows = [
        TokenRow(text, result(random(7), ("pos",), **more), -2, 2),
        TokenRow("loss", result(random(7).abs(), ("pos",)), 0, 3.0),
    ]
    return [
        HeadAtlas(patterns(2, 3, 7, labels=heads), tokens, text, scores),
        HeadAtlas(patterns(1, 2, 4, causal=False), tokens[:4], "without scores", selected=(0, 1)),
        Grid(result(random(2, 7), (text, "pos"), labels=places, stderr=random(2, 7).abs(), baseline=0.5, **more), text, text),
        StepSlider(frames, text, result(random(5), ("step",), **more)),
        StackedTokens(tokens, rows, text),
        NextTokens(tokens, guesses, probabilities, text),
    ]


def page_of(*blocks: object) -> Page:
    return Page("A title", "A question?", [Section("Part", list(blocks))], {}, "make report", Provenance())


def facts_in(html: str) -> list[dict]:
    return [json.loads(text) for kind, text in scripts_in(html) if 'class="data"' in kind]


def unpacked(html: str) -> list[bytes]:
    return [gzip.decompress(base64.b64decode(text)) for kind, text in scripts_in(html) if 'class="packed"' in kind]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_hostile_text_stays_text_in_every_interactive_block(payload: str):
    html = render_page(page_of(*all_blocks(payload)))
    data, packed = ' type="application/json" class="data"', ' type="text/plain" class="packed"'
    kinds = [attributes for attributes, _ in scripts_in(html)]
    assert kinds == [data, packed, data, packed, data, data, packed, data, *[""] * 6]
    assert html.lower().count("<script") == len(kinds) and html.count("<!--") == 0
    tags = {tag for tag, _ in Elements(html).found}
    assert not tags & {"img", "svg", "iframe"}
    names = {name for _, attributes in Elements(html).found for name, _ in attributes}
    assert not any(name.startswith("on") for name in names)
    shown = json.dumps(facts_in(html), ensure_ascii=False)
    assert "pwned" in shown or "pwned" not in payload  # the text is there, as text


def test_page_carries_the_scripts_its_blocks_need_once_and_allows_only_them():
    grid = all_blocks()[2]
    one, three = render_page(page_of(grid)), render_page(page_of(grid, grid, all_blocks()[0]))
    runs = [[text for kind, text in scripts_in(html) if not kind] for html in (one, three)]
    assert [len(scripts) for scripts in runs] == [3, 4] and runs[1][:3] == runs[0]
    for html, scripts in zip((one, three), runs, strict=True):
        wanted = [f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts]
        policy = re.findall(r'Content-Security-Policy" content="([^"]*)"', html)[0].replace("&#39;", "'")
        assert f"script-src {' '.join(wanted)};" in policy
    assert "heat-full" not in render_page(page_of()) and one.count("--heat-full: #06326b") == 1
    assert 'id="grid-2"' in three and "innerHTML" not in "".join(runs[1]) and "eval(" not in "".join(runs[1])


def test_same_blocks_give_the_same_bytes():
    assert render_page(page_of(*all_blocks())) == render_page(page_of(*all_blocks()))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_packed_weights_are_those_of_the_patterns(causal: bool, dtype: torch.dtype):
    given = patterns(2, 3, 5, causal)
    given = replace(given, values=given.values.to(dtype))
    html = render_page(page_of(HeadAtlas(given, texts(5), "c")))
    packed = torch.tensor(list(unpacked(html)[0])).double() / 255
    assert facts_in(html)[0]["causal"] is causal
    if causal:
        query, key = torch.tril_indices(5, 5)
        wanted = given.values.double().reshape(6, 5, 5)[:, query, key]
    else:
        wanted = given.values.double()
    assert packed.numel() == wanted.numel() == (90 if causal else 150)
    assert (packed - wanted.flatten()).abs().max() <= 1 / 510 + 1e-9


def test_atlas_begins_with_the_head_asked_for_or_the_best_by_the_first_score():
    scores = torch.tensor([[0.125, NAN, 0.25], [0.5, 0.875, 0.0]])
    given = {"first": result(scores, ("layer", "head")), "second": result(-scores.nan_to_num(), ("layer", "head"))}
    best = render_page(page_of(HeadAtlas(patterns(2, 3, 4), texts(4), "c", given)))
    assert facts_in(best)[0]["selected"] == [1, 1] and 'aria-label="layer 1 head 1, first 0.88"' in best
    both = result(torch.stack([r.values for r in given.values()]), ("score", "layer", "head"), labels={"score": tuple(given)})
    assert render_page(page_of(HeadAtlas(patterns(2, 3, 4), texts(4), "c", both))) == best  # as head_scores gives them
    asked = render_page(page_of(HeadAtlas(patterns(2, 3, 4), texts(4), "c", given, selected=(0, 2))))
    assert facts_in(asked)[0]["selected"] == [0, 2]
    (csv,) = re.findall(r'download="atlas-1.csv" data-packed="([^"]+)"', best)
    lines = gzip.decompress(base64.b64decode(csv)).decode().splitlines()
    assert lines[:3] == ["layer,head,first,second", "0,0,0.125,-0.125", "0,1,,-0.0"]


def cells_in(html: str) -> list[tuple[str, int, str]]:
    found = re.findall(r'<td(?: class="([^"]*)")? style="--v:(\d+)%">([^<]*)</td>', html)
    return [(kind, int(percent), text) for kind, percent, text in found]


def test_grid_cells_have_colour_and_number_by_hand():
    signs = render_page(page_of(Grid(result([[-2.0, 1.0], [NAN, 0.0], [0.5, -0.001]], ("layer", "head")), "c")))
    assert cells_in(signs) == [
        ("d", 100, "−2.00"),
        ("w", 50, "1.00"),
        ("u", 0, "–"),
        ("", 0, "0.00"),
        ("w", 25, "0.50"),
        ("", 0, "0.00"),
    ]
    one = render_page(page_of(Grid(result([[0.2, 0.1]], ("layer", "head")), "c")))
    assert cells_in(one) == [("d", 100, "0.20"), ("", 50, "0.10")]
    below = render_page(page_of(Grid(result([[-4.0, -1.0]], ("layer", "head")), "c")))
    assert cells_in(below) == [("d", 100, "−4.00"), ("", 25, "−1.00")]
    fixed = render_page(page_of(Grid(result([[3.0, 3.5, 9.0]], ("layer", "head")), "c", min_value=3, max_value=4)))
    assert cells_in(fixed) == [("", 0, "3.00"), ("", 50, "3.50"), ("d", 100, "9.00")]
    assert "largest 1.00 at layer 0, head 1; smallest −2.00 at layer 0, head 0. 1 undefined." in signs


@pytest.mark.parametrize(
    "low, high, short",
    [
        (0.0, 1.0, "0.25"),
        (-2.5, 2.5, "0.25"),
        (0.0, 30.0, "0.2"),
        (0.0, 5e3, "0"),
        (0.0, 0.05, "0.250"),
        (0.0, 1e-7, "2e−01"),
        (0.0, 1e9, "2e−01"),
    ],
)
def test_short_numbers_have_as_many_decimals_as_their_scale_needs(low: float, high: float, short: str):
    assert Scale(low, high).short(0.25) == short


def test_scale_of_nothing_but_zeros_has_room():
    assert scale_of("x", torch.zeros(3)) == Scale(0.0, 1.0)


def test_grid_offers_every_number_unrounded():
    given = result(
        [[1.625, NAN]], ("layer", "pos"), labels={"pos": (" a", "=b")}, stderr=torch.tensor([[0.125, NAN]]), baseline=0.25
    )
    html = render_page(page_of(Grid(replace(given, values=given.values.double()), "c")))
    (csv,) = re.findall(r'download="grid-1.csv" data-packed="([^"]+)"', html)
    text = gzip.decompress(base64.b64decode(csv)).decode()
    assert text == "layer,pos,value,stderr,baseline\n0, a,1.625,0.125,0.25\n0,=b,,,0.25\n"
    assert facts_in(html)[0]["values"] == [[1.625, None]] and facts_in(html)[0]["columns"] == ["·a", "=b"]


def test_losses_stand_at_the_tokens_they_are_of():
    loss = result([0.5, 2.0], ("target",), labels={"target": ("1", "2")})
    by_target = StackedTokens(["BOS", "a", "b"], [TokenRow("loss", loss, 0, 4)], "c")
    by_pos = StackedTokens(["BOS", "a", "b"], [TokenRow("loss", result([NAN, 0.5, 2.0], ("pos",)), 0, 4)], "c")
    assert render_page(page_of(by_target)) == render_page(page_of(by_pos))


def test_slider_holds_every_step_and_shows_the_last():
    frames = {
        "a": result(random(4, 2, 3), ("step", "layer", "head")),
        "b": result(random(4, 2, 3, seed=1), ("step", "layer", "head")),
    }
    html = render_page(page_of(StepSlider(frames, "c")))
    held = torch.tensor(json.loads(unpacked(html)[0])["frames"])
    wanted = torch.stack([frame.values for frame in frames.values()]).flatten(2)
    assert torch.allclose(held, wanted, rtol=1e-3)
    scale = scale_of("x", frames["a"].values)
    assert [text for *_, text in cells_in(html)] == [scale.short(v) for v in frames["a"].values[-1].flatten().tolist()]
    moved = (frames["a"].values.amax(0) - frames["a"].values.amin(0)).flatten().argmax().item()
    row, column = facts_in(html)[0]["frames"][0]["chosen"]
    assert 3 * row + column == moved


def test_next_tokens_marks_what_followed():
    tokens = ["a", " b", " c", " d", " e"]
    guesses = [[" b", "x"], ["x", " c"], ["x", "y"], [" e", "y"], [" b", "x"]]
    probabilities = result([[0.625, 0.25]] * 5, ("pos", "rank"))
    html = render_page(page_of(NextTokens(tokens, guesses, probabilities, "c")))
    assert facts_in(html)[0]["ranks"] == [0, 1, -1, 0, None]
    assert re.findall(r'<li role="option" aria-selected="false" class="(\w+)">', html) == [
        "first",
        "among",
        "missed",
        "first",
        "open",
    ]
    (csv,) = re.findall(r'download="next-1.csv" data-packed="([^"]+)"', html)
    lines = gzip.decompress(base64.b64decode(csv)).decode().splitlines()
    assert lines[:3] == [
        "pos,token,rank,guess,probability,right",
        "0,a,0, b,0.625,True",
        "0,a,1,x,0.25,False",
    ]


def test_atlas_of_144_heads_on_128_tokens_with_a_panel_fits_two_megabytes():
    given = patterns(12, 12, 128)
    scores = {name: result(random(12, 12, seed=i), ("layer", "head")) for i, name in enumerate("abc")}
    panel = AttentionMaps([("model", pattern(4, 64))], ["tok"] * 64, "caption")
    size = len(render_page(page_of(HeadAtlas(given, texts(128), "c", scores), panel)).encode())
    assert size < 2_000_000


HEADS = ("layer", "head")
PROBABILITIES = result([[0.5, 0.25]] * 3, ("pos", "rank"))
STEPS = result(random(4, 2, 3), ("step", "layer", "head"))


def spoiled(given: Result, value: float) -> Result:
    values = given.values.clone()
    values.view(-1)[-1] = value
    return replace(given, values=values)


BROKEN = {
    "NaN in a pattern": (lambda: HeadAtlas(spoiled(patterns(2, 3, 4), NAN), texts(4), "c"), "layer 1, head 2, query 3, key 3"),
    "logits as patterns": (lambda: HeadAtlas(spoiled(patterns(2, 3, 4), 1.5), texts(4), "c"), "after the softmax"),
    "one layer's patterns": (
        lambda: HeadAtlas(patterns(2, 3, 4).at(layer=0), texts(4), "c"),
        r"not \('layer', 'head', 'query', 'key'\)",
    ),
    "too few tokens": (lambda: HeadAtlas(patterns(2, 3, 4), texts(3), "c"), "axis 'query' .* 4 entries, and there are 3 tokens"),
    "no head": (lambda: HeadAtlas(result(torch.zeros(2, 0, 4, 4), ("layer", "head", "query", "key")), texts(4), "c"), "head 0"),
    "score of other heads": (
        lambda: HeadAtlas(patterns(2, 3, 4), texts(4), "c", {"s": result(random(3, 2), HEADS)}),
        "axis 'layer'",
    ),
    "score with other axes": (
        lambda: HeadAtlas(patterns(2, 3, 4), texts(4), "c", {"s": result(random(2, 3), ("head", "layer"))}),
        "axes",
    ),
    "score without a value": (
        lambda: HeadAtlas(patterns(2, 3, 4), texts(4), "c", {"s": result(torch.full((2, 3), NAN), HEADS)}),
        "none of its 6 values",
    ),
    "head that is not there": (lambda: HeadAtlas(patterns(2, 3, 4), texts(4), "c", selected=(2, 0)), "2 layers of 3 heads"),
    "grid of three axes": (lambda: Grid(STEPS, "c"), r"'step', 'layer', 'head'"),
    "empty grid": (lambda: Grid(result(torch.zeros(0, 3), HEADS), "c"), "layer 0, head 3"),
    "grid without a value": (lambda: Grid(result([[NAN]], HEADS), "c"), "none of its 1 values"),
    "grid with colours without room": (lambda: Grid(result([[1.0]], HEADS), "c", min_value=2), "from 2 to 1"),
    "slider without frames": (lambda: StepSlider({}, "c"), "no frame"),
    "slider without steps": (lambda: StepSlider({"f": result(random(4, 2, 3), ("layer", "head", "step"))}, "c"), "steps first"),
    "slider with unlike frames": (lambda: StepSlider({"f": STEPS, "g": result(random(4, 2, 5), STEPS.axes)}, "c"), "axis 'head'"),
    "slider with a longer curve": (lambda: StepSlider({"f": STEPS}, "c", result(random(5), ("step",))), "axis 'step'"),
    "stack without rows": (lambda: StackedTokens(["a"], [], "c"), "no row"),
    "stack of another length": (
        lambda: StackedTokens(["a"], [TokenRow("n", result([1.0, 2.0], ("pos",)), 0, 1)], "c"),
        "axis 'pos'",
    ),
    "stack without tokens": (lambda: StackedTokens([], [TokenRow("n", result(torch.zeros(0), ("pos",)), 0, 1)], "c"), "pos 0"),
    "losses of other tokens": (
        lambda: StackedTokens(["a"], [TokenRow("n", result([1.0, 2.0], ("target",), labels={"target": ("1", "2")}), 0, 1)], "c"),
        "there are 1 tokens",
    ),
    "row whose scale lacks zero": (lambda: TokenRow("n", result([1.0], ("pos",)), 1, 2), "must be zero"),
    "row over heads": (lambda: TokenRow("n", result([1.0], ("head",)), 0, 2), r"\('head',\), not \('pos',\)"),
    "guesses of another length": (lambda: NextTokens(texts(3), [["a", "b"]] * 2, PROBABILITIES, "c"), "2 rows"),
    "probabilities of another text": (lambda: NextTokens(texts(6), [["a", "b"]] * 3, PROBABILITIES, "c"), "axis 'pos'"),
    "ranks the wrong way round": (
        lambda: NextTokens(texts(3), [["a", "b"]] * 3, replace(PROBABILITIES, values=PROBABILITIES.values.flip(1)), "c"),
        "rises",
    ),
    "log probabilities": (
        lambda: NextTokens(texts(3), [["a", "b"]] * 3, replace(PROBABILITIES, values=PROBABILITIES.values.log()), "c"),
        "outside",
    ),
    "NaN as a probability": (lambda: NextTokens(texts(3), [["a", "b"]] * 3, spoiled(PROBABILITIES, NAN), "c"), "NaN"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_does_not_fit_is_refused_before_a_file_is_written(kind: str, tmp_path):
    make, truth = BROKEN[kind]
    with pytest.raises(ReportError, match=truth) as caught:
        write_page(page_of(make()), tmp_path / "report")
    assert caught.value.remedy and not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ([4, 4], "All rows have the same scale"),
        ([4, 1], "Each row has its own scale"),
        ([4, 4, 1], "Not all rows have the same scale"),
        ([4], "No colour is 0."),
    ],
)
def test_the_note_below_stacked_tokens_says_whether_rows_can_be_compared(ends: list[int], said: str) -> None:
    rows = [TokenRow(f"row {place}", result([0.0, 0.5], ("pos",)), 0, end) for place, end in enumerate(ends)]
    html = render_document([StackedTokens(["a", "b"], rows, "c")], "t")
    notes = [note for note in ("All rows have", "Each row has", "Not all rows have", "No colour is 0.") if note in html]
    assert len(notes) == 1 and said.startswith(notes[0])


def test_an_atlas_says_a_score_s_name_once_where_its_description_is_the_same() -> None:
    patterns = result([[[[1.0, NAN], [0.5, 0.5]]]], ("layer", "head", "query", "key"))
    patterns = replace(patterns, values=patterns.values.nan_to_num(0.0))
    score = result([[0.5]], ("layer", "head"))
    for description, told in (("previous token", '"description":""'), ("what it means", '"description":"what it means"')):
        scores = {"previous_token": replace(score, description=description)}
        html = render_document([HeadAtlas(patterns, ["a", "b"], "c", scores=scores)], "t").replace('": "', '":"')
        assert told in html
