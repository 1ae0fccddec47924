"""The predictions, fixed before any run, and what the results say of each."""

import torch
from torch import Tensor

from experiments.attention_ablation.config import BELOW, INTACT, MODES, NEAR, RECOVERED, SAME_HEADS, WORTH, inferred, trained
from experiments.attention_ablation.measure import BASE, RESTORED
from interp.report import Verdict
from interp.report.summaries import mean_of, of_variant, outcome, spread_of
from interp.result import Result


def verdicts(found: dict[str, Result]) -> list[Verdict]:
    """Every prediction's verdict, in the order of the question."""
    return [
        _worth(found),
        _recovers(found),
        _floor(found),
        _which(found),
        _heads(found),
        _mlps(found),
        _restored(found),
        _removed(found),
    ]


def headline(found: dict[str, Result]) -> str:
    """The answer to the question of the study, in two sentences."""
    table, floor = found["test loss"], bigram(found)
    return (
        f"On new text the model reaches {mean_of(table, INTACT):.2f} nats per token with its attention, {mean_of(table, inferred('zero')):.2f} when attention is zeroed "
        f"afterwards, and {mean_of(table, trained('zero')):.2f} when it is trained without; bigram counts reach {floor:.2f} and unigram counts {unigram(found):.2f}. "
        f"The cheapest stand-in for learnt attention is {_best(table)}: {mean_of(table, trained(_best(table))):.2f}."
    )


def bigram(found: dict[str, Result]) -> float:
    """The held-out loss of bigrams counted in most text."""
    return float(found["floors"].values[-1, 1, 0])


def unigram(found: dict[str, Result]) -> float:
    """The held-out loss of unigrams counted in most text."""
    return float(found["floors"].values[-1, 0, 0])


def recovered(table: Result, mode: str) -> Tensor:
    """Share of what ablation at inference costs that training under the ablation wins back, by seed."""
    intact, cut = of_variant(table, INTACT), of_variant(table, inferred(mode))
    return (cut - of_variant(table, trained(mode))) / (cut - intact)


def rank_correlation(left: Tensor, right: Tensor) -> float:
    """Spearman's, of two equally long lists without ties."""
    ranks = torch.stack([part.flatten().argsort().argsort().double() for part in (left, right)])
    return float(torch.corrcoef(ranks)[0, 1])


def _worth(found: dict[str, Result]) -> Verdict:
    table = found["test loss"]
    gain = bigram(found) - of_variant(table, INTACT)
    return Verdict(
        question="What is learnt attention worth?",
        answer=f"With attention the fine-tuned model reaches {mean_of(table, INTACT):.2f} nats, {_beside(-gain)} what bigram counts reach; "
        f"the same training without attention ends {mean_of(table, trained('zero')) - mean_of(table, INTACT):.2f} nats higher.",
        outcome=outcome(bool((gain > WORTH).all())),
        evidence=f"Predicted: more than {WORTH} below the bigram floor of {bigram(found):.2f} in every seed. Intact: {spread_of(table, INTACT)}.",
        control=f"Before the fine-tune: {spread_of(table, BASE)}.",
    )


def _recovers(found: dict[str, Result]) -> Verdict:
    table = found["test loss"]
    shares = {mode: recovered(table, mode) for mode in MODES}
    return Verdict(
        question="Does the rest of the network compensate?",
        answer="Of what an ablation at inference costs, training under it wins back "
        + ", ".join(f"{float(share.mean()):.0%} ({mode})" for mode, share in shares.items())
        + ".",
        outcome=outcome(bool((shares["zero"] > RECOVERED).all())),
        evidence=f"Predicted: more than {RECOVERED:.0%} for zeroed attention in every seed. Zeroed at inference {spread_of(table, inferred('zero'))}, "
        f"in training {spread_of(table, trained('zero'))}, intact {spread_of(table, INTACT)}.",
        control="Same base, rows, order and steps in each seed.",
    )


def _floor(found: dict[str, Result]) -> Verdict:
    table = found["test loss"]
    values = of_variant(table, trained("zero"))
    near = bool(((values - bigram(found)).abs() < NEAR).all()) and bool((values < unigram(found) - BELOW).all())
    return Verdict(
        question="What does it learn without attention?",
        answer=f"Context-free statistics: it ends {_beside(values - bigram(found))} the bigram floor and "
        f"{_beside(values - unigram(found))} the unigram floor.",
        outcome=outcome(near),
        evidence=f"Predicted: within {NEAR} of the bigram floor and more than {BELOW} below the unigram floor. Zeroed in training {spread_of(table, trained('zero'))}; "
        f"bigrams {bigram(found):.2f}, unigrams {unigram(found):.2f}.",
        control=f"Counted in the fine-tune's rows alone, bigrams reach {float(found['floors'].values[0, 1, 0]):.2f}: the base model has seen more text than those.",
    )


