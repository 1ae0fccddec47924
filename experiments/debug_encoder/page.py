"""The report's sections."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from experiments.debug_encoder.answers import CORRECT, VARIANTS, Found
from experiments.debug_encoder.measure import Diagnoses, is_found
from experiments.debug_encoder.planted import BUGS
from interp.probes.health_checks import CHECKS
from interp.report import AttentionMaps, Figure, Prose, Section, Table, curves
from interp.report.summaries import spread
from interp.result import Result


def bug_table(planted: Diagnoses) -> Table:
    """Bug, symptom, evidence."""
    rows = []
    for bug in BUGS:
        group = planted[bug.name]
        told = next((each.finding(name) for each in group for name in bug.expected if each.finding(name)), None)
        also = sorted({name for each in group for name in each.found} - set(bug.expected))
        rows.append(
            {
                "bug": f"{bug.name}: {bug.what}",
                "found": f"{sum(is_found(bug, each) for each in group)} of {len(group)}",
                "symptom": (told.check if told else "none") + (f"; also {', '.join(also)}" if also else ""),
                "evidence": f"{told.evidence} ({told.where})" if told else "",
                "likely cause, as told": told.cause if told else "",
            }
        )
    return Table(pd.DataFrame(rows), "Planted bugs, untrained models; evidence of the first seed that was found.")


def alarm_table(healthy: Diagnoses) -> Table:
    """False alarms by kind of model."""
    rows = [
        {
            "healthy model": name,
            "models": len(group),
            "blamed": sum(not each.healthy for each in group),
            "by": ", ".join(sorted({check for each in group for check in each.found})),
        }
        for name, group in healthy.items()
    ]
    return Table(pd.DataFrame(rows), "Healthy models and how many of them any check blamed.")


def limit_table() -> Table:
    """Every check, its limit and the reason."""
    rows = [{"check": each.name, "a healthy model": each.rule, "because": each.reason} for each in CHECKS]
    return Table(pd.DataFrame(rows), "The checks of interp.diagnose.")


def trained_section(found: Found, timelines: Mapping[str, Result], seeds: Sequence[int]) -> Section:
    """Accuracy curves, held-out accuracy, and what is found in each."""
    figure = curves(
        timelines,
        "epoch",
        "share of texts",
        title="validation accuracy",
        baseline=found.floor,
        baseline_label=found.floor_name.lower(),
    )
    rows = [
        {
            "encoder": name,
            "held-out accuracy": spread(found.accuracy[name]),
            "found by diagnose": ", ".join(sorted({check for each in found.trained[name] for check in each.found})) or "nothing",
        }
        for name in VARIANTS
    ]
    alt = "; ".join(f"{row['encoder']}: {row['held-out accuracy']}" for row in rows)
    rows.append(
        {"encoder": "no encoder: a bag of words", "held-out accuracy": f"{found.bag_of_words:.2f}", "found by diagnose": ""}
    )
    return Section(
        "Broken beside correct, trained",
        [
            Figure(figure, alt, "Mean over seeds; the band runs from the lowest seed to the highest."),
            Table(
                pd.DataFrame(rows),
                f"Accuracy on the held-out tenth, mean and range over {len(seeds)} seeds. The bag of words is logistic regression on which words a whole text has.",
            ),
        ],
        lead="The same texts in the same order; each broken encoder differs from the correct one in a single line.",
    )


def maps_section(panels: Sequence[tuple[str, Result]], words: Sequence[str], label: str) -> Section:
    """Attention of broken and correct encoders side by side."""
    return Section(
        "What the attention maps show",
        [
            AttentionMaps(panels, words, f"A held-out sentence ({label}), trained encoders of the first seed; [PAD] is padding."),
            Prose(
                "The reversed mask is seen at once: every row lies on the padding. The residual bugs are not seen at all: the maps are "
                "ordinary, since what is wrong is what becomes of attention's output. That is why the check follows the path instead."
            ),
        ],
    )


def practical_section(found: Found, reached: Sequence[float], before: Any, after: Any) -> Section:
    """Hugging Face's Trainer, and the same checks."""
    frame = pd.DataFrame({"epoch": range(1, len(reached) + 1), "validation accuracy": list(reached)})
    both = after.to_frame()[["check", "verdict", "evidence"]]
    both.insert(1, "before", before.to_frame()["verdict"])
    return Section(
        "The practical way",
        [
            Prose(f"The model is {found.hf_name}. Hugging Face's Trainer reaches {found.hf_accuracy:.2f} on the held-out tenth."),
            Table(frame, "Validation accuracy after each epoch."),
            Table(
                both.rename(columns={"verdict": "after", "evidence": "evidence, or why not"}),
                "The same checks, through interp.hooked.",
            ),
        ],
        lead="AutoModelForSequenceClassification and Trainer on the same texts and splits.",
    )


def answers_section(cards: Sequence[Any]) -> Section:
    """The verdicts."""
    return Section("Answers", list(cards), lead="Predictions were fixed before the reference run and are asked of every seed.")


def method_section(described: str) -> Section:
    """How it was measured."""
    return Section(
        "How this was measured",
        [
            limit_table(),
            Prose(
                f"Texts: {described}. Eight tenths are trained on, one gives the curves, one is held out.\n\n"
                "A residual path is followed by gradients: what attention and MLP add is cut off from what it was computed from, and then "
                "the block's output must still depend on its input. Gradients are those of a cross-entropy with random labels, which a "
                f"trained model still has. “{CORRECT}” is the encoder without a planted bug."
            ),
        ],
    )
