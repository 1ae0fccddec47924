"""Activation patching: put one activation from one prompt into another and see how much of the answer comes along.

  interp patch attn-attn-supplied                      every head's output, on pairs of repeated random tokens
  interp patch gpt2 --pairs ioi --top 10               indirect objects: "Mary and John …, John gave it to" → Mary
  interp patch gpt2 --pairs ioi --site resid_pre --positions named
  interp patch gpt2 --pairs mine.csv --site mlp_out    columns: clean, corrupted, answer, wrong (also .json, .jsonl)
  interp patch gpt2 --pairs ioi --checkpoint ioi.cells the same command goes on where it was stopped

The metric is the logit of the answer minus that of the wrong answer (for greater_than: the probability
of later years minus that of earlier ones). recovery is 0 as in the run that is patched and 1 as in the
other (denoising: clean into corrupted), effect the difference from the unpatched metric. Rows that are
furthest from the baseline come first.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.cli.common import check_folder, listed, numbers, say, whole_number
from interp.cli.inputs import add_model, add_period, open_model, usual_period
from interp.cli.results import add_output, add_top, check_output, deliver, records, shown

if TYPE_CHECKING:
    from interp.cli.main import Work
    from interp.data import PromptPairs
    from interp.result import Result

TOP = 15
GENERATED = ("induction", "ioi", "greater_than")
FILES = (".csv", ".json", ".jsonl")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `interp patch` understands."""
    add_model(parser)
    pairs = parser.add_argument_group("prompts")
    pairs.add_argument(
        "--pairs", default=GENERATED[0], metavar="NAME|FILE", help=f"{', '.join(GENERATED)}, or a file (default: {GENERATED[0]})"
    ).completer = complete_pairs  # type: ignore[attr-defined]
    pairs.add_argument("--n", type=whole_number(1), metavar="N", help="how many pairs are made (default: 32), or used of a file")
    add_period(pairs)
    what = parser.add_argument_group("what is patched")
    what.add_argument("--site", default="z", help="z, q, k, v, pattern, resid_pre, resid_mid, resid_post, … (default: z)")
    what.add_argument(
        "--over", type=listed, metavar="A,B", help="the grid: of layer, head, position (default: layer,head or layer,position)"
    )
    what.add_argument("--layers", type=numbers, metavar="L,…", help="only these")
    what.add_argument("--heads", type=numbers, metavar="H,…", help="only these, in every layer")
    what.add_argument(
        "--positions", metavar="named|P,…", help="only these: the names that the pairs give, or some of them, or numbers"
    )
    what.add_argument("--direction", choices=("denoising", "noising"), default="denoising", help="default: denoising")
    what.add_argument("--values", choices=("recovery", "effect", "metric"), default="recovery", help="default: recovery")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="keep finished cells there; the same command goes on")
    add_top(parser, TOP, "of the grid")
    add_output(parser)


def prepare(arguments: argparse.Namespace) -> "Work":
    """Open the model and make or read the pairs; the work is to patch."""
    from interp.errors import ConfigError, nearest

    file = Path(arguments.pairs).suffix in FILES
    if not file and arguments.pairs not in GENERATED:
        told = f"pairs are {', '.join(GENERATED)}, or a file that ends in {', '.join(FILES)}"
        raise ConfigError(f"--pairs {arguments.pairs}", told, f"{nearest(arguments.pairs, GENERATED)}Give one of those")
    idle = [name for name in ("period", "seed") if getattr(arguments, name) is not None]
    if (file and idle) or ("period" in idle and arguments.pairs != "induction"):
        raise ConfigError(f"--{idle[0]} with --pairs {arguments.pairs}", "it would do nothing", "Leave it out")
    check_output(arguments)
    if arguments.checkpoint is not None:
        check_folder("--checkpoint", arguments.checkpoint.parent)
    from interp.interventions.patching.cells import PATCHABLE, chosen_sites
    from interp.sites import nearest_kind

    if arguments.site not in PATCHABLE:
        hint = nearest_kind(arguments.site, PATCHABLE)
        raise ConfigError(f"--site {arguments.site}", f"the sites are {', '.join(PATCHABLE)}", f"{hint}Name one of them")
    model: Any = open_model(arguments)
    chosen_sites(model, arguments.site, arguments.layers)
    pairs, metric = _pairs(arguments, model, file)
    positions = _positions(arguments.positions, pairs)

    def work() -> None:
        from interp.interventions import activation_patching

        result = activation_patching(
            model,
            pairs.clean,
            pairs.corrupted,
            metric,
            arguments.site,
            over=arguments.over,
            layers=arguments.layers,
            heads=arguments.heads,
            positions=positions,
            direction=arguments.direction,
            values=arguments.values,
            checkpoint=arguments.checkpoint,
        )
        result = _labelled(result, pairs) if positions is None else result
        say(f"{pairs.description}; {result.description}")
        if not _told_apart(model, pairs, metric):
            say("note: the model hardly tells the clean prompts from the corrupted ones, so there is little to recover")
        rows = _furthest(result)
        deliver(
            arguments,
            rows[: shown(arguments, TOP)],
            result,
            _grid(result) if arguments.page else (),
            n_rows=len(rows),
            top=len(rows),
        )

    return work


