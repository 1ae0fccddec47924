"""The verdicts of an overview, from results alone; every threshold is named in the evidence."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from interp.pages.heads import (
    DRAWN,
    ENOUGH,
    STANDARD_ERRORS,
    TIMES_UNIFORM,
    Head,
    ablated_heads,
    at_head,
    best_score,
    induction_heads,
    name_of,
    null_of,
    score_of,
    sets_of,
    strongest,
    with_error,
)
from interp.pages.measuring import Found, Refused
from interp.report import Verdict
from interp.result import Result

NOT_ASKED = "It could not be asked."
LEAST_EFFECT = 0.1  # nats
HAS_HEADS, ARE_CAUSE = "Does it have induction heads?", "Are they the cause of what it predicts in a repeat?"


def verdicts(found: Found) -> list[Verdict]:
    """Both cards."""
    return [has_induction_heads(found), are_the_cause(found)]


def headline(cards: Sequence[Verdict]) -> str:
    """What the page found, in a few sentences: the answers to its questions."""
    has, cause = cards
    if has.outcome == "not tested":
        return "Whether it has induction heads could not be asked; what was measured stands below."
    if has.outcome == "refuted":
        return "No head passes for an induction head."
    named = has.answer.removeprefix("Yes, ").rstrip(".")
    count, _, heads = named.partition(": ")
    found = f"{'One induction head' if count == 'one' else f'{count} induction heads'}: {heads}."
    return (
        found if cause.outcome == "not tested" else f"{found} Are they the cause of what it predicts in a repeat? {cause.answer}"
    )


def has_induction_heads(found: Found) -> Verdict:
    """Whether any head passes the score, its threshold and its null."""
    scores, null = found["scores"], found["null"]
    for reading in (scores, null):
        if isinstance(reading, Refused):
            return Verdict(HAS_HEADS, NOT_ASKED, "not tested", _because(reading))
    if "induction" not in scores.labels_of("score"):
        return Verdict(HAS_HEADS, NOT_ASKED, "not tested", "Because attention looks ahead, where “earlier” means nothing.")
    passing = induction_heads(scores, null)
    score = score_of(scores, "induction")
    best = strongest(score, 1)
    if not best:
        return Verdict(HAS_HEADS, NOT_ASKED, "not tested", "Because the induction score is undefined for every head.")
    evidence = (
        f"Predicted: a head that gives what followed the earlier copy at least {TIMES_UNIFORM:g} times the attention of a "
        f"uniform head, or {ENOUGH:g} of all, and whose score less {STANDARD_ERRORS:g} standard errors is above the 95 % "
        "quantile of its null. "
        f"The strongest, {name_of(best[0])}: {with_error(score, best[0])}; a uniform head {_baseline(score, best[0])}; "
        f"its null {with_error(null_of(null, 'induction', 'mean'), best[0])}, "
        f"95 % quantile {with_error(null_of(null, 'induction', 'q95'), best[0])}."
    )
    control = (
        "The same tokens in random order, scored at the same places: a head that attends at a fixed distance scores there too."
    )
    if not passing:
        return Verdict(HAS_HEADS, "No head passes.", "refuted", evidence, control)
    named = ", ".join(map(name_of, passing[:6])) + (" …" if len(passing) > 6 else "")
    answer = f"Yes, {len(passing)}: {named}." if len(passing) > 1 else f"Yes, one: {named}."
    return Verdict(HAS_HEADS, answer, "supported", evidence, control)


def are_the_cause(found: Found) -> Verdict:
    """Whether ablating the heads that pass costs the second copy, clearly more than the first, and than other heads do."""
    cause: Any = found["cause"]
    if isinstance(cause, Refused):
        return Verdict(ARE_CAUSE, NOT_ASKED, "not tested", _because(cause))
    effects: Result = found["effects of sets"]
    effect, first = float(cause.values[1, 0]), float(cause.values[0, 0])
    error = 0.0 if cause.stderr is None else float(cause.stderr[1, 0])
    others = cause.labels_of("set")[1:]
    over_first = _margin(effects.values[:, 1, 0] - effects.values[:, 0, 0])
    worst = max(others, key=lambda name: float(cause.at(set=name).values[1]), default=None)
    over_worst = None if worst is None else _margin(effects.values[:, 1, 0] - effects.at(set=worst).values[:, 1])
    evidence = (
        f"Predicted: without them the loss on the second copy rises by at least {LEAST_EFFECT} nats and {STANDARD_ERRORS:g} "
        f"standard errors, and by {STANDARD_ERRORS:g} standard errors of the difference (paired) more than without any set of as "
        f"many other heads, and than on the first copy. Measured: {effect:+.3g} ± {error:.2g} nats on the second copy, "
        f"{first:+.3g} on the first; {_told_of_others(found, worst, over_worst)}. Mean ablation of {ablated_heads(cause)}."
    )
    control = "Other heads, ablated in the same way, and the first copy, where there is nothing to copy yet."
    if not (effect >= LEAST_EFFECT and effect > STANDARD_ERRORS * error):
        return Verdict(ARE_CAUSE, "No: without them it predicts as well.", "refuted", evidence, control)
    if worst is not None and over_worst is not None and not over_worst.clear:
        answer = f"Not they alone: {_shown_set(cause, worst)} {'costs' if over_worst.mean <= 0 else 'costs nearly'} as much."
        return Verdict(ARE_CAUSE, answer, "mixed", evidence, control)
    if not over_first.clear:
        return Verdict(ARE_CAUSE, "Not they alone: the first copy suffers as much.", "mixed", evidence, control)
    return Verdict(ARE_CAUSE, f"Yes: without them the second copy costs {effect:.2f} nats more.", "supported", evidence, control)


@dataclass(frozen=True)
class _Margin:
    """A difference between two effects on the same sequences: its mean and standard error."""

    mean: float
    error: float

    @property
    def clear(self) -> bool:
        return self.mean > STANDARD_ERRORS * self.error


def _margin(differences: Tensor) -> _Margin:
    n = len(differences)
    return _Margin(float(differences.mean()), float(differences.std()) / n**0.5 if n > 1 else 0.0)


def _shown_set(cause: Result, name: str) -> str:
    """The heads of a set, at most three of them."""
    heads = sets_of(cause)[name]
    return ", ".join(map(name_of, heads[:3])) + (" …" if len(heads) > 3 else "")


def _told_of_others(found: Found, worst: str | None, over: _Margin | None) -> str:
    """The sets of other heads in words, with the most costly one by name, and what its heads do by their best scores."""
    cause, scores = found["cause"], found.get("scores")
    if worst is None or over is None:
        return "too few other heads to compare with"
    values = cause.values[1, 1:].tolist()
    size, drawn = len(sets_of(cause)[worst]), worst.startswith(DRAWN)
    every = "every other head" if size == 1 else f"every set of {size} other heads"
    which = f"as many other heads, {len(values)} random draws" if drawn else f"{every}, {len(values)} in all"
    told = {head: best_score(scores, head) for head in sets_of(cause)[worst][:3]} if isinstance(scores, Result) else {}
    best = [f"{name_of(head)} {text}" if size > 1 else text for head, text in told.items() if text]
    known = (
        f", whose best score is {best[0]}" if size == 1 and best else f", whose best scores are {', '.join(best)}" if best else ""
    )
    return (
        f"{which}: {min(values):.3g} to {max(values):.3g} nats, the most without {_shown_set(cause, worst)}{known}; "
        f"difference to it {over.mean:+.3g} ± {over.error:.2g}"
    )


def _because(refused: Refused) -> str:
    return f"Because {refused.reason}."


def _baseline(result: Result, head: Head) -> str:
    baseline = torch.as_tensor(0.0 if result.baseline is None else result.baseline).expand(result.values.shape)
    return f"{at_head(replace(result, values=baseline), head):.3f}"
