"""The verdicts of an overview, from results alone; every threshold is named in the evidence."""

from dataclasses import replace
from typing import Any

import torch

from interp.pages.heads import (
    ENOUGH,
    STANDARD_ERRORS,
    TIMES_UNIFORM,
    Head,
    ablated_heads,
    at_head,
    induction_heads,
    name_of,
    null_of,
    score_of,
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
    """Whether ablating the heads that pass costs the second copy, more than it costs the first and more than other heads do."""
    cause: Any = found["cause"]
    if isinstance(cause, Refused):
        return Verdict(ARE_CAUSE, NOT_ASKED, "not tested", _because(cause))
    effect, first = _effect(cause, copy=1), _effect(cause, copy=0)
    error = 0.0 if cause.stderr is None else float(cause.stderr[1, 0])
    others = cause.values[1, 1:].tolist()
    told = (
        f"as many other heads, {len(others)} draws: {min(others):.3g} to {max(others):.3g} nats"
        if others
        else "too few other heads for random draws"
    )
    evidence = (
        f"Predicted: without them the loss on the second copy rises by at least {LEAST_EFFECT} nats and {STANDARD_ERRORS:g} "
        "standard errors, by more than without any draw of as many other heads, and by more than on the first copy. Measured: "
        f"{effect:+.3g} ± {error:.2g} nats on the second copy, {first:+.3g} on the first; {told}. "
        f"Mean ablation of {ablated_heads(cause)}."
    )
    control = "Other heads, ablated in the same way, and the first copy, where there is nothing to copy yet."
    clear = effect >= LEAST_EFFECT and effect > STANDARD_ERRORS * error
    beyond = effect > max([first, *others])
    if not clear:
        return Verdict(ARE_CAUSE, "No: without them it predicts as well.", "refuted", evidence, control)
    if not beyond:
        which = "other heads cost as much" if others and max(others) >= effect else "the first copy suffers as much"
        return Verdict(ARE_CAUSE, f"Not they alone: {which}.", "mixed", evidence, control)
    return Verdict(ARE_CAUSE, f"Yes: without them the second copy costs {effect:.2f} nats more.", "supported", evidence, control)


def _effect(cause: Result, copy: int) -> float:
    return float(cause.values[copy, 0])


def _because(refused: Refused) -> str:
    return f"Because {refused.reason}."


def _baseline(result: Result, head: Head) -> str:
    baseline = torch.as_tensor(0.0 if result.baseline is None else result.baseline).expand(result.values.shape)
    return f"{at_head(replace(result, values=baseline), head):.3f}"
