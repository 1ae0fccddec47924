"""Attention scores of every head, in one forward pass.

  interp score conv-attn                               the best heads of each score
  interp score gpt2 --scores induction,previous_token --top 10
  interp score gpt2 --text essay.txt                   on a text, by token match
  interp score conv-attn --json | jq '.[0]'            every head
  interp score conv-attn --out scores.json --page reports/scores

induction, prefix_matching, duplicate_token, previous_token, current_token and first_token are shares of
attention, from 0 to 1; baseline is what a head gets that attends equally to all it can see. entropy is
in nats: low means focused, so the lowest come first. The numbers are those of interp.head_scores.
"""

import argparse
from typing import TYPE_CHECKING, Any

from interp.cli.common import listed, say
from interp.cli.inputs import add_batch_size, add_model, add_text, open_model, passes, read_input
from interp.cli.results import add_output, add_top, check_output, deliver, records, shown

if TYPE_CHECKING:
    from interp.cli.main import Work
    from interp.result import Result

TOP = 5
LOWEST_FIRST = ("entropy",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `interp score` understands."""
    add_model(parser)
    parser.add_argument("--scores", type=listed, metavar="A,B,…", help="which (default: all that the kind of attention allows)")
    parser.add_argument(
        "--bidirectional", action="store_true", help="attention looks ahead, as in BERT: four scores have no meaning then"
    )
    add_top(parser, TOP, "for each score")
    add_batch_size(parser)
    add_text(parser)
    add_output(parser)


def prepare(arguments: argparse.Namespace) -> "Work":
    """Open the model and read the text; the work is to score."""
    check_output(arguments)
    _check_names(arguments.scores)
    model: Any = open_model(arguments)
    given = read_input(arguments, model)
    from interp.probes import head_scores
    from interp.probes.scores import chosen_scores

    names = None if arguments.scores is None else tuple(arguments.scores)
    looks_ahead = arguments.bidirectional or getattr(model.cfg, "attention_dir", "causal") == "bidirectional"
    if looks_ahead:
        say("attention looks ahead: scores that speak of earlier tokens have no meaning here")
    chosen_scores(names, given.period, looks_ahead)  # a name that the text does not allow is found before anything is run

    def work() -> None:
        with passes(model, f"scoring {given.told}", len(given.tokens), arguments.batch_size):
            scores = head_scores(
                model,
                given.tokens,
                scores=names,
                period=given.period,
                bidirectional=looks_ahead,
                batch_size=arguments.batch_size,
            )
        everything = records(scores)
        rows = best(everything, shown(arguments, TOP))
        blocks = blocks_of(scores) if arguments.page else ()
        deliver(arguments, rows, scores, blocks, n_rows=len(everything), top=scores.values[0].numel())

    return work


def _check_names(names: list[str] | None) -> None:
    """Raise `ConfigError` for names that are no score, whatever is read: before the model is opened."""
    from interp.probes.scores import chosen_scores

    if names is not None:
        chosen_scores(tuple(names), 2, False)  # with a period all names are known


def best(rows: list[dict[str, Any]], k: int | None) -> list[dict[str, Any]]:
    """The `k` strongest rows of each score, strongest first; None: all. Undefined ones stand last."""
    found = []
    for score in dict.fromkeys(row["score"] for row in rows):
        sign = 1 if score in LOWEST_FIRST else -1
        of_score = [row for row in rows if row["score"] == score]
        found += sorted(of_score, key=lambda row: (row["value"] != row["value"], sign * row["value"]))[:k]
    return found


def blocks_of(scores: "Result") -> list[Any]:
    """A grid per score."""
    from interp.report import Grid

    names = scores.labels_of("score")
    return [
        Grid(scores.at(score=index), f"{name} of every head.", f"{name} by layer and head") for index, name in enumerate(names)
    ]
