"""What is learnt attention worth? `python -m experiments.attention_ablation --help`; the question is in README.md."""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace

from experiments.attention_ablation import measure, page
from experiments.attention_ablation.answers import headline, verdicts
from experiments.attention_ablation.config import INTACT, MODES, PRESETS, StudyConfig, trained
from experiments.base_models import Bases, bases
from interp.cli import StudyCommand, end_study, run_study, study_command
from interp.data import TokenData, load_data
from interp.provenance import provenance_of
from interp.report import Page
from interp.training import AblatedAttention, fit_all
from interp.training.steps import steps_per_epoch
from interp.training.variants import VariantRuns, run_name

QUESTION = "What is learnt attention worth, and can the rest of the network make up for it?"


def main(argv: Sequence[str] | None = None) -> None:
    """Train the base models, fine-tune with and without attention, measure, and write the report."""
    command = study_command("experiments.attention_ablation", QUESTION, PRESETS, argv)
    study, started = command.config, time.perf_counter()
    print(f"{QUESTION}\npreset {command.preset}, seeds {list(study.seeds)}; trained models are kept in {command.runs}")
    starts = bases(study.model, study.moved, study.seeds, command.runs, command.workers)
    data = load_data(starts.data)
    more = load_data(replace(starts.data, n_train=study.floor_rows))
    rows = measure.whole_rows(data, study)
    runs = tune(command, starts, data)
    print("measuring ...")
    found = {
        "test loss": measure.losses(runs, starts.models, data),
        "floors": measure.floors(data, more),
        **measure.sweeps(runs, starts.models, rows),
        "removal": measure.removal(runs, data, study.seeds[0]),
    }
    epochs = measure.by_epoch(runs)
    cards = verdicts(found)
    seconds = time.perf_counter() - started
    described = f"{starts.described()} Moved to {starts.text(data.description)}"
    report = Page(
        title="What learnt attention is worth",
        question=headline(found),
        sections=page.sections(cards, found, epochs, study, described),
        results={"results": found, "perplexity by epoch": epochs},
        command=command.command,
        provenance=replace(provenance_of(starts.some, data.test, seconds), seed=study.seeds[0]),
        facts={
            "preset": command.preset,
            "seeds": ", ".join(map(str, study.seeds)),
            "models": f"{len(starts.folders)} trained, {len(runs)} fine-tuned",
        },
    )
    end_study(command, report, cards, seconds)


def tune(command: StudyCommand[StudyConfig], starts: Bases, data: TokenData) -> VariantRuns:
    """The fine-tune with attention and under every ablation, from every seed's base."""
    study = command.config
    every = steps_per_epoch(study.train, len(data.train))
    keys = {run_name(name, seed): (name, seed) for name in (INTACT, *map(trained, MODES)) for seed in study.seeds}
    configs = {place: starts.run(seed, replace(study.train, seed=seed, eval_every=every)) for place, (_, seed) in keys.items()}
    modes = {trained(mode): mode for mode in MODES}
    done = fit_all(
        configs,
        command.runs,
        watch={place: measure.watch(data, study, seed) for place, (name, seed) in keys.items() if name == INTACT},
        callbacks={place: [AblatedAttention(modes[name], seed=seed)] for place, (name, seed) in keys.items() if name in modes},
        workers=command.workers,
    )
    return {keys[place]: run for place, run in done.items()}


if __name__ == "__main__":
    sys.exit(run_study(main))
