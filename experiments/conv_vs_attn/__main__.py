"""Does a convolution make induction heads? `python -m experiments.conv_vs_attn --help`; the question is in README.md."""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from experiments.conv_vs_attn import measure, page
from experiments.conv_vs_attn.answers import headline, verdicts
from experiments.conv_vs_attn.config import (
    ATTN,
    CONV,
    CONV_RESIDUAL,
    PRESETS,
    REPEATS,
    SMEARED,
    TOYS,
    StudyConfig,
    repeated_runs,
    text_runs,
)
from interp.cli import StudyCommand, end_study, run_study, study_command
from interp.data import REPEATED_PASSAGE, TokenData, check_passage, encode_text, load_data
from interp.errors import DataError
from interp.provenance import provenance_of
from interp.report import Page, Section
from interp.result import Result
from interp.training import FinishedRun, RunConfig, fit_all, read_provenance
from interp.training.variants import VariantRuns, run_name, timelines

QUESTION = "Does a convolution before attention make induction heads, as smeared keys do?"
METRICS = ("train_loss", "validation_loss", "validation_accuracy", "induction")


def main(argv: Sequence[str] | None = None) -> None:
    """Train (or reopen) every model, measure, and write the report."""
    command = study_command("experiments.conv_vs_attn", QUESTION, PRESETS, argv)
    study, started = command.config, time.perf_counter()
    passage = read_passage(study.passage)
    data = load_data(study.text.data)
    check_fits(passage, data, study)
    print(f"{QUESTION}\npreset {command.preset}, seeds {list(study.seeds)}; trained models are kept in {command.runs}")
    repeated, text = train(command, data)
    print("measuring ...")
    first = measure.repeated_results(repeated, study.repeated.test_period, study.repeated.data.period)
    second = measure.text_results(text, data, study.text.test_period)
    cards = verdicts(first, second)
    sections = [
        page.answers_section(cards),
        *stage_sections(study, repeated, text, first, second),
        *map_sections(study, repeated, text, passage),
    ]
    seconds = time.perf_counter() - started
    results = {
        "repeated tokens": first,
        "text": second,
        "training on repeated tokens": flat(curves_of(repeated)),
        "training on text": flat(curves_of(text)),
        "kernel, repeated tokens": page.without_matrices(measure.kernels(repeated[CONV, study.seeds[0]].model)),
        "kernel, text": page.without_matrices(measure.kernels(text[CONV, study.seeds[0]].model)),
    }
    example = repeated[CONV, study.seeds[0]]
    report = Page(
        title="Does a convolution make induction heads?",
        question=headline(first, second),
        sections=[*sections, page.method_section(str(data.description))],
        results=results,
        command=command.command,
        provenance=replace(
            provenance_of(example.model, data.test, seconds),
            data=f"{data.description}, {data.fingerprint}",
            tokens="",
            seed=study.seeds[0],
        ),
        facts=facts(command, [*repeated.values(), *text.values()]),
    )
    end_study(command, report, cards, seconds)


def read_passage(path: str | None) -> str:
    """The user's passage, or our own."""
    if path is None:
        return REPEATED_PASSAGE
    try:
        return check_passage(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"passage {path!r}", f"it cannot be read ({error})", "Give a UTF-8 text file") from None


def check_fits(passage: str, data: TokenData, study: StudyConfig) -> None:
    """Raise `DataError`, before anything is trained, for a passage that the models cannot read, or too little held-out text."""
    for split in ("validation", "test"):
        measure.repeated_passages(data, study.text.test_period, split=split)
    length = encode_text(data.tokenizer, passage).shape[1]
    longest = min(run.model.n_ctx for run in text_runs(study).values())
    if length > longest:
        raise DataError(
            f"passage {study.passage!r}", f"it has {length} tokens, and the models read up to {longest}", "Give a shorter one"
        )


def train(command: StudyCommand[StudyConfig], data: TokenData) -> tuple[VariantRuns, VariantRuns]:
    """Both stages in one pool of workers; runs that finished before are opened."""
    study = command.config
    stages = {"repeated": repeated_runs(study), "text": text_runs(study)}
    passages = measure.repeated_passages(data, study.text.test_period, split="validation")
    watches = {
        "repeated": measure.repeated_watch(study.repeated.test_period),
        "text": measure.text_watch(passages, study.text.test_period),
    }
    configs: dict[str, RunConfig] = {}
    keys: dict[str, tuple[str, str, int]] = {}
    for stage, runs in stages.items():
        for (variant, seed), config in runs.items():
            name = f"{stage}-{run_name(variant, seed)}"
            configs[name], keys[name] = config, (stage, variant, seed)
    watch = {name: watches[keys[name][0]] for name in configs}
    done = fit_all(configs, command.runs, watch=watch, workers=command.workers)
    found: dict[str, VariantRuns] = {"repeated": {}, "text": {}}
    for name, run in done.items():
        stage, variant, seed = keys[name]
        found[stage][variant, seed] = run
    return found["repeated"], found["text"]