def complete_pairs(prefix: str, **_: Any) -> list[str]:
    """What --pairs could be: a name, or a file from here."""
    parent = Path(prefix) if prefix.endswith("/") else Path(prefix).parent
    files = [str(path) + ("/" if path.is_dir() else "") for path in parent.iterdir() if path.is_dir() or path.suffix in FILES]
    return [name for name in (*GENERATED, *files) if name.startswith(prefix)]


def _pairs(arguments: argparse.Namespace, model: Any, file: bool) -> tuple["PromptPairs", Any]:
    """The pairs, and the metric that fits them."""
    from interp.data import greater_than_metric, greater_than_pairs, induction_pairs, ioi_pairs, load_pairs
    from interp.data.pairs.encoding import check_tokenizer
    from interp.models.calling import device_of

    tokenizer: Any = getattr(model, "tokenizer", None)  # without one the pairs of text say so
    n, seed = arguments.n or 32, arguments.seed or 0
    if file:
        check_tokenizer(f"--pairs {arguments.pairs}", tokenizer)
        pairs = load_pairs(arguments.pairs, tokenizer)
        pairs = pairs.select(range(min(arguments.n or len(pairs), len(pairs))))
    elif arguments.pairs == "induction":
        period = arguments.period or usual_period(arguments.model, model)
        pairs = induction_pairs(model, n=n, period=period, seed=seed)
    else:
        check_tokenizer(f"--pairs {arguments.pairs}", tokenizer)
        pairs = (ioi_pairs if arguments.pairs == "ioi" else greater_than_pairs)(tokenizer, n=n, seed=seed)
    metric = greater_than_metric(pairs, tokenizer) if arguments.pairs == "greater_than" else pairs.metric()
    return pairs.to(device_of(model)), metric


def _positions(text: str | None, pairs: "PromptPairs") -> Any:
    """What `activation_patching` takes as positions. Raises `DataError` for a name that the pairs do not have."""
    if text is None:
        return None
    if text == "named":
        return pairs.positions
    words = [word.strip() for word in text.split(",")]
    return {word: int(word) if word.lstrip("-").isdecimal() else pairs.position(word) for word in words}


def _told_apart(model: Any, pairs: "PromptPairs", metric: Any) -> bool:
    """Whether the metric is larger on the clean prompts, by more than two standard errors."""
    from interp.metrics import metric_values

    clean, corrupted = (metric_values(model, prompts, metric, batch_size=8).values for prompts in (pairs.clean, pairs.corrupted))
    gap = (clean - corrupted).double()
    return bool(gap.mean() > (2 * gap.std() / len(gap) ** 0.5 if len(gap) > 1 else 0))


def _labelled(result: "Result", pairs: "PromptPairs") -> "Result":
    """With the tokens, where all pairs agree, in the labels of positions."""
    from dataclasses import replace

    if "position" not in result.axes:
        return result
    return replace(result, labels={**result.labels, "position": pairs.labels})


def _furthest(result: "Result") -> list[dict[str, Any]]:
    rows = records(result)
    return sorted(rows, key=lambda row: (row["value"] != row["value"], -abs(row["value"] - row.get("baseline", 0.0))))


def _grid(result: "Result") -> list[Any]:
    from interp.report import Grid

    return [Grid(result, result.description)] if len(result.axes) == 2 else []
