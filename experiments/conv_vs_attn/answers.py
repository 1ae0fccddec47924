"""The predictions, and what the results say of each: in words, with the numbers of every seed."""

from torch import Tensor

from experiments.conv_vs_attn.config import (
    ATTN,
    CONV,
    CONV_RESIDUAL,
    FROZEN,
    MASKED,
    ONE_PERIOD,
    REPEATS,
    SMEARED,
    SUPPLIED,
)
from interp.report import Verdict
from interp.report.blocks import Outcome
from interp.result import Result

STRONG = 0.5  # an induction score that counts as having learnt it
SMEAR = 0.1  # a share of the key that counts as smeared


def verdicts(repeated: dict[str, Result], text: dict[str, Result]) -> list[Verdict]:
    """Every prediction's verdict, in the order of the question."""
    return [
        _keys_smear(repeated),
        _who_learns(repeated),
        _masked(repeated),
        _supplied(repeated),
        _frozen(repeated),
        _one_period(repeated),
        _text(text),
        _text_change(text),
    ]


def headline(repeated: dict[str, Result], text: dict[str, Result]) -> str:
    """The answer to the question of the study, in two sentences."""
    conv, attn = (_mean(repeated["induction"], name) for name in (CONV, ATTN))
    masked, share = _mean(repeated["induction"], MASKED), _mean(repeated["smear"], CONV)
    first = (
        f"On repeated random tokens ConvAttn reaches an induction score of {conv:.2f} and AttnAttn {attn:.2f}; "
        f"{share:.0%} of ConvAttn's keys comes from the previous token, and without that tap the score is {masked:.2f}. "
    )
    alone, helped = (_mean(text["induction"], name) for name in (CONV, CONV_RESIDUAL + REPEATS))
    return first + (
        f"From text ConvAttn reaches {alone:.2f}; given a residual stream and text that repeats, the same head reaches {helped:.2f}."
    )


def spread(result: Result, variant: str) -> str:
    """`0.97 (0.96–0.98)` for one variant of a table: mean over seeds, lowest, highest."""
    values = _values(result, variant)
    low, high = float(values.min()), float(values.max())
    mean, low, high = (f"{value + 0.0 if abs(value) >= 0.005 else 0.0:.2f}" for value in (float(values.mean()), low, high))
    return f"{mean}\u00a0({low}\u2060–\u2060{high})"  # not to be broken over lines


def _keys_smear(found: dict[str, Result]) -> Verdict:
    smear, back = found["smear"], found["smear, two back"]
    share = _mean(smear, CONV)
    clean = float(_values(back, CONV).abs().max()) < 1e-6 and float(_values(smear, ATTN).abs().max()) < 1e-6
    return Verdict(
        question="Do the convolution's keys smear, and with what weight?",
        answer=f"{share:.0%} of a key comes from the previous token and {1 - share:.0%} from the current one: "
        f"previous : current = {share:.2f} : {1 - share:.2f}.",
        outcome=_outcome(_all_above(smear, CONV, SMEAR) and clean),
        evidence=f"Predicted: ConvAttn above {SMEAR}, and nothing two back or in AttnAttn. ConvAttn {spread(smear, CONV)}; "
        f"SmearedKeyAttn {spread(smear, SMEARED)}.",
        control=f"The token two back moves ConvAttn's key by {_mean(back, CONV):.2f}; AttnAttn's first layer {spread(smear, ATTN)}; "
        f"previous tap masked {spread(smear, MASKED)}.",
    )


def _who_learns(found: dict[str, Result]) -> Verdict:
    score, gain = found["induction"], found["gain"]
    learned = _all_above(score, CONV, STRONG) and _all_below(score, ATTN, 2 * _baseline(score))
    return Verdict(
        question="Which architecture attends to what followed last time, and what does a repeat gain it?",
        answer=f"ConvAttn: {_mean(score, CONV):.2f} of its attention, worth {_mean(gain, CONV):.2f} nats per token. "
        f"AttnAttn: {_mean(score, ATTN):.2f}, worth {_mean(gain, ATTN):.2f} nats.",
        outcome=_outcome(learned),
        evidence=f"Predicted: ConvAttn above {STRONG}, AttnAttn below {2 * _baseline(score):.2f}. Induction: ConvAttn {spread(score, CONV)}; "
        f"AttnAttn {spread(score, ATTN)}; SmearedKeyAttn {spread(score, SMEARED)}. Gain: {spread(gain, CONV)}; {spread(gain, ATTN)}; "
        f"{spread(gain, SMEARED)}.",
        control=f"A head that attends uniformly scores {_baseline(score):.2f}.",
    )


def _masked(found: dict[str, Result]) -> Verdict:
    score, gain = found["induction"], found["gain"]
    return Verdict(
        question="Is it really the convolution? Mask the previous tap.",
        answer=f"Induction is {_mean(score, CONV):.2f} with it and {_mean(score, MASKED):.2f} without, "
        f"the gain {_mean(gain, CONV):.2f} and {_mean(gain, MASKED):.2f} nats.",
        outcome=_outcome(_all_above(score, CONV, STRONG) and _all_below(score, MASKED, 2 * _baseline(score))),
        evidence=f"Predicted: below {2 * _baseline(score):.2f}, twice a uniform head's. Previous tap masked: {spread(score, MASKED)}; "
        f"gain {spread(gain, MASKED)}.",
        control=f"The same model with the tap: {spread(score, CONV)}.",
    )


