"""Every head's attention on one page: thumbnails, one head large, and the heads' scores to choose by."""

import base64
import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from einops import rearrange
from jaxtyping import Float
from markupsafe import Markup
from torch import Tensor

from interp.errors import ReportError
from interp.report.circuitsvis import properties
from interp.report.download import packed_csv
from interp.report.grid import TEMPLATE, table
from interp.report.notebook import Shown
from interp.report.rendering import Drawing
from interp.report.text import number, visible_token
from interp.report.values import Scale, check_axes, check_tokens, names_along, scale_of, spread
from interp.result import Result

_AXES = ("layer", "head", "query", "key")


@dataclass(frozen=True, eq=False)
class HeadAtlas(Shown):
    """The attention patterns of all heads on one text, and the scores of the heads.

    `patterns` has axes (layer, head, query, key), e.g. from `interp.attention_patterns`; `tokens` has one entry per
    position. `scores` is a result over (score, layer, head), as `interp.head_scores` gives, or maps names to results over (layer,
    head): they colour a map whose cells choose the head that is shown large. The first one shown is `selected`, else the head
    with the largest first score. Weights are packed in 255 steps (a shown weight is within 1/510 of the exact one), which
    makes 144 heads on 128 tokens about 0.7 MB. Raises `ReportError` for NaN, weights outside 0 to 1, or axes, labels and tokens
    that do not fit.
    """

    patterns: Result
    tokens: Sequence[str]
    caption: str
    scores: Result | Mapping[str, Result] | None = None
    selected: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        check_axes("an atlas of heads", self.patterns, _AXES)
        for axis in ("query", "key"):
            check_tokens("an atlas of heads", self.patterns, axis, self.tokens)
        _check_weights(self.patterns)
        for name, score in self._by_name().items():
            asked = f"score {name!r} in an atlas of heads"
            check_axes(asked, score, ("layer", "head"))
            for axis in ("layer", "head"):
                theirs, ours = score.labels_of(axis), self.patterns.labels_of(axis)
                if theirs != ours:
                    truth = f"its axis {axis!r} has entries {_few(theirs)}, that of the patterns {_few(ours)}"
                    raise ReportError(asked, truth, "Give a score of every head that is shown")
            scale_of(asked, score.values)
        heads = tuple(self.patterns.values.shape[:2])
        if self.selected is not None and not all(0 <= i < n for i, n in zip(self.selected, heads, strict=True)):
            truth = f"there are {heads[0]} layers of {heads[1]} heads"
            raise ReportError(f"selected={self.selected}", truth, "Give the indices (layer, head), counted from 0")

    def render(self, drawing: Drawing) -> Markup:
        drawing.use("interactive.css", "interactive.js", "grid.js", "atlas.js")
        layers, heads = (names_along(self.patterns, axis) for axis in ("layer", "head"))
        scores = self._by_name()
        packing = _packed(self.patterns.values)
        facts = {
            "layers": layers,
            "heads": heads,
            "tokens": [visible_token(token, 40) for token in self.tokens],
            "causal": packing["causal"],
            "selected": self._first(),
            "scores": [
                spread(score)
                | {
                    "name": name,
                    "description": _beyond_name(name, score.description),
                    "scale": scale_of(name, score.values).properties(),
                }
                for name, score in scores.items()
            ],
        }
        first = next(iter(scores.items()), None)
        return drawing.fill(
            "atlas",
            template=TEMPLATE,
            name=drawing.name("atlas"),
            caption=self.caption,
            layers=layers,
            heads=heads,
            labels=self._labels(layers, heads, first),
            selected=self._first(),
            scores=list(scores),
            table=first and table(first[1], scale_of(first[0], first[1].values)),
            legend=first and scale_of(first[0], first[1].values).legend(_any_undefined(scores)),
            unit=first[1].unit if first else "",
            properties=properties(facts),
            packed=packing["weights"],
            weights=Scale(0.0, 1.0).legend(undefined=False),
            csv=packed_csv(_wide(scores)) if scores else "",
        )

    def _by_name(self) -> dict[str, Result]:
        if not isinstance(self.scores, Result):
            return dict(self.scores or {})
        check_axes("scores in an atlas of heads", self.scores, ("score", "layer", "head"))
        return {name: self.scores.at(score=place) for place, name in enumerate(self.scores.labels_of("score"))}

    def _first(self) -> list[int]:
        if self.selected is not None:
            return list(self.selected)
        scores = self._by_name()
        if not scores:
            return [0, 0]
        values = next(iter(scores.values())).values.detach().double().nan_to_num(-torch.inf)
        return [int(i) for i in torch.unravel_index(values.argmax(), values.shape)]

    def _labels(self, layers: list[str], heads: list[str], first: tuple[str, Result] | None) -> list[list[str]]:
        """What a screen reader says of each thumbnail."""
        ends = [["" for _ in heads] for _ in layers]
        if first is not None:
            ends = [[f", {first[0]} {number(value, 2)}" for value in row] for row in first[1].values.double().tolist()]
        return [
            [f"layer {layer} head {head}{end}" for head, end in zip(heads, row, strict=True)]
            for layer, row in zip(layers, ends, strict=True)
        ]


def _any_undefined(scores: Mapping[str, Result]) -> bool:
    return any(bool(score.values.isnan().any()) for score in scores.values())


def _check_weights(patterns: Result) -> None:
    values = patterns.values.detach()
    for what, wrong in (("NaN", values.isnan()), ("a weight below 0 or above 1", (values < -1e-4) | (values > 1 + 1e-4))):
        if bool(wrong.any()):
            where = ", ".join(f"{axis} {int(i)}" for axis, i in zip(_AXES, wrong.nonzero()[0], strict=True))
            truth = f"{patterns.name!r} holds {what} ({where})"
            raise ReportError("an atlas of heads", truth, "Give patterns after the softmax, without NaN")


def _few(labels: tuple[str, ...]) -> str:
    return ", ".join(labels[:4]) + (f", … ({len(labels)})" if len(labels) > 4 else "")


def _packed(patterns: Float[Tensor, "layer head query key"]) -> dict[str, Any]:
    """The weights in 255 steps, one byte each, gzipped: the lower triangle alone where no query sees a later key."""
    weights = rearrange(patterns.detach().cpu(), "layer head query key -> (layer head) query key")
    causal = not bool(weights.triu(1).any())
    steps = (weights.double() * 255).round().clamp(0, 255).to(torch.uint8)
    if causal:
        query, key = torch.tril_indices(*steps.shape[1:])
        steps = steps[:, query, key]
    return {"causal": causal, "weights": base64.b64encode(gzip.compress(steps.numpy().tobytes(), 9, mtime=0)).decode("ascii")}


def _wide(scores: Mapping[str, Result]) -> pd.DataFrame:
    """One row per head, one column per score."""
    first = next(iter(scores.values())).to_frame()[["layer", "head"]]
    return first.assign(**{name: score.to_frame()["value"] for name, score in scores.items()})


def _beyond_name(name: str, description: str) -> str:
    """A score's description, unless it says no more than the name that stands above it."""
    plain = [text.replace("_", " ").strip().rstrip(".").casefold() for text in (name, description)]
    return "" if plain[0] == plain[1] else description
