"""The predictions, and what the results say of each: in words, with the numbers of every seed."""

from torch import Tensor

from experiments.fact_editing.config import FOLLOWS, HELD, KEPT, LEAK, SPREAD, StudyConfig
from experiments.fact_editing.measure import FT, FTL, PLACES, RANDOM, TWIN, UNEDITED, WRONG
from interp.report import Verdict
from interp.report.summaries import outcome, spread
from interp.result import Result

KNOWN = 0.9  # share of the facts that a model must know for its edits to mean anything


def verdicts(found: dict[str, Result], study: StudyConfig) -> list[Verdict]:
    """Every prediction's verdict, in the order of the question."""
    known = bool((found["knowledge"].values[:, 0] >= KNOWN).all())
    return [
        card if known or card.question == _knows(found).question else untested(card)
        for card in (
            _knows(found),
            _holds(found),
            _spreads(found),
            _spares(found),
            _leaks(found),
            _follows(found),
            _grows(found, study),
            _layer(found, study),
            _place(found, study),
        )
    ]


def untested(card: Verdict) -> Verdict:
    """The same card for models that do not know the facts to be changed."""
    return Verdict(card.question, card.answer, "not tested", f"The models do not know their facts. {card.evidence}", card.control)


def headline(found: dict[str, Result]) -> str:
    """The answer to the question of the study."""
    parts = [f"{_mean(found, FTL, name):.0%} {told}" for name, told in (
        ("efficacy", "of the edits hold"), ("paraphrase", "of the rewordings follow"), ("neighbourhood", "of the neighbours stay"),
    )]  # fmt: skip
    return (
        f"With FT-L {', '.join(parts)}; without the constraint {_mean(found, FT, 'neighbourhood'):.0%} of the neighbours stay. "
        f"Made for another subject, the same edit changes the answer in {_mean(found, WRONG, 'efficacy'):.0%} of the cases."
    )


def _knows(found: dict[str, Result]) -> Verdict:
    right = found["knowledge"].values
    return Verdict(
        question="Do the models know the facts, and not only the sentences?",
        answer=f"{float(right[:, 0].mean()):.0%} of the prompts are answered rightly, and {float(right[:, 1].mean()):.0%} of their "
        "rewordings, of which a third are in no training text.",
        outcome=outcome(bool((right[:, 0] >= KNOWN).all())),
        evidence=f"Predicted: at least {KNOWN:.0%} of the prompts, every seed. Prompts {spread(right[:, 0])}, "
        f"rewordings {spread(right[:, 1])}.",
        control="A blind guess among the answers of one kind is right in 1 of 8 cases in the generated worlds.",
    )


def _holds(found: dict[str, Result]) -> Verdict:
    values = of(found, FTL, "efficacy")
    return Verdict(
        question="Does a constrained edit hold?",
        answer=f"In {float(values.mean()):.0%} of the cases the new answer becomes likelier than the true one.",
        outcome=outcome(bool((values >= HELD).all())),
        evidence=f"Predicted: at least {HELD:.0%}, every seed. FT-L {spread(values)}; without a constraint "
        f"{spread(of(found, FT, 'efficacy'))}. The difference of their probabilities is "
        f"{spread(of(found, FTL, 'efficacy difference'))}.",
        control=f"Unedited: {spread(of(found, UNEDITED, 'efficacy'))}.",
    )


def _spreads(found: dict[str, Result]) -> Verdict:
    values = of(found, FTL, "paraphrase")
    return Verdict(
        question="Is it about the fact, or about the sentence?",
        answer=f"{float(values.mean()):.0%} of the same fact's other wordings give the new answer as well.",
        outcome=outcome(bool((values >= SPREAD).all())),
        evidence=f"Predicted: at least {SPREAD:.0%}, every seed. FT-L {spread(values)}; FT {spread(of(found, FT, 'paraphrase'))}.",
        control=f"Unedited {spread(of(found, UNEDITED, 'paraphrase'))}; edited for another subject "
        f"{spread(of(found, WRONG, 'paraphrase'))}.",
    )


def _spares(found: dict[str, Result]) -> Verdict:
    tight, free = of(found, FTL, "neighbourhood"), of(found, FT, "neighbourhood")
    return Verdict(
        question="Does the constraint spare the neighbours?",
        answer=f"{float(tight.mean()):.0%} of other people's facts keep their answer under FT-L, {float(free.mean()):.0%} under FT.",
        outcome=outcome(bool((tight >= KEPT).all() and (tight > free).all())),
        evidence=f"Predicted: at least {KEPT:.0%}, and more than without the constraint, every seed. FT-L {spread(tight)}; "
        f"FT {spread(free)}. On text about others, KL {spread(of(found, FTL, 'KL'), 3)} against {spread(of(found, FT, 'KL'), 3)} nats per token.",
        control=f"Unedited {spread(of(found, UNEDITED, 'neighbourhood'))}.",
    )


