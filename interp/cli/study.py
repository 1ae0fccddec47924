"""The command line of a study: a preset, key=value, where the page and the trained runs go."""

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from interp.config import describe_fields, override
from interp.errors import InterpError

if TYPE_CHECKING:
    from interp.report import Page, Verdict

T = TypeVar("T")


@dataclass(frozen=True)
class StudyCommand(Generic[T]):
    """What a study was asked to do: its settings, where the page goes, where trained runs are kept."""

    preset: str
    config: T
    out: Path
    runs: Path
    workers: int | None
    command: str  # what rebuilds the page


def study_command(
    module: str, question: str, presets: Mapping[str, T], argv: Sequence[str] | None = None, *, trains: bool = True
) -> StudyCommand[T]:
    """Parse `python -m <module> [--preset P] [--out DIR] [--runs DIR] [--workers N] [key=value …]`.

    A study that trains nothing (`trains=False`) has neither --runs nor --workers.
    `presets` gives the settings by name; the first is the default. `key=value` overrides any setting (`--help` lists them
    all). A wrong key or value ends the program with exit code 2 and says what would be right.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    name = module.rsplit(".", 1)[-1]
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=question,
        epilog=_settings_help(presets),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = next(iter(presets))
    parser.add_argument(
        "--preset", choices=list(presets), default=default, help=f"which settings to start from (default: {default})"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("reports") / name, help=f"folder of the report (default: reports/{name})"
    )
    runs = Path("runs") / name
    parser.set_defaults(runs=runs, workers=None)
    if trains:
        parser.add_argument("--runs", type=Path, default=runs, help=f"folder of the trained runs (default: {runs})")
        parser.add_argument("--workers", type=int, default=None, help="runs trained at once (default: one per core)")
    parser.add_argument(
        "settings", nargs="*", metavar="key=value", help="settings to change, e.g. seeds=[0,1] repeated.train.lr=1e-3"
    )
    given = parser.parse_intermixed_args(argv)  # settings may stand before and after options
    if given.workers is not None and given.workers < 1:
        parser.error(f"--workers {given.workers}: at least one run must be trained at a time")
    for option, folder in (("--out", given.out), *([("--runs", given.runs)] if trains else [])):
        existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK):
            parser.error(f"{option} {folder}: {existing} is not a folder that can be written to")
    try:
        config = override(presets[given.preset], given.settings)
    except InterpError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    command = " ".join(["python -m", module, *map(shlex.quote, argv)])
    return StudyCommand(given.preset, config, given.out, given.runs, given.workers, command)


def end_study(command: StudyCommand[Any], page: "Page", cards: Sequence["Verdict"], seconds: float) -> Path:
    """Write the page, and the index of the folder it stands in if there is one; print the verdicts and where it is. Its path."""
    from interp.report import refresh_index, write_page

    path = write_page(page, command.out)
    refresh_index(command.out.parent)
    for card in cards:
        print(f"[{card.outcome}] {card.question}\n    {card.answer}")  # noqa: T201
    print(f"{seconds:.0f} s. The report is at {path}")  # noqa: T201
    return path


def run_study(main: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None = None) -> int:
    """Call a study's `main(argv)`; an error raised on purpose becomes one line and exit code 1, Ctrl-C exit code 130."""
    try:
        main(argv)
    except InterpError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        print("interrupted: finished runs are kept, the same command goes on from there", file=sys.stderr)  # noqa: T201
        return 130
    return 0


def _settings_help(presets: Mapping[str, T]) -> str:
    lines = ["settings (key=value), with the value in each preset:"]
    rows = {name: {key: (value, text) for key, value, text in describe_fields(config)} for name, config in presets.items()}
    for key, (_, text) in next(iter(rows.values())).items():
        values = [found[key][0] for found in rows.values() if key in found]
        shown = values[0] if len(set(values)) == 1 else " | ".join(f"{name}: {found[key][0]}" for name, found in rows.items())
        lines.append(f"  {key} = {shown}\n      {text}")
    return "\n".join(lines)