def _which(found: dict[str, Result]) -> Verdict:
    table = found["test loss"]
    order = sorted(MODES, key=lambda mode: mean_of(table, trained(mode)))
    previous = of_variant(table, trained("previous"))
    best = all(bool((previous < of_variant(table, trained(mode))).all()) for mode in MODES if mode != "previous")
    return Verdict(
        question="Which fixed pattern serves best?",
        answer="From best to worst: " + ", ".join(f"{mode} {mean_of(table, trained(mode)):.2f}" for mode in order) + ".",
        outcome=outcome(best and bool((previous > of_variant(table, INTACT)).all())),
        evidence="Predicted: the previous token, better than every other stand-in and worse than learnt attention, in every seed. "
        f"Previous {spread_of(table, trained('previous'))}, uniform {spread_of(table, trained('uniform'))}, random {spread_of(table, trained('random'))}.",
        control=f"Learnt attention: {spread_of(table, INTACT)}.",
    )


def _heads(found: dict[str, Result]) -> Verdict:
    before, after = found["heads"].values
    same = [rank_correlation(left, right) for left, right in zip(before, after, strict=True)]
    n = found["heads"].values.shape[-1]
    places = [divmod(int(row.argmax()), n) for row in after.flatten(1)]
    return Verdict(
        question="Do the same heads matter before and after?",
        answer=f"The rank correlation of the heads' effects is {', '.join(f'{value:.2f}' for value in same)} (by seed); the head that matters most afterwards is "
        + ", ".join(f"L{layer}H{head}" for layer, head in places)
        + ".",
        outcome=outcome(all(value > SAME_HEADS for value in same)),
        evidence=f"Predicted: above {SAME_HEADS} in every seed. Largest effect of a head before {float(before.max()):.2f} nats, after {float(after.max()):.2f}.",
        control=f"{before[0].numel()} heads; of independent rankings about one in thirty exceeds {SAME_HEADS} at that number of heads."
        if before[0].numel() == 8
        else "",
    )


def _mlps(found: dict[str, Result]) -> Verdict:
    table = found["MLPs"]
    names = table.labels_of("variant")
    intact, without = (table.values[names.index(name)].sum(-1) for name in (INTACT, trained("zero")))
    return Verdict(
        question="Where does the compensation sit?",
        answer=f"The MLPs' effects add up to {float(without.mean()):.2f} nats in the models trained without attention and to {float(intact.mean()):.2f} in the intact ones.",
        outcome=outcome(bool((without > intact).all())),
        evidence=f"Predicted: more, in every seed. By seed, without: {_listed(without)}; intact: {_listed(intact)}.",
        control="Each MLP alone, its output at its mean; the models trained without attention are swept without it.",
    )


def _restored(found: dict[str, Result]) -> Verdict:
    table = found["test loss"]
    cost = of_variant(table, RESTORED) - of_variant(table, trained("zero"))
    return Verdict(
        question="Does attention still help when it is put back?",
        answer=f"Attention put back into the models that adapted to its absence changes their loss by {float(cost.mean()):+.2f} nats.",
        outcome=outcome(bool((cost > 0).all())),
        evidence=f"Predicted: it hurts, in every seed. By seed: {_listed(cost)}. Its weights are those of the base, but for weight decay.",
        control=f"In the base model the same attention is in place: {spread_of(table, BASE)}.",
    )


def _removed(found: dict[str, Result]) -> Verdict:
    after, during = found["removal"].values.unbind(1)
    return Verdict(
        question="Is a removed ablation gone?",
        answer="Every logit is bit-equal to the untouched model's."
        if float(after.max()) == 0
        else f"Logits differ by up to {float(after.max()):.2g}.",
        outcome=outcome(float(after.max()) == 0 and float(during.min()) > 0.1),
        evidence="Predicted: a difference of exactly 0 after each mode was removed.",
        control=f"While they stood, logits differed by at least {float(during.min()):.1f}.",
    )


def _best(table: Result) -> str:
    return min(MODES, key=lambda mode: mean_of(table, trained(mode)))


def _beside(difference: Tensor) -> str:
    """`0.21 nats above` or `below`, the mean over seeds."""
    mean = float(difference.mean())
    return f"{abs(mean):.2f} nats {'above' if mean > 0 else 'below'}"


def _listed(values: Tensor) -> str:
    return ", ".join(f"{value:.2f}" for value in values.tolist())
