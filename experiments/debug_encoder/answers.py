"""The predictions, and what the results say of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from experiments.debug_encoder.measure import Diagnoses, is_found
from experiments.debug_encoder.planted import BUGS
from interp.report import Verdict
from interp.report.blocks import Outcome
from interp.report.summaries import spread

CORRECT, MISSING, WRONG_SUM, REVERSED = "correct", "residual missing", "residual around the wrong sum", "padding mask reversed"
VARIANTS = (CORRECT, MISSING, WRONG_SUM, REVERSED)
MARGIN = 0.1  # of accuracy


@dataclass(frozen=True)
class Found:
    """Everything the study measured; accuracies are those on the held-out tenth, one per seed."""

    planted: Diagnoses
    healthy: Diagnoses
    trained: Diagnoses
    accuracy: Mapping[str, Sequence[float]]
    floor: float  # what needs no attention
    floor_name: str
    bag_of_words: float
    hf_accuracy: float
    hf_before: Sequence[str]
    hf_after: Sequence[str]
    hf_name: str


def counts(found: Found) -> tuple[int, int, int, int]:
    """Planted bugs found and tried; healthy models blamed and tried."""
    hits = sum(is_found(bug, each) for bug in BUGS for each in found.planted[bug.name])
    tried = sum(map(len, found.planted.values()))
    blamed = sum(not each.healthy for group in found.healthy.values() for each in group)
    return hits, tried, blamed, sum(map(len, found.healthy.values()))


def verdicts(found: Found) -> list[Verdict]:
    """Every prediction's verdict."""
    return [_bugs(found), _alarms(found), _after_training(found), _padding(found), _residuals(found), _practical(found)]


def headline(found: Found) -> str:
    """The answer in two sentences."""
    hits, tried, blamed, healthy = counts(found)
    mean = {name: sum(values) / len(values) for name, values in found.accuracy.items()}
    return (
        f"`interp.diagnose` finds {hits} of {tried} planted bugs and blames {blamed} of {healthy} healthy models. "
        f"Accuracy alone tells less: {mean[CORRECT]:.2f} for the correct encoder (counting words: {found.bag_of_words:.2f}), {mean[MISSING]:.2f} without the attention residual, "
        f"{mean[WRONG_SUM]:.2f} with it around the wrong sum, {mean[REVERSED]:.2f} with attention on padding alone."
    )


def _bugs(found: Found) -> Verdict:
    hits, tried, _, _ = counts(found)
    missed = [bug.name for bug in BUGS if not all(is_found(bug, each) for each in found.planted[bug.name])]
    return Verdict(
        question="Is every planted bug found?",
        answer=f"{hits} of {tried} broken models are found." + (f" Missed at times: {', '.join(missed)}." if missed else ""),
        outcome="refuted" if missed else "supported",
        evidence=f"Predicted: each of {len(BUGS)} bugs, on every seed, by the check meant for it, before any training.",
        control="The same models without the bug are among the healthy ones.",
    )


def _alarms(found: Found) -> Verdict:
    _, _, blamed, healthy = counts(found)
    alarms = sorted(
        {f"{name}: {', '.join(each.found)}" for name, group in found.healthy.items() for each in group if not each.healthy}
    )
    bound = 3 / healthy
    return Verdict(
        question="Is a healthy model ever blamed?",
        answer=f"{blamed} of {healthy} healthy models are blamed." + (f" {'; '.join(alarms)}." if alarms else ""),
        outcome="supported" if not blamed else "refuted",
        evidence=f"Predicted: none, of {len(found.healthy)} kinds, untrained and trained."
        + ("" if blamed else f" With none in {healthy} the rate is below {bound:.1%} (95 %)."),
        control="Limits that never speak would pass this: the planted bugs are the control.",
    )


def _after_training(found: Found) -> Verdict:
    bugs = {bug.name: bug for bug in BUGS}
    kept = {name: [is_found(bugs[name], each) for each in found.trained[name]] for name in VARIANTS[1:]}
    clean = [each.healthy for each in found.trained[CORRECT]]
    told = "; ".join(f"{name}: {sum(hits)} of {len(hits)}" for name, hits in kept.items())
    return Verdict(
        question="Are the bugs still found once the model has been trained with them?",
        answer=f"{told}; correct encoders blamed: {clean.count(False)} of {len(clean)}.",
        outcome="supported" if all(clean) and all(all(hits) for hits in kept.values()) else "refuted",
        evidence="Predicted: on every seed, and no alarm on the correct one.",
        control="The correct encoder, trained on the same texts in the same order.",
    )


def _padding(found: Found) -> Verdict:
    correct, broken = found.accuracy[CORRECT], found.accuracy[REVERSED]
    learnt = all(value > found.floor + MARGIN / 2 for value in correct)
    worse = all(a - b > MARGIN for a, b in zip(correct, broken, strict=True))
    outcome: Outcome = "not tested" if not learnt else "supported" if worse else "refuted"
    return Verdict(
        question="What does attention that sees only padding cost?",
        answer=f"Accuracy on the held-out tenth is {spread(correct)} with the right mask and {spread(broken)} with the reversed one.",
        outcome=outcome,
        evidence=f"Predicted: more than {MARGIN} lower on every seed, since negations need attention. {found.floor_name}: {found.floor:.2f}.",
        control="It counts only where the correct encoder learnt more than that floor.",
    )


def _residuals(found: Found) -> Verdict:
    correct = found.accuracy[CORRECT]
    gaps = {name: [a - b for a, b in zip(correct, found.accuracy[name], strict=True)] for name in (MISSING, WRONG_SUM)}
    learnt = all(value > found.floor + MARGIN / 2 for value in correct)
    hidden = all(abs(gap) < MARGIN for values in gaps.values() for gap in values)
    told = "; ".join(f"{name}: {spread(found.accuracy[name])}" for name in gaps)
    return Verdict(
        question="Would the accuracy have shown the residual bugs?",
        answer=f"Correct: {spread(correct)}; {told}.",
        outcome="not tested" if not learnt else "supported" if hidden else "mixed" if _some_hidden(gaps) else "refuted",
        evidence=f"Predicted: no, within {MARGIN} of the correct encoder on every seed: two layers learn around a lost residual.",
        control="The reversed padding mask, which should show.",
    )


def _some_hidden(gaps: Mapping[str, Sequence[float]]) -> bool:
    return any(abs(gap) < MARGIN for values in gaps.values() for gap in values)


def _practical(found: Found) -> Verdict:
    clean = not found.hf_before and not found.hf_after
    told = ", ".join([*found.hf_before, *found.hf_after]) or "nothing"
    return Verdict(
        question="And the practical way, Hugging Face's Trainer?",
        answer=f"{found.hf_accuracy:.2f} on the held-out tenth; `diagnose` finds {told}, before and after.",
        outcome="supported" if clean and found.hf_accuracy > found.floor else "refuted",
        evidence=f"Predicted: above {found.floor:.2f} ({found.floor_name.lower()}) and no finding. The model: {found.hf_name}.",
        control="The same checks on the broken encoders.",
    )
