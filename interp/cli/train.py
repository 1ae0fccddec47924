"""Train the runs that configuration files stand for.

A configuration is YAML with the groups model, data and train (`interp settings` lists what is in them); what is left out has its
default. A list for any setting makes a run of each entry, and all lists together their product:

  model: {kind: attn_attn, d_model: [32, 64]}
  data: {kind: induction}
  train: {lr: [1e-3, 3e-4], seed: [0, 1, 2]}        # 12 runs

key=value sets something in every file, lists included: train.seed=[0,1]. For a setting that is a list itself, such as
model.masked_taps, a list is one value and a list of lists several: model.masked_taps=[[],[-1]].

A run that finished before is not run again, and one that was interrupted goes on where it was.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.cli.common import add_import, check_folder, import_modules, print_table, without

if TYPE_CHECKING:
    from interp.cli.main import Work
    from interp.training.estimate import Estimate
    from interp.training.plans import Plan

IF_INTERRUPTED = "files are whole, and finished runs are kept: the same command goes on from there"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `interp train` understands."""
    parser.add_argument(
        "words", nargs="+", metavar="CONFIG|key=value", help="a file, a folder, a pattern or what several names begin with"
    )
    parser.add_argument("--out", type=Path, default=Path("runs"), metavar="FOLDER", help="where run folders go (default: runs)")
    parser.add_argument(
        "--on", choices=("local", "ray", "slurm"), default="local", help="where runs are trained (default: local)"
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="runs trained at once (default: one per core, or all there is room for)"
    )
    parser.add_argument(
        "--retries", type=int, default=2, metavar="N", help="how often a run goes on whose worker died (default: 2)"
    )
    parser.add_argument(
        "--slurm",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a parameter of submitit, such as slurm_partition=gpu or timeout_min=600; may be given several times",
    )
    parser.add_argument("--device", help="auto, cpu, cuda:N, or several: the same as train.device=…")
    parser.add_argument("--dry-run", action="store_true", help="only list the runs, with parameters and estimated time")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    add_import(parser)


def prepare(arguments: argparse.Namespace) -> "Work":
    """Read and check everything; the work is to train, or to list what would be trained."""
    from interp.errors import ConfigError

    configs, overrides = divided(arguments.words)
    if arguments.device is not None:
        overrides.append(f"train.device={json.dumps(arguments.device)}")
    if arguments.workers is not None and arguments.workers < 1:
        raise ConfigError(f"--workers {arguments.workers}", "at least one run is trained at a time", "Give 1 or more")
    _check_where(arguments)
    check_folder("--out", arguments.out)
    import_modules(arguments.modules)

    from interp.training.estimate import check_plans
    from interp.training.plans import read_plans

    plans = read_plans(configs, overrides)
    n_equal = sum(len(plan.also) for plan in plans)
    if n_equal:
        print(f"{n_equal} runs have the same settings as others and are not run twice", file=sys.stderr)  # noqa: T201
    if arguments.dry_run:
        return _listing(plans, arguments)
    check_plans(plans)
    return lambda: _train(plans, arguments)


def _check_where(arguments: argparse.Namespace) -> None:
    from interp.errors import ConfigError

    if arguments.retries < 0:
        raise ConfigError(f"--retries {arguments.retries}", "a run is tried at least once", "Give 0 or more")
    if arguments.slurm and arguments.on != "slurm":
        raise ConfigError(
            f"--slurm {arguments.slurm[0]}", f"it does nothing with --on {arguments.on}", "Add --on slurm, or leave it"
        )
    for text in arguments.slurm:
        if "=" not in text:
            raise ConfigError(f"--slurm {text}", "it has no value", "Write KEY=VALUE, such as slurm_partition=gpu")
    if arguments.on != "local" and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(f"--on {arguments.on}", "torchrun started processes that train one run together", "Use one of the two")


