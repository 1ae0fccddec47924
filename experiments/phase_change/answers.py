"""The predictions, fixed before the reference runs, and what the results say of each."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from experiments.phase_change.config import (
    ABRUPT,
    COMPOSED,
    ONE,
    REMOVED,
    SMEARED,
    SPARED,
    STRONG,
    TOGETHER,
    TOLERANCE,
    TWO,
)
from interp.report import Verdict
from interp.report.summaries import mean_of, of_variant, outcome, spread, spread_of
from interp.result import Result
from interp.training import PhaseChange

Changes = Mapping[str, PhaseChange]
GAIN, PASSAGES, TEXT = "gain, random tokens", "gain, passages", "in-context learning"


def verdicts(
    final: Mapping[str, Result], changes: Changes, pair: Mapping[str, Result], cut: Mapping[str, Result]
) -> list[Verdict]:
    """Every prediction's verdict, in the order of the question."""
    return [
        _forms(final),
        _abrupt(changes, pair),
        _one_layer(final),
        _previous(changes),
        _composes(pair, changes),
        _together(changes),
        _text(final, cut),
        _cause(cut),
    ]


def headline(final: Mapping[str, Result], changes: Changes, cut: Mapping[str, Result]) -> str:
    """The answer to the question of the study, in a few sentences."""
    share = lost(cut[GAIN], "induction heads")
    found = changes["induction"]
    when = (
        f"around step {at(found, 't50'):,.0f}, within a factor of {10 ** at(found, 'width'):.1f} in steps"
        if found.found
        else "at no one step"
    )
    return (
        f"With two layers the best head's induction score rises to {mean_of(final['induction'], TWO):.2f} {when}; with one layer it ends at "
        f"{mean_of(final['induction'], ONE):.2f}. {_comes(changes)}: {mean_of(final[GAIN], TWO):.2f} nats at the end, of which ablating the "
        f"induction heads takes {float(share.mean()):.0%} away. On text as it is, late tokens are predicted "
        f"{_better(of_variant(final[TEXT], TWO))} than early ones."
    )


def at(change: PhaseChange, quantity: str, part: int = 0) -> float:
    """A quantity of a phase change: the median over seeds (part 0), its bounds (1, 2)."""
    return change.numbers.at(quantity=quantity, part=part).item()


def by_seed(change: PhaseChange, quantity: str) -> Tensor:
    """A quantity for each seed, NaN for one without a change."""
    return change.per_seed.at(quantity=quantity).values


def lost(table: Result, variant: str) -> Tensor:
    """The share of what the intact model gains that an ablation takes away, by seed."""
    intact = of_variant(table, "intact")
    return (intact - of_variant(table, variant)) / intact


def decades(left: PhaseChange, right: PhaseChange) -> Tensor:
    """How much later the middle of `left` is than that of `right`, in decades, by seed."""
    return (by_seed(left, "t50") / by_seed(right, "t50")).log10()


def _forms(final: Mapping[str, Result]) -> Verdict:
    table, null = final["induction"], final["induction, tokens in random order"]
    held = bool((of_variant(table, TWO) > STRONG).all()) and bool((of_variant(table, TWO) > of_variant(null, TWO)).all())
    return Verdict(
        question="Do induction heads form from this text?",
        answer=f"The best head puts {mean_of(table, TWO):.2f} of its attention on what followed last time, "
        f"{mean_of(table, TWO) / _baseline(table):.0f} times what a uniform head would.",
        outcome=outcome(held),
        evidence=f"Predicted: above {STRONG} on random repeats in every seed. By seed "
        f"{listed(of_variant(table, TWO))}; the head is chosen on other sequences than it is scored on.",
        control=f"The same tokens in random order, 95 % quantile: {listed(of_variant(null, TWO))}. The same head rests on the first token with "
        f"{mean_of(final['first token'], TWO):.2f}, all rows taken together.",
    )


