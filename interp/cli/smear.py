"""How much of each head's key comes from the token before it: the smeared keys that make induction possible in one layer.

  interp smear conv-attn                               per layer and head, beside the control two tokens back
  interp smear gpt2 --lags 1,2,3 --examples 32

Measured, not read off weights: one token is exchanged and the key at one position is watched. The share
is how far the key moves when the token LAG places before is exchanged, over that plus how far it moves
when its own token is. A wrong lag should show nothing: on a model that smears one token back, lag 2 is 0.
The numbers are those of interp.key_smear.
"""

import argparse
from typing import TYPE_CHECKING, Any

from interp.cli.common import numbers, whole_number
from interp.cli.inputs import add_batch_size, add_model, open_model, passes
from interp.cli.results import add_output, add_top, check_output, deliver, records, shown

if TYPE_CHECKING:
    from interp.cli.main import Work
    from interp.result import Result

TOP, ROWS_PER_EXAMPLE = 10, 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `interp smear` understands."""
    add_model(parser)
    parser.add_argument("--lags", type=numbers, default=[1, 2], metavar="N,…", help="how many tokens back (default: 1,2)")
    parser.add_argument("--examples", type=whole_number(1), default=64, metavar="N", help="random contexts (default: 64)")
    parser.add_argument("--seed", type=whole_number(0), default=0, metavar="N", help="of what is drawn (default: 0)")
    add_top(parser, TOP, "of heads")
    add_batch_size(parser)
    add_output(parser)


def prepare(arguments: argparse.Namespace) -> "Work":
    """Open the model; the work is to exchange tokens."""
    from interp.errors import ConfigError

    if min(arguments.lags) < 1:
        raise ConfigError(f"--lags {arguments.lags}", "they count tokens back from the key", "Give 1 or more, such as 1,2")
    check_output(arguments)
    model: Any = open_model(arguments)

    def work() -> None:
        n_rows = ROWS_PER_EXAMPLE * arguments.examples
        with passes(model, "exchanging tokens", n_rows, arguments.batch_size, times=len(arguments.lags)):
            result = _by_lag(arguments, model)
        rows = _wide(result)
        deliver(
            arguments,
            rows[: shown(arguments, TOP)],
            result,
            _grids(result) if arguments.page else (),
            n_rows=len(rows),
            top=len(rows),
        )

    return work


def _by_lag(arguments: argparse.Namespace, model: Any) -> "Result":
    from dataclasses import replace

    import torch

    from interp.probes import key_smear

    found = [
        key_smear(model, offset=-lag, n_examples=arguments.examples, seed=arguments.seed, batch_size=arguments.batch_size)
        for lag in arguments.lags
    ]
    errors = [one.stderr for one in found if one.stderr is not None]
    return replace(
        found[0],
        values=torch.stack([one.values for one in found]),
        stderr=torch.stack(errors) if len(errors) == len(found) else None,
        axes=("lag", *found[0].axes),
        labels={"lag": tuple(map(str, arguments.lags)), **found[0].labels},
    )


def _wide(result: "Result") -> list[dict[str, Any]]:
    """One row per head, a share and its standard error for each lag, the largest at the first lag first."""
    heads: dict[tuple[Any, Any], dict[str, Any]] = {}
    for row in records(result):
        head = heads.setdefault((row["layer"], row["head"]), {"layer": row["layer"], "head": row["head"]})
        head[f"lag {row['lag']}"] = row["value"]
        if "stderr" in row:
            head[f"stderr {row['lag']}"] = row["stderr"]
    first = f"lag {result.labels_of('lag')[0]}"
    return sorted(heads.values(), key=lambda row: (row[first] != row[first], -row[first]))


def _grids(result: "Result") -> list[Any]:
    from interp.report import Grid

    lags = result.labels_of("lag")
    return [Grid(result.at(lag=index), f"Share of the key owed to the token {lag} back.") for index, lag in enumerate(lags)]
