"""Which heads matter, by rules that the page states: thresholds, nulls, and other heads to compare with."""

import math
from dataclasses import replace
from itertools import combinations

import torch

from interp.probes.scores import all_scores
from interp.result import Result
from interp.seeds import seed_for

Head = tuple[int, int]
TIMES_UNIFORM, ENOUGH = 3.0, 0.5  # an induction head gives so many times what a uniform head does, or so large a share at once
LEAST_SHARE = 0.3  # of attention, for a head to be shown for a score
STANDARD_ERRORS = 2.0
DRAWN = "random"  # what the names of drawn sets begin with; where there are few, every set is taken


def name_of(head: Head) -> str:
    """ "L1H3"."""
    return f"L{head[0]}H{head[1]}"


def cells_of(result: Result) -> list[Head]:
    """Every head of a result whose last axes are (layer, head), as (layer, head)."""
    return [(int(layer), int(head)) for layer in result.labels_of("layer") for head in result.labels_of("head")]


def score_of(scores: Result, name: str) -> Result:
    """One score of several, axes (layer, head), with its own unit and description."""
    known = next(score for score in all_scores(None) if score.name == name)
    one = scores.at(score=name)
    return replace(one, name=name, unit=known.unit, description=known.description)


def at_head(result: Result, head: Head) -> float:
    """One head's value in a result over (layer, head)."""
    return float(result.values[_place(result, head)])


def with_error(result: Result, head: Head) -> str:
    """One head's value with its standard error, in words."""
    value = f"{at_head(result, head):.3f}"
    return value if result.stderr is None else f"{value} ± {float(result.stderr[_place(result, head)]):.3f}"


def _place(result: Result, head: Head) -> tuple[int, int]:
    return result.labels_of("layer").index(str(head[0])), result.labels_of("head").index(str(head[1]))


def ablated_heads(cause: Result) -> str:
    """The heads of the first set of an ablation of sets, as its description lists them after the first sentence."""
    return cause.description.split("; ")[1].partition(": ")[2]


def null_of(null: Result, name: str, statistic: str) -> Result:
    """One statistic of a score's null, axes (layer, head)."""
    return null.at(statistic=statistic, score=name)


def induction_heads(scores: Result, null: Result) -> list[Head]:
    """Heads that pass for induction heads, the strongest first.

    What followed the earlier copy gets at least `TIMES_UNIFORM` times the attention that a uniform head gives it, or `ENOUGH` of
    all, and the score less `STANDARD_ERRORS` standard errors is above the 95 % quantile of its null, on the same tokens in
    random order.
    """
    if "induction" not in scores.labels_of("score"):
        return []
    score = score_of(scores, "induction")
    error = torch.zeros_like(score.values) if score.stderr is None else score.stderr
    beyond = score.values - STANDARD_ERRORS * error > null_of(null, "induction", "q95").values
    uniform = torch.as_tensor(torch.nan if score.baseline is None else score.baseline, dtype=score.values.dtype)
    passing = (score.values >= (TIMES_UNIFORM * uniform).nan_to_num(ENOUGH).clamp(max=ENOUGH)) & beyond
    heads = [head for head, passed in zip(cells_of(score), passing.flatten().tolist(), strict=True) if passed]
    value = dict(zip(cells_of(score), score.values.flatten().tolist(), strict=True))
    return sorted(heads, key=lambda head: -value[head])


def strongest(result: Result, k: int, *, largest: bool = True) -> list[Head]:
    """The `k` heads with the largest (smallest) defined values of a result over (layer, head)."""
    values = [(value, head) for head, value in zip(cells_of(result), result.values.flatten().tolist(), strict=True)]
    defined = [(value, head) for value, head in values if not math.isnan(value)]
    return [head for _, head in sorted(defined, key=lambda pair: -pair[0] if largest else pair[0])[:k]]


def best_score(scores: Result, head: Head) -> str:
    """The score of attention by which a head stands out most above a uniform head, "previous_token 0.93"; "" where none does."""
    found: dict[str, tuple[float, float]] = {}
    for name in scores.labels_of("score"):
        score = score_of(scores, name)
        baseline = torch.as_tensor(0.0 if score.baseline is None else score.baseline).expand(score.values.shape).nan_to_num(0.0)
        value = at_head(score, head)
        if name != "entropy" and not math.isnan(value):
            found[name] = (value - at_head(replace(score, values=baseline), head), value)
    best = max(found, key=lambda name: found[name][0], default="")
    return f"{best} {found[best][1]:.2f}" if best and found[best][0] > 0 else ""


def other_sets(others: list[Head], size: int, n_sets: int, seed: int) -> dict[str, list[Head]]:
    """Every set of `size` heads of `others` where there are `n_sets` or fewer, named by its heads; else so many drawn ones."""
    if math.comb(len(others), size) <= n_sets:
        every = [list(chosen) for chosen in combinations(others, size)]
        return {" + ".join(map(name_of, heads)): heads for heads in every}
    generator = torch.Generator().manual_seed(seed_for("overview: random heads", seed))
    drawn: dict[tuple[Head, ...], None] = {}
    while len(drawn) < n_sets:
        chosen = torch.randperm(len(others), generator=generator)[:size].tolist()
        drawn[tuple(sorted(others[index] for index in chosen))] = None
    return {f"{DRAWN} {number + 1}": list(heads) for number, heads in enumerate(drawn)}


def sets_of(cause: Result) -> dict[str, list[Head]]:
    """The sets of heads of an ablation of sets, by name, as its description lists them after the first sentence."""
    named = dict(part.partition(": ")[::2] for part in cause.description.split("; ")[1:])
    return {name: [_head(word) for word in heads.split(", ")] for name, heads in named.items()}


def _head(word: str) -> Head:
    layer, _, head = word.removeprefix("L").partition("H")
    return int(layer), int(head)