def stage_sections(
    study: StudyConfig, repeated: VariantRuns, text: VariantRuns, first: Mapping[str, Result], second: Mapping[str, Result]
) -> list[Section]:
    """Scores, training curves and the kernel, for repeated tokens and then for text."""
    tokens, words = study.repeated, study.text
    return [
        page.scores_section(
            "Repeated random tokens: scores",
            f"“Tap masked”: without the previous tap; “frozen”: the kernel is never trained; “supplied”: given positions and a residual stream; "
            f"“one length”: trained on repeats of the longest only. Trained on repeats of {tokens.data.min_period or tokens.data.period} to {tokens.data.period} tokens; read on repeats of "
            f"{tokens.test_period}, shorter than any trained on (“trained length”: on repeats of the longest). A gain without induction is possible: "
            "knowing which tokens occur in a repeat, in any order, is worth up to the log of vocabulary over length.",
            first,
            "Mean over seeds (lowest–highest). Losses and gain in nats per token.",
        ),
        page.training_section("Repeated random tokens: training", "", curves_of(repeated), float(first["induction"].baseline)),  # type: ignore[arg-type]
        page.kernel_section("Repeated random tokens: the kernel", measure.kernels(repeated[CONV, study.seeds[0]].model)),
        page.scores_section(
            "Text: scores",
            f"{words.data.corpus}; read on held-out passages of {words.test_period} tokens, said twice. “Repeating text” means that "
            f"{words.repeat_share:.0%} of the training sequences repeat a passage; held-out text never does.",
            second,
            "Mean over seeds (lowest–highest). Losses and gain in nats per token.",
        ),
        page.training_section("Text: training", "", curves_of(text), float(second["induction"].baseline)),  # type: ignore[arg-type]
        page.kernel_section("Text: the kernel", measure.kernels(text[CONV, study.seeds[0]].model)),
    ]


def map_sections(study: StudyConfig, repeated: VariantRuns, text: VariantRuns, passage: str) -> list[Section]:
    """What the trained models look at: a random repeat, and a passage whose first and last sentence are the same."""
    seed = study.seeds[0]
    repeat = measure.random_repeat(repeated[CONV, seed].model, study.repeated.data.min_period or study.repeated.data.period)
    first = measure.attention_on([(name, repeated[name, seed].model) for name in TOYS], repeat)
    tokenizer = text[CONV, seed].model.tokenizer
    words = encode_text(tokenizer, passage)
    shown = (CONV, ATTN, SMEARED, CONV_RESIDUAL + REPEATS)
    second = measure.attention_on([(name, text[name, seed].model) for name in shown], words)
    return [
        page.attention_section(
            "Attention on a random repeat",
            "In the second half an induction head lights up a diagonal, one step right of the earlier copy.",
            first,
            ["BOS", *(f"t{token}" for token in repeat[0, 1:].tolist())],
            "Models trained on repeated tokens (first seed), on a repeat of a length they were trained on.",
        ),
        page.attention_section(
            "Attention on a passage",
            f"“{passage}”",
            second,
            measure.spelled(tokenizer, words),
            "Models trained on text (first seed). A map is for looking; the scores above are the evidence.",
        ),
    ]


def curves_of(runs: VariantRuns) -> dict[str, dict[str, Result]]:
    """Every metric over training steps, by variant."""
    return {metric: timelines(runs, metric) for metric in METRICS}


def flat(found: Mapping[str, Mapping[str, Result]]) -> dict[str, Result]:
    """`metric: variant` for every timeline."""
    return {f"{metric}: {variant}": result for metric, variants in found.items() for variant, result in variants.items()}


def facts(command: StudyCommand[StudyConfig], runs: Sequence[FinishedRun]) -> dict[str, str]:
    """What a reader wants to know first."""
    study = command.config
    seconds = sum(read_provenance(run.folder).seconds for run in runs if run.folder is not None)
    return {
        "preset": command.preset,
        "seeds": ", ".join(map(str, study.seeds)),
        "models": f"{len(runs)}, trained in {seconds:.0f} s of one core",
        "corpus": study.text.data.corpus,
    }


if __name__ == "__main__":
    sys.exit(run_study(main))
