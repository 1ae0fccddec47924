"""When do induction heads form? `python -m experiments.phase_change --help`; the question is in README.md."""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

import interp
from experiments.phase_change import measure, page
from experiments.phase_change.answers import PASSAGES, TEXT, headline, verdicts
from experiments.phase_change.config import PRESETS, TWO, StudyConfig, study_runs
from interp.cli import StudyCommand, run_study, study_command
from interp.data import TokenData, load_data
from interp.provenance import provenance_of
from interp.report import Page, write_page
from interp.result import Result
from interp.training import PhaseChange, fit_all, kept_checkpoints, open_checkpoint, phase_change, read_provenance, timeline
from interp.training.variants import VariantRuns, run_name, timelines

QUESTION = "When do induction heads form, is it abrupt, and does in-context learning come with them?"
METRICS = ("train_loss", "validation_loss", *page.SCORES, *page.GAINS)
CHANGING = ("induction", "previous token", "gain, random tokens", PASSAGES, TEXT)


def main(argv: Sequence[str] | None = None) -> None:
    """Train (or reopen) every model, measure, and write the report."""
    command = study_command("experiments.phase_change", QUESTION, PRESETS, argv)
    study, started = command.config, time.perf_counter()
    data = load_data(study.data)
    passages = measure.repeated_passages(data, study.period)
    print(f"{QUESTION}\npreset {command.preset}, seeds {list(study.seeds)}; trained models are kept in {command.runs}")
    runs = train(command, data)
    print("measuring ...")
    two = measure.of_variant(runs, TWO)
    final = measure.final_table(runs, study, data)
    pair = measure.composition_of_circuit(two, study.period)
    removal = measure.removals(two, study, data)
    changes = changes_of(runs, pair)
    looks = look(runs, study, changes["induction"], passages[:1])
    curves = {metric: timelines(runs, metric) for metric in METRICS}
    cards = verdicts(final, changes, pair, removal)
    found = page.Found(curves, changes, final, pair, removal)
    seconds = time.perf_counter() - started
    some = runs[TWO, study.seeds[0]]
    report = Page(
        title="When do induction heads form?",
        question=headline(final, changes, removal),
        sections=page.sections(cards, found, looks, study, str(data.description)),
        results={
            "final": final,
            "composition": pair,
            "removal": removal,
            "phase changes": {name: change.numbers for name, change in changes.items()},
            "phase changes by seed": {name: change.per_seed for name, change in changes.items()},
            "training": {f"{metric}: {variant}": result for metric, lines in curves.items() for variant, result in lines.items()},
            "heads over steps": {**looks.frames, "K-composition": looks.composition},
        },
        command=command.command,
        provenance=replace(
            provenance_of(some.model, data.test, seconds),
            data=f"{data.description}, {data.fingerprint}",
            tokens="",
            seed=study.seeds[0],
        ),
        facts=facts(command, runs),
    )
    path = write_page(report, command.out)
    for card in cards:
        print(f"[{card.outcome}] {card.question}\n    {card.answer}")
    print(f"{seconds:.0f} s. The report is at {path}")


def train(command: StudyCommand[StudyConfig], data: TokenData) -> VariantRuns:
    """Every variant and seed in one pool of workers; runs that finished before are opened."""
    study = command.config
    configs = study_runs(study)
    keys = {run_name(name, seed): (name, seed) for name, seed in configs}
    watched = measure.watch(study, data)
    done = fit_all(
        {place: configs[key] for place, key in keys.items()},
        command.runs,
        watch=dict.fromkeys(keys, watched),
        workers=command.workers,
    )
    return {keys[place]: run for place, run in done.items()}


def changes_of(runs: VariantRuns, pair: Mapping[str, Result]) -> dict[str, PhaseChange]:
    """The phase change of each curve of the two-layer models, beside the one-layer models', and that of the composition."""
    two, null = measure.of_variant(runs, TWO), measure.null_of(runs)
    # looking back is no null for looking back: one layer learns it too
    found = {
        name: phase_change(timeline(two, name), null=None if name == "previous token" else timeline(null, name))
        for name in CHANGING
    }
    return found | {"K-composition": phase_change(pair["the circuit's pair"])}


def look(runs: VariantRuns, study: StudyConfig, change: PhaseChange, passage: Tensor) -> page.Looks:
    """What the page shows of the first seed's model: its heads over steps, its maps, and the losses of one repeated passage."""
    run = runs[TWO, study.seeds[0]]
    folder = measure.folder_of(runs, study.seeds[0])
    models, steps = measure.copies(run), kept_checkpoints(folder)
    scores = interp.head_scores(run.model, period=study.period, seed=measure.REPORT)
    names = scores.labels_of("score")
    shown = {
        name: replace(scores.at(score=names.index(name.replace(" ", "_"))), unit="share of attention", description=name)
        for name in (*page.SCORES, "duplicate token", "first token")
    }
    heads, _ = measure.circuit(run.model, study.period)
    values = dict(zip(change.per_seed.labels_of("quantity"), change.per_seed.values[0].tolist(), strict=True))
    if values["t50"] != values["t50"]:  # no change in this seed: thirds of the way, in log steps
        values = {name: max(steps) ** share for name, share in (("t10", 0.5), ("t50", 0.67), ("t90", 0.83))}
    chosen = measure.around(values, steps)
    return page.Looks(
        frames=measure.scores_over_steps(models, study.period),
        composition=measure.composition_over_steps(models),
        tokens=measure.spelled(run.model.tokenizer, passage),
        patterns=interp.attention_patterns(run.model, passage),
        scores=shown,
        selected=max(heads, key=lambda head: float(shown["induction"].values[head])),
        losses=measure.losses_on(
            {f"{name} (step {step:,})": open_checkpoint(folder, step) for name, step in chosen.items()}, passage
        ),
        passage="A passage of held-out text, said twice, read by the first seed's model before the change, at its middle, after it, and at the end.",
    )


def facts(command: StudyCommand[StudyConfig], runs: VariantRuns) -> dict[str, str]:
    """What a reader wants to know first."""
    study = command.config
    seconds = sum(read_provenance(run.folder).seconds for run in runs.values() if run.folder is not None)
    return {
        "preset": command.preset,
        "seeds": ", ".join(map(str, study.seeds)),
        "models": f"{len(runs)}, trained in {seconds:.0f} s of one core",
        "corpus": study.data.corpus,
        "repeats": f"{study.data.repeat_share:.0%} of training sequences",
    }


if __name__ == "__main__":
    sys.exit(run_study(main))
