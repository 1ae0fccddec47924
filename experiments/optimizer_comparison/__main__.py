"""Which optimizer for a short fine-tune? `python -m experiments.optimizer_comparison --help`; the question is in README.md."""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace

from experiments.conv_vs_attn.__main__ import slug
from experiments.conv_vs_attn.measure import Runs
from experiments.optimizer_comparison import measure, page
from experiments.optimizer_comparison.answers import headline, verdicts
from experiments.optimizer_comparison.base import bases, moved_run
from experiments.optimizer_comparison.config import OPTIMIZERS, PRESETS, StudyConfig, searched, tuned
from interp.cli import StudyCommand, run_study, study_command
from interp.data import load_data
from interp.provenance import provenance_of
from interp.report import Page, write_page
from interp.training import FinishedRun, RunConfig, StepLosses, fit_all

QUESTION = "Which optimizer moves a small language model to new text best, each at the learning rate that suits it?"


def main(argv: Sequence[str] | None = None) -> None:
    """Train the base models, search, fine-tune, measure, and write the report."""
    command = study_command("experiments.optimizer_comparison", QUESTION, PRESETS, argv)
    study, started = command.config, time.perf_counter()
    print(f"{QUESTION}\npreset {command.preset}, seeds {list(study.seeds)}; trained models are kept in {command.runs}")
    starts = bases(study.moved, (study.search_seed, *study.seeds), command.runs, command.workers)
    some = starts[study.search_seed]
    example = moved_run(study.moved, some, some, study.train)
    data = load_data(example.data)
    searches = search(command, starts, len(data.train))
    table = measure.search_table(searches, study)
    rates = measure.best_rates(table, study)
    print("chosen: " + ", ".join(f"{name} {lr:g}" for name, lr in rates.items()))
    runs = compare(command, starts, rates, len(data.train))
    print("measuring ...")
    found = {
        **measure.tables(runs, starts, data),
        "search": table,
        "time per step": measure.step_times(study, example, data),
        "padding": measure.padding_check(some, example, data),
    }
    epochs, steps = measure.by_epoch(runs), measure.by_step(runs)
    cards = verdicts(found, rates)
    seconds = time.perf_counter() - started
    report = Page(
        title="Optimizers for a short fine-tune",
        question=headline(found),
        sections=page.sections(
            cards, found, (epochs, steps), study, data.description.replace(example.data.tokenizer, "that of the base")
        ),
        results={"results": found, "perplexity by epoch": epochs, "training loss by step": steps},
        command=command.command,
        provenance=replace(provenance_of(some.model, data.test, seconds), seed=study.seeds[0]),
        facts={
            "preset": command.preset,
            "seeds": ", ".join(map(str, study.seeds)),
            "models": f"{len(starts)} trained, {len(searches)} fine-tuned in the search, {len(runs)} in the comparison",
        },
    )
    path = write_page(report, command.out)
    for card in cards:
        print(f"[{card.outcome}] {card.question}\n    {card.answer}")
    print(f"{seconds:.0f} s. The report is at {path}")


def search(command: StudyCommand[StudyConfig], starts: dict[int, FinishedRun], n_rows: int) -> measure.Search:
    """Every optimizer at every rate of its grid, from the search's own base."""
    study = command.config
    start = starts[study.search_seed]
    configs: dict[str, RunConfig] = {
        f"search-{slug(name)}-{lr:g}": moved_run(study.moved, start, start, tuned(study, name, lr, study.search_seed, n_rows))
        for name, lr in searched(study)
    }
    done = fit_all(configs, command.runs, workers=command.workers)
    return dict(zip(searched(study), done.values(), strict=True))


def compare(command: StudyCommand[StudyConfig], starts: dict[int, FinishedRun], rates: dict[str, float], n_rows: int) -> Runs:
    """Every optimizer at its rate, from every seed's base."""
    study = command.config
    keys = [(name, seed) for name in OPTIMIZERS for seed in study.seeds]
    configs = {
        f"{slug(name)}-seed{seed}": moved_run(
            study.moved, starts[seed], starts[study.search_seed], tuned(study, name, rates[name], seed, n_rows)
        )
        for name, seed in keys
    }
    done = fit_all(configs, command.runs, callbacks={name: [StepLosses()] for name in configs}, workers=command.workers)
    return dict(zip(keys, done.values(), strict=True))


if __name__ == "__main__":
    sys.exit(run_study(main))
