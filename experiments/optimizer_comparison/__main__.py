"""Which optimizer for a short fine-tune? `python -m experiments.optimizer_comparison --help`; the question is in README.md."""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace

from experiments.base_models import Bases, bases
from experiments.optimizer_comparison import measure, page
from experiments.optimizer_comparison.answers import headline, verdicts
from experiments.optimizer_comparison.config import OPTIMIZERS, PRESETS, StudyConfig, searched, tuned
from interp.cli import StudyCommand, end_study, run_study, study_command
from interp.data import load_data
from interp.provenance import provenance_of
from interp.report import Page
from interp.result import Result
from interp.training import FinishedRun, StepLosses, fit_all, open_run
from interp.training.grid import GridError
from interp.training.variants import VariantRuns, run_name

QUESTION = "Which optimizer moves a small language model to new text best, each at the learning rate that suits it?"


def main(argv: Sequence[str] | None = None) -> None:
    """Train the base models, search, fine-tune, measure, and write the report."""
    command = study_command("experiments.optimizer_comparison", QUESTION, PRESETS, argv)
    study, started = command.config, time.perf_counter()
    print(f"{QUESTION}\npreset {command.preset}, seeds {list(study.seeds)}; trained models are kept in {command.runs}")
    starts = bases(study.model, study.moved, (study.search_seed, *study.seeds), command.runs, command.workers)
    data = load_data(starts.data)
    table = search(command, starts, len(data.train))
    rates = measure.best_rates(table, study)
    print("chosen: " + ", ".join(f"{name} {lr:g}" for name, lr in rates.items()))
    runs = compare(command, starts, rates, len(data.train))
    print("measuring ...")
    found = {
        **measure.tables(runs, starts, data),
        "search": table,
        "time per step": measure.step_times(study, starts, data),
        "padding": measure.padding_check(study, starts, data),
    }
    epochs, steps = measure.by_epoch(runs), measure.by_step(runs)
    cards = verdicts(found, rates)
    seconds = time.perf_counter() - started
    report = Page(
        title="Optimizers for a short fine-tune",
        question=headline(found),
        sections=page.sections(
            cards, found, (epochs, steps), study, f"{starts.described()} Moved to {starts.text(data.description)}."
        ),
        results={"results": found, "perplexity by epoch": epochs, "training loss by step": steps},
        command=command.command,
        provenance=replace(provenance_of(starts.some, data.test, seconds), seed=study.seeds[0]),
        facts={
            "preset": command.preset,
            "seeds": ", ".join(map(str, study.seeds)),
            "models": f"{len(starts.folders)} trained, {table.values.numel()} fine-tuned in the search, {len(runs)} in the comparison",
        },
    )
    end_study(command, report, cards, seconds)


def search(command: StudyCommand[StudyConfig], starts: Bases, n_rows: int) -> Result:
    """Every optimizer at every rate of its grid, from the search's own base; a rate at which training diverges is NaN."""
    study, seed = command.config, command.config.search_seed
    configs = {
        run_name(f"search {name} {lr:g}", seed): starts.run(seed, tuned(study, name, lr, seed, n_rows))
        for name, lr in searched(study)
    }
    try:
        done: dict[str, FinishedRun] = fit_all(configs, command.runs, workers=command.workers)
    except GridError as error:
        if len(error.finished) + len(error.diverged) < len(configs):
            raise
        done = {name: open_run(configs[name], folder) for name, folder in error.finished.items()}
    return measure.search_table(dict(zip(searched(study), map(done.get, configs), strict=True)), study)


def compare(command: StudyCommand[StudyConfig], starts: Bases, rates: dict[str, float], n_rows: int) -> VariantRuns:
    """Every optimizer at its rate, from every seed's base."""
    study = command.config
    keys = [(name, seed) for name in OPTIMIZERS for seed in study.seeds]
    configs = {run_name(name, seed): starts.run(seed, tuned(study, name, rates[name], seed, n_rows)) for name, seed in keys}
    done = fit_all(configs, command.runs, callbacks={name: [StepLosses()] for name in configs}, workers=command.workers)
    return dict(zip(keys, done.values(), strict=True))


if __name__ == "__main__":
    sys.exit(run_study(main))
