"""The predictions, fixed after a pilot with seed 0 and before the runs of the page, and what the results say of each."""

from torch import Tensor

from experiments.optimizer_comparison.config import ADAM, ADAMW, MOMENTUM, MUON, OPTIMIZERS, SGD, lowest
from interp.report import Verdict
from interp.report.summaries import mean_of, of_variant, outcome, spread_of
from interp.result import Result

BEFORE = "before"
AHEAD = 0.02  # nats by which AdamW is predicted to lead SGD, and momentum plain SGD
ALIKE = 0.02  # nats within which two optimizers count as equal
LEARNT = 0.3  # nats that every fine-tune is predicted to gain
DEARER = 1.5  # Muon's optimizer step, in AdamW's


def verdicts(found: dict[str, Result], rates: dict[str, float]) -> list[Verdict]:
    """Every prediction's verdict, in the order of the question."""
    return [
        _learnt(found),
        _adamw_leads(found),
        _momentum(found),
        _adam(found),
        _muon(found),
        _fair(found, rates),
        _padding(found),
    ]


def headline(found: dict[str, Result]) -> str:
    """The answer to the question of the study, in two sentences."""
    table = found["test perplexity"]
    order = sorted(OPTIMIZERS, key=lambda name: float(of_variant(table, name).mean()))
    said = ", ".join(f"{name} {mean_of(table, name):.2f}" for name in order)
    return (
        f"Each at the learning rate that a search chose for it, test perplexity goes from {mean_of(table, BEFORE):.2f} to: {said}. "
        f"A step of AdamW takes {_time(found, ADAMW):.2f} ms beside {_pass(found):.1f} ms for forward and backward, one of Muon {_time(found, MUON):.2f} ms."
    )


def _learnt(found: dict[str, Result]) -> Verdict:
    table = found["test loss"]
    gains = {name: of_variant(table, BEFORE) - of_variant(table, name) for name in OPTIMIZERS}
    return Verdict(
        question="Does every optimizer move the model?",
        answer="The test loss falls by "
        + ", ".join(f"{float(gain.mean()):.2f} ({name})" for name, gain in gains.items())
        + " nats.",
        outcome=outcome(all(bool((gain > LEARNT).all()) for gain in gains.values())),
        evidence=f"Predicted: more than {LEARNT} nats for every optimizer and seed. Before: {spread_of(table, BEFORE)}.",
        control="The same test rows before and after, none of which is trained on.",
    )


def _adamw_leads(found: dict[str, Result]) -> Verdict:
    table = found["test loss"]
    lead = of_variant(table, SGD) - of_variant(table, ADAMW)
    return Verdict(
        question="Is AdamW better than plain SGD?",
        answer=f"AdamW's test loss is {mean_of(table, ADAMW):.3f} nats and SGD's {mean_of(table, SGD):.3f}: a lead of {float(lead.mean()):.3f}.",
        outcome=outcome(bool((lead > AHEAD).all())),
        evidence=f"Predicted: AdamW at least {AHEAD} ahead in every seed. By seed: {_listed(lead)}.",
        control="Both at their best rate of equally many; same base, batches and schedule in each seed.",
    )


def _momentum(found: dict[str, Result]) -> Verdict:
    table = found["test loss"]
    gain = of_variant(table, SGD) - of_variant(table, MOMENTUM)
    return Verdict(
        question="Does momentum help SGD?",
        answer=f"With momentum 0.9 the test loss is {mean_of(table, MOMENTUM):.3f}, without {mean_of(table, SGD):.3f}: {abs(float(gain.mean())):.3f} nats {'better' if float(gain.mean()) > 0 else 'worse'}.",
        outcome=outcome(bool((gain.abs() < ALIKE).all())),
        evidence=f"Predicted: no, within {ALIKE} nats in every seed: in a short run with clipped gradients momentum is a larger rate, and the "
        f"search has found that already. By seed: {_listed(gain)}.",
        control="Each has a grid and a search of its own.",
    )


def _adam(found: dict[str, Result]) -> Verdict:
    table = found["test loss"]
    gap = of_variant(table, ADAM) - of_variant(table, ADAMW)
    return Verdict(
        question="Is the decoupled weight decay of AdamW what matters?",
        answer=f"Adam, whose decay is part of the gradient, is {float(gap.mean()):+.3f} nats from AdamW.",
        outcome=outcome(bool((gap > ALIKE).all())),
        evidence=f"Predicted: yes, Adam more than {ALIKE} worse in every seed, the decay being 0.01 for both (in the gradient that is far stronger for "
        f"weights with small gradients). By seed: {_listed(gap)}.",
        control="The same grid of rates for both.",
    )


def _muon(found: dict[str, Result]) -> Verdict:
    table = found["test loss"]
    gap, cost = of_variant(table, MUON) - of_variant(table, ADAMW), _time(found, MUON) / _time(found, ADAMW)
    return Verdict(
        question="Does a recent optimizer, Muon, do better, and what does it cost?",
        answer=f"Muon is {float(gap.mean()):+.3f} nats from AdamW, and its optimizer step takes {cost:.1f} times as long.",
        outcome=outcome(bool((gap.abs() < ALIKE).all()) and cost > DEARER),
        evidence=f"Predicted: within {ALIKE} nats in every seed, at more than {DEARER} times the cost of the optimizer's step. By seed: {_listed(gap)}.",
        control=f"Muon acts on the matrices inside the blocks; weights with a head axis, embeddings and norms get AdamW. Forward and backward take {_pass(found):.1f} ms.",
    )


def _fair(found: dict[str, Result], rates: dict[str, float]) -> Verdict:
    search = found["search"]
    inside = {name: 0 < lowest(row) < len(row) - 1 for name, row in zip(OPTIMIZERS, search.values, strict=True)}
    outside = [name for name, held in inside.items() if not held]
    return Verdict(
        question="Were the learning rates chosen fairly?",
        answer=f"Each optimizer was tried at {search.values.shape[1]} rates; "
        + (
            "every best one lies inside its grid."
            if not outside
            else f"the best of {', '.join(outside)} lies at its grid's edge."
        ),
        outcome=outcome(not outside),
        evidence="Predicted: every best rate has worse ones on both sides. Chosen: "
        + ", ".join(f"{name} {lr:g}" for name, lr in rates.items())
        + ".",
        control="Chosen by validation loss with a base model and seed of its own; the page's losses are on test rows with other seeds.",
    )


def _padding(found: dict[str, Result]) -> Verdict:
    loss, gradient, by_row, counted = found["padding"].values.tolist()
    return Verdict(
        question="Is padding really out of the loss?",
        answer="Other tokens in its place change no bit of loss or gradients."
        if loss == gradient == 0
        else f"Other tokens in its place change the loss by {loss:.2g} and gradients by {gradient:.2g}.",
        outcome=outcome(loss == gradient == 0 and by_row < 1e-5 and counted > 1e-3),
        evidence=f"Predicted: exactly 0. The loss of a padded batch is within {by_row:.1g} of that of its rows, each by itself and cut before its padding.",
        control=f"With padding counted the loss would be {counted:.2f} nats off.",
    )


def _time(found: dict[str, Result], variant: str) -> float:
    """Median milliseconds of an optimizer's own part of a step."""
    return float(of_variant(found["time per step"], variant)[1].median())


def _pass(found: dict[str, Result]) -> float:
    """Median milliseconds of forward and backward."""
    return float(found["time per step"].values[:, 0].median())


def _listed(values: Tensor) -> str:
    return ", ".join(f"{value:+.3f}" for value in values.tolist())