def _abrupt(changes: Changes, pair: Mapping[str, Result]) -> Verdict:
    last = [float(step) for step in next(iter(pair.values())).labels_of("step")[-2:]]
    found = changes["induction"]
    width = by_seed(found, "width")
    held = found.share == 1 and bool((width < ABRUPT).all())
    return Verdict(
        question="Is it abrupt?",
        answer=f"In {_of_seeds(found)} the rise from a tenth to nine tenths takes {_factor(width)} in steps, around step "
        f"{at(found, 't50'):,.0f}{_interval(found)}."
        if found.found
        else f"No phase change is found: {found}.",
        outcome=outcome(held),
        evidence=f"Predicted: a phase change in every seed, less than {ABRUPT} decades wide. Found in {_of_seeds(found)}, middles by seed "
        f"at step {listed(by_seed(found, 't50'), 0)}, widths in decades {listed(width)}; readings stand {math.log10(last[1] / last[0]):.2f} decades apart, so no narrower "
        "width can be told.",
        control="A change counts only if it is more than twice the range of any one-layer model's curve, and left-out readings are predicted "
        "better than by a constant or a slow trend.",
    )


def _one_layer(final: Mapping[str, Result]) -> Verdict:
    table = final["induction"]
    limit = 2 * _baseline(table)
    held = bool((of_variant(table, ONE) < limit).all()) and bool((of_variant(table, SMEARED) > limit).all())
    return Verdict(
        question="Does it take two layers?",
        answer=f"One layer ends at {mean_of(table, ONE):.2f} and gains {mean_of(final[GAIN], ONE):.2f} nats on a repeat; one layer whose keys "
        f"carry the token before ends at {mean_of(table, SMEARED):.2f} and gains {mean_of(final[GAIN], SMEARED):.2f}.",
        outcome=outcome(held),
        evidence=f"Predicted: one layer below twice a uniform head, {limit:.2f}, in every seed; with smeared keys above. One layer "
        f"{spread_of(table, ONE)}, smeared {spread_of(table, SMEARED)}.",
        control="Same width, heads, data, steps and seeds.",
    )


def _previous(changes: Changes) -> Verdict:
    previous, induction = changes["previous token"], changes["induction"]
    later = decades(induction, previous)
    held = bool((later > -TOLERANCE).all())
    return Verdict(
        question="Does the previous-token head come first?",
        answer=f"The previous-token score is half way up at step {at(previous, 't50'):,.0f}, the induction score at {at(induction, 't50'):,.0f}."
        if previous.found and induction.found
        else f"Previous token: {previous}; induction: {induction}.",
        outcome=outcome(held) if not bool(later.isnan().any()) else "not tested",
        evidence=f"Predicted: not later than the induction head (by more than {TOLERANCE} decades), in every seed. Induction is later by {listed(later)} decades.",
        control="One layer also learns to look back, for other reasons: see the timelines.",
    )


def _composes(pair: Mapping[str, Result], changes: Changes) -> Verdict:
    ours, others = pair["the circuit's pair"], pair["other pairs, mean"]
    chance = _baseline(ours)
    start, end = ours.values[:, 0] / chance, ours.values[:, -1] / chance
    held = bool((end > COMPOSED).all()) and bool((start < 1.2).all())
    change = changes["K-composition"]
    return Verdict(
        question="Are the two heads wired to each other?",
        answer=f"The induction head's keys read what the previous-token head writes {float(end.mean()):.1f} times as much as chance, "
        f"{float(start.mean()):.1f} times before training"
        + (f"; half of the rise is done at step {at(change, 't50'):,.0f}." if change.found else "."),
        outcome=outcome(held),
        evidence=f"Predicted: more than {COMPOSED} times chance ({chance:.3f}) at the end, in every seed. By seed {listed(end)}.",
        control=f"All other pairs on average end at {listed(others.values[:, -1] / chance)} times chance. The pair is chosen by its attention alone.",
    )