def _supplied(found: dict[str, Result]) -> Verdict:
    score = found["induction"]
    return Verdict(
        question="Does AttnAttn do it once it has positions and a residual stream?",
        answer=f"Induction is {_mean(score, ATTN):.2f} without them and {_mean(score, SUPPLIED):.2f} with them.",
        outcome=_outcome(_all_above(score, SUPPLIED, STRONG) and _all_below(score, ATTN, 2 * _baseline(score))),
        evidence=f"Predicted: above {STRONG}. With both: {spread(score, SUPPLIED)}; a uniform head {_baseline(score):.2f}.",
        control=f"AttnAttn without: {spread(score, ATTN)}. Scores are read on repeats shorter than any trained on.",
    )


def _frozen(found: dict[str, Result]) -> Verdict:
    score, smear = found["induction"], found["smear"]
    return Verdict(
        question="Must the kernel be trained?",
        answer=f"With a random kernel that is never trained, induction is {_mean(score, FROZEN):.2f}; trained, {_mean(score, CONV):.2f}.",
        outcome=_outcome(_all_above(score, FROZEN, STRONG) and _all_below(score, MASKED, 2 * _baseline(score))),
        evidence=f"Predicted: above {STRONG} without training. Frozen: {spread(score, FROZEN)}; its keys owe {spread(smear, FROZEN)} to the previous token.",
        control=f"Frozen is how the published model runs: its kernel gets no gradient. Previous tap masked: {spread(score, MASKED)}.",
    )


def _one_period(found: dict[str, Result]) -> Verdict:
    here, elsewhere = found["induction, trained length"], found["induction"]
    trap = _all_above(here, ONE_PERIOD, STRONG) and _all_below(elsewhere, ONE_PERIOD, 2 * _baseline(elsewhere))
    return Verdict(
        question="Is a high score at the trained length evidence of induction?",
        answer=f"No: trained on one length, AttnAttn + positions + residual scores {_mean(here, ONE_PERIOD):.2f} at that length "
        f"and {_mean(elsewhere, ONE_PERIOD):.2f} at another."
        if trap
        else f"Trained on one length it scores {_mean(here, ONE_PERIOD):.2f} there and {_mean(elsewhere, ONE_PERIOD):.2f} at another length.",
        outcome=_outcome(trap),
        evidence=f"Predicted: above {STRONG} there, below {2 * _baseline(elsewhere):.2f} elsewhere. At the trained length {spread(here, ONE_PERIOD)}, at a shorter one {spread(elsewhere, ONE_PERIOD)}.",
        control=f"Trained on many lengths: {spread(here, SUPPLIED)} and {spread(elsewhere, SUPPLIED)}.",
    )


def _text(found: dict[str, Result]) -> Verdict:
    score, gain = found["induction"], found["gain"]
    limit = 2 * _baseline(score)
    none = _all_below(score, CONV, limit) and _all_below(score, CONV + REPEATS, limit)
    learnable = _all_above(score, SMEARED + REPEATS, limit) or _all_above(score, CONV_RESIDUAL + REPEATS, limit)
    return Verdict(
        question="Does ConvAttn learn induction from text?",
        answer=f"{'No: ' if none and learnable else ''}{_mean(score, CONV):.2f} of its attention on repeated passages, "
        f"a gain of {_mean(gain, CONV):.2f} nats; when the training text repeats, {_mean(score, CONV + REPEATS):.2f} and "
        f"{_mean(gain, CONV + REPEATS):.2f} nats.",
        outcome=_outcome(none) if learnable else "not tested",
        evidence=f"Predicted: no, below {limit:.2f} on both. ConvAttn {spread(score, CONV)}; on repeating text {spread(score, CONV + REPEATS)}; AttnAttn {spread(score, ATTN)}.",
        control=f"A uniform head scores {_baseline(score):.2f}; SmearedKeyAttn on repeating text {spread(score, SMEARED + REPEATS)}. "
        f"Where ConvAttn looks instead: {_mean(found['itself'], CONV):.0%} at the position itself and, where there is one, "
        f"{_mean(found['earlier copy'], CONV):.0%} at earlier copies of its token (to the kernel, two with equal tokens before them are the same).",
    )


def _text_change(found: dict[str, Result]) -> Verdict:
    score, gain = found["induction"], found["gain"]
    both = CONV_RESIDUAL + REPEATS
    brought = _all_above(score, both, 2 * _baseline(score)) and _all_below(score, CONV_RESIDUAL, 2 * _baseline(score))
    return Verdict(
        question="Which change brings it?",
        answer=f"{'A residual stream, on text that repeats' if brought else 'Not the one predicted, a residual stream on text that repeats'}: "
        f"from {_mean(score, CONV + REPEATS):.2f} to {_mean(score, both):.2f}, "
        f"a gain of {_mean(gain, both):.2f} nats. On text as it is, the residual stream alone gives {_mean(score, CONV_RESIDUAL):.2f}.",
        outcome=_outcome(brought),
        evidence=f"Predicted: with both above {2 * _baseline(score):.2f}, with the residual alone below. Residual + repeats {spread(score, both)}; residual alone {spread(score, CONV_RESIDUAL)}; "
        f"repeats alone {spread(score, CONV + REPEATS)}.",
        control=f"SmearedKeyAttn, whose values are left alone: {spread(score, SMEARED)} on text, "
        f"{spread(score, SMEARED + REPEATS)} when it repeats.",
    )


def _values(result: Result, variant: str) -> Tensor:
    return result.values[result.labels_of("variant").index(variant)]


def _mean(result: Result, variant: str) -> float:
    return float(_values(result, variant).mean())


def _baseline(result: Result) -> float:
    assert isinstance(result.baseline, float)
    return result.baseline


def _all_above(result: Result, variant: str, limit: float) -> bool:
    return bool((_values(result, variant) > limit).all())


def _all_below(result: Result, variant: str, limit: float) -> bool:
    return bool((_values(result, variant) < limit).all())


def _outcome(held: bool) -> Outcome:
    return "supported" if held else "refuted"
