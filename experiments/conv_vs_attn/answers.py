"""The predictions, and what the results say of each: in words, with the numbers of every seed."""

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
from interp.report.summaries import mean_of, of_variant, outcome, spread_of
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
    conv, attn = (mean_of(repeated["induction"], name) for name in (CONV, ATTN))
    masked, share = mean_of(repeated["induction"], MASKED), mean_of(repeated["smear"], CONV)
    first = (
        f"On repeated random tokens ConvAttn reaches an induction score of {conv:.2f} and AttnAttn {attn:.2f}; "
        f"{share:.0%} of ConvAttn's keys comes from the previous token, and without that tap the score is {masked:.2f}. "
    )
    alone, helped = (mean_of(text["induction"], name) for name in (CONV, CONV_RESIDUAL + REPEATS))
    return first + (
        f"From text ConvAttn reaches {alone:.2f}; given a residual stream and text that repeats, the same head reaches {helped:.2f}."
    )


def _keys_smear(found: dict[str, Result]) -> Verdict:
    smear, back = found["smear"], found["smear, two back"]
    share = mean_of(smear, CONV)
    clean = float(of_variant(back, CONV).abs().max()) < 1e-6 and float(of_variant(smear, ATTN).abs().max()) < 1e-6
    return Verdict(
        question="Do the convolution's keys smear, and with what weight?",
        answer=f"{share:.0%} of a key comes from the previous token and {1 - share:.0%} from the current one: "
        f"previous : current = {share:.2f} : {1 - share:.2f}.",
        outcome=outcome(_all_above(smear, CONV, SMEAR) and clean),
        evidence=f"Predicted: ConvAttn above {SMEAR}, and nothing two back or in AttnAttn. ConvAttn {spread_of(smear, CONV)}; "
        f"SmearedKeyAttn {spread_of(smear, SMEARED)}.",
        control=f"The token two back moves ConvAttn's key by {mean_of(back, CONV):.2f}; AttnAttn's first layer {spread_of(smear, ATTN)}; "
        f"previous tap masked {spread_of(smear, MASKED)}.",
    )


def _who_learns(found: dict[str, Result]) -> Verdict:
    score, gain = found["induction"], found["gain"]
    learned = _all_above(score, CONV, STRONG) and _all_below(score, ATTN, 2 * _baseline(score))
    return Verdict(
        question="Which architecture attends to what followed last time, and what does a repeat gain it?",
        answer=f"ConvAttn: {mean_of(score, CONV):.2f} of its attention, worth {mean_of(gain, CONV):.2f} nats per token. "
        f"AttnAttn: {mean_of(score, ATTN):.2f}, worth {mean_of(gain, ATTN):.2f} nats.",
        outcome=outcome(learned),
        evidence=f"Predicted: ConvAttn above {STRONG}, AttnAttn below {2 * _baseline(score):.2f}. Induction: ConvAttn {spread_of(score, CONV)}; "
        f"AttnAttn {spread_of(score, ATTN)}; SmearedKeyAttn {spread_of(score, SMEARED)}. Gain: {spread_of(gain, CONV)}; {spread_of(gain, ATTN)}; "
        f"{spread_of(gain, SMEARED)}.",
        control=f"A head that attends uniformly scores {_baseline(score):.2f}.",
    )


def _masked(found: dict[str, Result]) -> Verdict:
    score, gain = found["induction"], found["gain"]
    return Verdict(
        question="Is it really the convolution? Mask the previous tap.",
        answer=f"Induction is {mean_of(score, CONV):.2f} with it and {mean_of(score, MASKED):.2f} without, "
        f"the gain {mean_of(gain, CONV):.2f} and {mean_of(gain, MASKED):.2f} nats.",
        outcome=outcome(_all_above(score, CONV, STRONG) and _all_below(score, MASKED, 2 * _baseline(score))),
        evidence=f"Predicted: below {2 * _baseline(score):.2f}, twice a uniform head's. Previous tap masked: {spread_of(score, MASKED)}; "
        f"gain {spread_of(gain, MASKED)}.",
        control=f"The same model with the tap: {spread_of(score, CONV)}.",
    )


def _supplied(found: dict[str, Result]) -> Verdict:
    score = found["induction"]
    return Verdict(
        question="Does AttnAttn do it once it has positions and a residual stream?",
        answer=f"Induction is {mean_of(score, ATTN):.2f} without them and {mean_of(score, SUPPLIED):.2f} with them.",
        outcome=outcome(_all_above(score, SUPPLIED, STRONG) and _all_below(score, ATTN, 2 * _baseline(score))),
        evidence=f"Predicted: above {STRONG}. With both: {spread_of(score, SUPPLIED)}; a uniform head {_baseline(score):.2f}.",
        control=f"AttnAttn without: {spread_of(score, ATTN)}. Scores are read on repeats shorter than any trained on.",
    )


