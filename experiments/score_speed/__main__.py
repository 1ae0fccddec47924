"""What do all attention scores cost? `python -m experiments.score_speed --help`; the question is in README.md."""

import sys
import time
from collections.abc import Sequence

import pandas as pd
import torch

import interp
from experiments.score_speed.config import PRESETS, SpeedConfig
from experiments.score_speed.measure import BARE, OURS, THEIRS, build, memory, side_by_side, times
from interp.cli import end_study, run_study, study_command
from interp.models.constructed import PERIOD
from interp.provenance import weights_hash
from interp.report import Page, Prose, Section, Table, Verdict
from interp.result import Result

QUESTION = "What do all attention scores cost beside a forward pass, and beside TransformerLens' head detector?"
TIME_LIMIT = 1.2


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write the report."""
    command = study_command("experiments.score_speed", QUESTION, PRESETS, argv, trains=False)
    began = time.perf_counter()
    print(f"{QUESTION}\npreset {command.preset}; timing ...")
    spent = times(command.config)
    print("measuring memory ...")
    held = memory(command.config)
    cards = verdicts(spent, held, command.config)
    model = build(command.config)
    hashing = time.process_time()
    weights_hash(model)
    hashing = time.process_time() - hashing
    scored = interp.head_scores(model, n_sequences=1)
    page = Page(
        title="The cost of all attention scores",
        question=headline(spent, held),
        sections=[
            Section("Answers", cards),
            Section("Numbers", [cost_table(spent, held, command.config)]),
            comparison(),
        ],
        results={"time": spent, "memory": held},
        command=command.command,
        provenance=scored.provenance,
        facts={
            "shape": f"{command.config.n_layers} layers, width {command.config.d_model}",
            "threads": "1",
            "rounds": str(command.config.rounds),
            "hashing the weights": f"{hashing:.2f} s a call, whatever the input",
        },
    )
    end_study(command, page, cards, time.perf_counter() - began)


def ratios(spent: Result, tool: str) -> torch.Tensor:
    """A tool's time over the bare pass's of the same round."""
    tools = spent.labels_of("tool")
    return spent.values[tools.index(tool)] / spent.values[tools.index(BARE)]


def pattern_mib(config: SpeedConfig) -> float:
    """Size of one layer's pattern on the sequence that memory is measured on."""
    return config.n_heads * (1 + 2 * config.memory_period) ** 2 * 4 / 2**20


def headline(spent: Result, held: Result) -> str:
    """The answer to the question of the study, in a few sentences."""
    bare, with_scores = (float(held.values[held.labels_of("tool").index(tool)]) for tool in (BARE, OURS))
    return (
        f"All attention scores take {float(ratios(spent, OURS).median()):.2f} times the time of a bare forward pass and hold "
        f"{with_scores - bare:.0f} MiB beyond its {bare:.0f}; TransformerLens' detector takes "
        f"{float(ratios(spent, THEIRS).median()):.1f} times, for three scores."
    )


def verdicts(spent: Result, held: Result, config: SpeedConfig) -> list[Verdict]:
    """Time, memory and the comparison, each against its prediction."""
    ours, theirs = ratios(spent, OURS), ratios(spent, THEIRS)
    bare, with_scores, detector = (float(held.values[held.labels_of("tool").index(tool)]) for tool in (BARE, OURS, THEIRS))
    extra, limit = with_scores - bare, pattern_mib(config)
    return [
        Verdict(
            question="What do all scores cost in time?",
            answer=f"{float(ours.median()):.2f} bare forward passes.",
            outcome="supported" if float(ours.median()) <= TIME_LIMIT else "refuted",
            evidence=f"Median of {config.rounds} rounds, {float(ours.min()):.2f} to {float(ours.max()):.2f}; predicted at most {TIME_LIMIT}.",
            control="Every round runs the bare pass too, in the same process, on one thread; hashing the weights for provenance is counted.",
        ),
        Verdict(
            question="What do they cost in memory?",
            answer=f"{extra:.0f} MiB beyond the {bare:.0f} MiB of a bare pass; one layer's pattern is {limit:.0f} MiB.",
            outcome="supported" if extra <= limit else "refuted",
            evidence=f"What the call's tensors hold at their peak, on one sequence of {1 + 2 * config.memory_period} tokens.",
            control=f"detect_head, which caches every activation, needs {detector:.0f} MiB.",
        ),
        Verdict(
            question="And TransformerLens' detector?",
            answer=f"{float(theirs.median()):.1f} bare forward passes for three scores.",
            outcome="supported" if float(theirs.median()) > 3 else "refuted",
            evidence=f"{float(theirs.min()):.1f} to {float(theirs.max()):.1f} over rounds; it runs one pass, fully cached, per score and sequence.",
            control="The same model, tokens and process.",
        ),
    ]


def cost_table(spent: Result, held: Result, config: SpeedConfig) -> Table:
    """Median time, ratio and memory of each tool."""
    rows = []
    for index, tool in enumerate(spent.labels_of("tool")):
        ratio = ratios(spent, tool)
        rows.append(
            {
                "tool": tool,
                "CPU s, median": float(spent.values[index].median()),
                "of a bare pass": float(ratio.median()),
                "lowest": float(ratio.min()),
                "highest": float(ratio.max()),
                "peak MiB": float(held.values[index]),
            }
        )
    caption = f"Time on {config.n_sequences} sequences of {1 + PERIOD * config.copies} tokens; memory on one of {1 + 2 * config.memory_period}."
    return Table(pd.DataFrame(rows), caption)


def comparison() -> Section:
    """Why the same head scores differently."""
    frame = pd.concat([side_by_side(copies) for copies in (2, 4)])
    return Section(
        "The same heads, scored by both",
        [
            Table(frame.reset_index(drop=True), "Heads wired by hand, which do their one thing perfectly."),
            Prose(
                "The detector divides by the attention of all rows. On a sequence said twice, half of them have nothing to look up, so a "
                "perfect induction head scores about 0.5, and more copies raise it. Here only the rows that have something to look "
                "up count, so the same head scores 1 whatever the number of copies. The duplicate head shares its attention "
                "between itself and the earlier copies: the share on earlier copies is what is scored, which more copies do raise.\n\n"
                "`evals.induction_loss` of TransformerLens is not in the table: it draws ids up to 20,000 and needs a tokenizer, so it does "
                "not run on a small model."
            ),
        ],
    )


if __name__ == "__main__":
    sys.exit(run_study(main))