def _together(changes: Changes) -> Verdict:
    induction = changes["induction"]
    apart = {name: decades(changes[name], induction) for name in (GAIN, PASSAGES)}
    held = all(bool((value.abs() < TOGETHER).all()) for value in apart.values())
    tested = not any(bool(value.isnan().any()) for value in apart.values())
    return Verdict(
        question="Does the gain on repeats come with them?",
        answer=f"Half of the gain is there at step {at(changes[GAIN], 't50'):,.0f} on random tokens and {at(changes[PASSAGES], 't50'):,.0f} on held-out "
        f"passages; half of the induction score at {at(induction, 't50'):,.0f}."
        if tested
        else "Not every seed has a change: " + "; ".join(f"{name}: {changes[name]}" for name in (GAIN, PASSAGES)) + ".",
        outcome=outcome(held) if tested else "not tested",
        evidence=f"Predicted: within {TOGETHER} decades of each other in every seed. Apart by {listed(apart[GAIN])} (random) and "
        f"{listed(apart[PASSAGES])} (passages).",
        control="The gain is the loss on the first copy minus the loss on the second; it says nothing about attention.",
    )


def _text(final: Mapping[str, Result], cut: Mapping[str, Result]) -> Verdict:
    table = final[TEXT]
    two, one = of_variant(table, TWO), of_variant(table, ONE)
    return Verdict(
        question="Does in-context learning on text as it is come with them?",
        answer=f"Late tokens are predicted {_better(two)} than early ones, with one layer {_better(one)}; in the two-layer models without their "
        f"induction heads, {_better(of_variant(cut[TEXT], 'induction heads'))}.",
        outcome=outcome(bool((two < one).all())),
        evidence=f"Predicted: two layers gain more from context than one, in every seed. Late minus early: two layers {listed(two)}, one layer {listed(one)} "
        "(negative: learns in context).",
        control=f"With smeared keys: {listed(of_variant(table, SMEARED))}. The share of training sequences that repeat a passage stands above; this text does not repeat.",
    )


def _cause(cut: Mapping[str, Result]) -> Verdict:
    table = cut[GAIN]
    ours, worst = lost(table, "induction heads"), lost(table, "as many others, most harmful")
    held = bool((ours > REMOVED).all()) and bool((worst < SPARED).all())
    return Verdict(
        question="Are they the cause?",
        answer=f"Ablating the induction heads takes away {float(ours.mean()):.0%} of the gain on random repeats; ablating as many others, "
        f"{float(lost(table, 'as many others, mean').mean()):.0%} on average and {float(worst.mean()):.0%} at worst; the previous-token head, "
        f"{float(lost(table, 'previous-token head').mean()):.0%}.",
        outcome=outcome(held),
        evidence=f"Predicted: more than {REMOVED:.0%} in every seed, and less than {SPARED:.0%} for every other set of that size. By seed "
        f"{listed(ours)}; others at worst {listed(worst)}.",
        control="Ablated heads write their mean over held-out text. Other sets: all that hold neither an induction head nor the previous-token head.",
    )


def listed(values: Tensor, digits: int = 2) -> str:
    """One number per seed."""
    return ", ".join("none" if math.isnan(value) else f"{value:,.{digits}f}" for value in values.tolist())


def _of_seeds(found: PhaseChange) -> str:
    n = len(found.reasons)
    return f"all {n} seeds" if found.share == 1 else f"{round(found.share * n)} of {n} seeds"


def _comes(changes: Changes) -> str:
    """Whether the gain on a repeat comes at the time of the induction score, as far as that can be said."""
    apart = decades(changes[GAIN], changes["induction"])
    if bool(apart.isnan().any()):
        return "When the gain on a repeat comes cannot be told in every seed"
    return f"The gain on a repeat {'comes with it' if bool((apart.abs() < TOGETHER).all()) else 'comes at another time'}"


def _factor(width: Tensor) -> str:
    return f"a factor of {spread(10 ** width[~width.isnan()], 1)}"


def _interval(found: PhaseChange) -> str:
    low, high = at(found, "t50", 1), at(found, "t50", 2)
    return "" if math.isnan(low) else f" (median over seeds; between {low:,.0f} and {high:,.0f})"


def _better(difference: Tensor) -> str:
    mean = float(torch.as_tensor(difference).mean())
    return f"{abs(mean):.2f} nats {'better' if mean < 0 else 'worse'}"


def _baseline(result: Result) -> float:
    assert isinstance(result.baseline, float)
    return result.baseline