def _frozen(found: dict[str, Result]) -> Verdict:
    score, smear = found["induction"], found["smear"]
    return Verdict(
        question="Must the kernel be trained?",
        answer=f"With a random kernel that is never trained, induction is {mean_of(score, FROZEN):.2f}; trained, {mean_of(score, CONV):.2f}.",
        outcome=outcome(_all_above(score, FROZEN, STRONG) and _all_below(score, MASKED, 2 * _baseline(score))),
        evidence=f"Predicted: above {STRONG} without training. Frozen: {spread_of(score, FROZEN)}; its keys owe {spread_of(smear, FROZEN)} to the previous token.",
        control=f"Frozen is how the published model runs: its kernel gets no gradient. Previous tap masked: {spread_of(score, MASKED)}.",
    )


def _one_period(found: dict[str, Result]) -> Verdict:
    here, elsewhere = found["induction, trained length"], found["induction"]
    trap = _all_above(here, ONE_PERIOD, STRONG) and _all_below(elsewhere, ONE_PERIOD, 2 * _baseline(elsewhere))
    return Verdict(
        question="Is a high score at the trained length evidence of induction?",
        answer=f"No: trained on one length, AttnAttn + positions + residual scores {mean_of(here, ONE_PERIOD):.2f} at that length "
        f"and {mean_of(elsewhere, ONE_PERIOD):.2f} at another."
        if trap
        else f"Trained on one length it scores {mean_of(here, ONE_PERIOD):.2f} there and {mean_of(elsewhere, ONE_PERIOD):.2f} at another length.",
        outcome=outcome(trap),
        evidence=f"Predicted: above {STRONG} there, below {2 * _baseline(elsewhere):.2f} elsewhere. At the trained length {spread_of(here, ONE_PERIOD)}, at a shorter one {spread_of(elsewhere, ONE_PERIOD)}.",
        control=f"Trained on many lengths: {spread_of(here, SUPPLIED)} and {spread_of(elsewhere, SUPPLIED)}.",
    )


def _text(found: dict[str, Result]) -> Verdict:
    score, gain = found["induction"], found["gain"]
    limit = 2 * _baseline(score)
    none = _all_below(score, CONV, limit) and _all_below(score, CONV + REPEATS, limit)
    learnable = _all_above(score, SMEARED + REPEATS, limit) or _all_above(score, CONV_RESIDUAL + REPEATS, limit)
    return Verdict(
        question="Does ConvAttn learn induction from text?",
        answer=f"{'No: ' if none and learnable else ''}{mean_of(score, CONV):.2f} of its attention on repeated passages, "
        f"a gain of {mean_of(gain, CONV):.2f} nats; when the training text repeats, {mean_of(score, CONV + REPEATS):.2f} and "
        f"{mean_of(gain, CONV + REPEATS):.2f} nats.",
        outcome=outcome(none) if learnable else "not tested",
        evidence=f"Predicted: no, below {limit:.2f} on both. ConvAttn {spread_of(score, CONV)}; on repeating text {spread_of(score, CONV + REPEATS)}; AttnAttn {spread_of(score, ATTN)}.",
        control=f"A uniform head scores {_baseline(score):.2f}; SmearedKeyAttn on repeating text {spread_of(score, SMEARED + REPEATS)}. "
        f"Where ConvAttn looks instead: {mean_of(found['itself'], CONV):.0%} at the position itself and, where there is one, "
        f"{mean_of(found['earlier copy'], CONV):.0%} at earlier copies of its token (to the kernel, two with equal tokens before them are the same).",
    )


def _text_change(found: dict[str, Result]) -> Verdict:
    score, gain = found["induction"], found["gain"]
    both = CONV_RESIDUAL + REPEATS
    brought = _all_above(score, both, 2 * _baseline(score)) and _all_below(score, CONV_RESIDUAL, 2 * _baseline(score))
    return Verdict(
        question="Which change brings it?",
        answer=f"{'A residual stream, on text that repeats' if brought else 'Not the one predicted, a residual stream on text that repeats'}: "
        f"from {mean_of(score, CONV + REPEATS):.2f} to {mean_of(score, both):.2f}, "
        f"a gain of {mean_of(gain, both):.2f} nats. On text as it is, the residual stream alone gives {mean_of(score, CONV_RESIDUAL):.2f}.",
        outcome=outcome(brought),
        evidence=f"Predicted: with both above {2 * _baseline(score):.2f}, with the residual alone below. Residual + repeats {spread_of(score, both)}; residual alone {spread_of(score, CONV_RESIDUAL)}; "
        f"repeats alone {spread_of(score, CONV + REPEATS)}.",
        control=f"SmearedKeyAttn, whose values are left alone: {spread_of(score, SMEARED)} on text, "
        f"{spread_of(score, SMEARED + REPEATS)} when it repeats.",
    )


def _baseline(result: Result) -> float:
    assert isinstance(result.baseline, float)
    return result.baseline


def _all_above(result: Result, variant: str, limit: float) -> bool:
    return bool((of_variant(result, variant) > limit).all())


def _all_below(result: Result, variant: str, limit: float) -> bool:
    return bool((of_variant(result, variant) < limit).all())