def divided(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Files and `key=value` texts; what exists as a file is one even with a `=` in its name."""
    configs = [word for word in words if "=" not in word or os.path.exists(word)]
    return configs, [word for word in words if word not in configs]


def _listing(plans: Sequence["Plan"], arguments: argparse.Namespace) -> "Work":
    from interp.training.estimate import estimate, together

    estimates = estimate(plans)

    def work() -> None:
        varied = list(dict.fromkeys(key for plan in plans for key in plan.varied))
        rows = [_row(each, varied) for each in estimates]
        print_table(rows, as_json=arguments.json)
        seconds = together(estimates, arguments.workers)
        runs = f"{len(plans)} run{'s' * (len(plans) > 1)}, {sum(each.n_parameters for each in estimates):,} parameters in all"
        if not arguments.json:
            start = ", without the start of worker processes, which takes some seconds" if len(plans) > 1 else ""
            print(f"{runs}, about {duration(seconds)}{start}")  # noqa: T201

    return work


def _row(each: "Estimate", varied: Sequence[str]) -> dict[str, Any]:
    return {
        "name": each.plan.name,
        **{key: each.plan.varied.get(key) for key in varied},
        "parameters": each.n_parameters,
        "sequences": each.n_sequences,
        "length": each.length,
        "steps": each.steps,
        "seconds": round(each.seconds, 1),
        "source": each.plan.source,
    }


def _train(plans: Sequence["Plan"], arguments: argparse.Namespace) -> None:
    from interp.training.catalog import Runs, find_runs
    from interp.training.grid import write_results

    runs = {plan.name: plan.config for plan in plans}
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    before = (
        {run.folder.resolve() for run in find_runs(arguments.out) if run.state == "finished"} if arguments.out.is_dir() else set()
    )
    folders = _train_together(runs, arguments.out) if several else _train_in_workers(runs, arguments)
    if int(os.environ.get("RANK", "0")):
        return
    write_results(arguments.out)
    opened = sum(folder.resolve() in before for folder in folders)
    if opened:
        told = "nothing was trained" if opened == len(folders) else f"the other {len(folders) - opened} were trained"
        print(f"{opened} of {len(folders)} runs had finished before and were opened; {told}", file=sys.stderr)  # noqa: T201
    found = {run.folder.resolve(): run for run in find_runs(arguments.out)}
    rows = Runs([found[folder.resolve()] for folder in folders]).to_rows()
    print_table(without(rows, {"name", "started", "state"}), as_json=arguments.json)


def _train_in_workers(runs: Mapping[str, Any], arguments: argparse.Namespace) -> list[Path]:
    import warnings
    from contextlib import redirect_stdout

    from interp.training import fit_all

    with warnings.catch_warnings(), redirect_stdout(sys.stderr):  # stdout is for the table; Ray speaks there as well
        warnings.showwarning = _say  # a worker that died, in one line
        finished = fit_all(runs, arguments.out, **_where(arguments), retries=arguments.retries)
    return [run.folder for run in finished.values() if run.folder is not None]


def _where(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.on != "slurm":
        return {"on": arguments.on, "workers": arguments.workers}
    from interp.config import read_yaml
    from interp.training.executors import SlurmExecutor

    parameters = {key: read_yaml(value, f"--slurm {key}") for key, value in (text.split("=", 1) for text in arguments.slurm)}
    return {"on": SlurmExecutor(arguments.out / ".slurm", arguments.workers, **parameters)}


def _say(message: Warning | str, *_: Any, **__: Any) -> None:
    from tqdm.auto import tqdm

    tqdm.write(str(message), file=sys.stderr)


def _train_together(runs: Mapping[str, Any], out: Path) -> list[Path]:
    """Under torchrun all processes train one run after the other."""
    from interp.data import load_data
    from interp.training import fit, run_id

    folders = []
    for name, config in runs.items():
        data = load_data(config.data)
        folders.append(out / f"{name}-{run_id(config, data)}")
        fit(config, folders[-1], data=data)
    return folders


def duration(seconds: float) -> str:
    """A length of time for people: `4 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 1 else "1 s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