def _leaks(found: dict[str, Result]) -> Verdict:
    values = of(found, WRONG, "efficacy")
    return Verdict(
        question="Is it about the subject? Make the same edit for another one.",
        answer=f"In {float(values.mean()):.0%} of the cases that changes this subject's answer too.",
        outcome=outcome(bool((values < LEAK).all())),
        evidence=f"Predicted: below {LEAK:.0%}, every seed. Another subject {spread(values)}; the right one "
        f"{spread(of(found, FTL, 'efficacy'))}.",
        control=f"Unedited {spread(of(found, UNEDITED, 'efficacy'))}.",
    )


def _follows(found: dict[str, Result]) -> Verdict:
    twin, wrong = of(found, TWIN, "efficacy"), of(found, WRONG, "efficacy")
    return Verdict(
        question="Or about the old answer? Make the same edit for somebody who has the same one.",
        answer=f"In {float(twin.mean()):.0%} of the cases this subject's answer then changes too, against {float(wrong.mean()):.0%} "
        "after an edit of a subject with an answer of its own.",
        outcome=outcome(bool((twin > wrong + FOLLOWS).all())),
        evidence=f"Predicted: more by {FOLLOWS:.0%} of the cases, every seed (added after earlier worlds had suggested it). A neighbour "
        f"{spread(twin)}; another case's subject {spread(wrong)}.",
        control=f"Unedited {spread(of(found, UNEDITED, 'efficacy'))}.",
    )


def _grows(found: dict[str, Result], study: StudyConfig) -> Verdict:
    swept = found["trade-off"].at(layer=study.layers.index(study.layer))
    holds, keeps = (swept.values[..., swept.labels_of("measure").index(name)].mean(0) for name in ("efficacy", "neighbourhood"))
    traded = bool(
        (holds.diff() >= -0.02).all() and (keeps.diff() <= 0.02).all() and holds[-1] > holds[0] and keeps[-1] < keeps[0]
    )
    told = ", ".join(
        f"{epsilon}: {float(a):.2f} and {float(b):.2f}"
        for epsilon, a, b in zip(swept.labels_of("epsilon"), holds, keeps, strict=True)
    )
    return Verdict(
        question="What does the constraint trade?",
        answer="Looser, more edits hold and fewer neighbours stay." if traded else "Not efficacy against neighbours all the way.",
        outcome=outcome(traded),
        evidence=f"Predicted: with ε the share of edits that hold only rises and that of neighbours that stay only falls (±0.02). "
        f"Efficacy and neighbourhood at each ε, means over seeds: {told}.",
        control="The largest change of a weight was never above ε.",
    )


def _layer(found: dict[str, Result], study: StudyConfig) -> Verdict:
    main, drawn = of(found, FTL, "score"), of(found, RANDOM, "score")
    return Verdict(
        question=f"Does the layer matter? Layer {study.layer} against one drawn at random.",
        answer=f"The score S is {float(main.mean()):.2f} there and {float(drawn.mean()):.2f} in a random other layer.",
        outcome=outcome(bool((main > drawn).all())),
        evidence=f"Predicted: higher, every seed, as in the pilot. Layer {study.layer} {spread(main)}; "
        f"random {spread(drawn)}. Efficacy {spread(of(found, RANDOM, 'efficacy'))} there, neighbourhood "
        f"{spread(of(found, RANDOM, 'neighbourhood'))}.",
        control="The same cases, constraint, steps and learning rate.",
    )


def _place(found: dict[str, Result], study: StudyConfig) -> Verdict:
    values = found["recovery by place"].values
    subject, last = values[:, 0], values[:, 1]
    return Verdict(
        question="Where does the edited layer act: at the subject, or where the answer is asked for?",
        answer=f"Its output at the prompt's last token carries {float(last.mean()):.0%} of the change, at the subject's last token "
        f"{float(subject.mean()):.0%}.",
        outcome=outcome(bool((last > subject).all())),
        evidence=f"Predicted: the last token, every seed, since the loss is read there. {PLACES[1].capitalize()} {spread(last)}; "
        f"{PLACES[0]} {spread(subject)}; {PLACES[2]} {spread(values[:, 2])}.",
        control="Taken whole from the edited model, that layer's output must give all of the change: "
        f"{spread(_edited_layer(found, study))}.",
    )


def _edited_layer(found: dict[str, Result], study: StudyConfig) -> Tensor:
    result = found["recovery by component"]
    return result.values[:, result.labels_of("component").index(f"L{study.layer} MLP")]


def of(found: dict[str, Result], variant: str, measure: str) -> Tensor:
    """One number per seed."""
    result = found["variants"]
    return result.values[result.labels_of("variant").index(variant), :, result.labels_of("measure").index(measure)]


def _mean(found: dict[str, Result], variant: str, measure: str) -> float:
    return float(of(found, variant, measure).mean())
