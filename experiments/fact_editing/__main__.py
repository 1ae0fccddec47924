"""Does a constrained fine-tune edit one fact? `python -m experiments.fact_editing --help`; the question is in README.md."""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace

import torch

from experiments.fact_editing import measure, page
from experiments.fact_editing.answers import headline, verdicts
from experiments.fact_editing.config import PRESETS
from experiments.fact_editing.subjects import subjects_of
from interp.cli import end_study, run_study, study_command
from interp.provenance import provenance_of
from interp.report import Page

QUESTION = "Can fine-tuning a few weights, held close to where they were, change one fact and nothing else?"


def main(argv: Sequence[str] | None = None) -> None:
    """Train (or open) the models, edit, measure, and write the report."""
    command = study_command("experiments.fact_editing", QUESTION, PRESETS, argv)
    study, started = command.config, time.perf_counter()
    print(f"{QUESTION}\npreset {command.preset}, seeds {list(study.seeds)}; trained models are kept in {command.runs}")
    torch.set_num_threads(1)  # edits are many small steps, which more threads slow down
    subjects = subjects_of(command)
    swept = measure.sweep(subjects, study)
    print("controls and tracing ...")
    found = {
        "variants": measure.variants(swept, subjects, study),
        "trade-off": measure.trade_off(swept, study),
        "fluency": measure.fluency(subjects, study),
        "knowledge": measure.knowledge(subjects),
        **measure.mechanism(subjects, study),
    }
    cards = verdicts(found, study)
    first = next(iter(subjects.values()))
    seconds = time.perf_counter() - started
    report = Page(
        title="Editing a fact by constrained fine-tuning",
        question=headline(found),
        sections=page.sections(found, cards, first.cases, study),
        results=found,
        command=command.command,
        provenance=replace(provenance_of(first.model, first.unrelated, seconds), seed=study.seeds[0]),
        facts={
            "preset": command.preset,
            "seeds": ", ".join(map(str, study.seeds)),
            "model": study.model or f"{study.network.n_layers} layers, width {study.network.d_model}, one per seed",
            "edits": f"{swept[..., 0].numel()}, and controls",
        },
    )
    end_study(command, report, cards, seconds)


if __name__ == "__main__":
    sys.exit(run_study(main))
