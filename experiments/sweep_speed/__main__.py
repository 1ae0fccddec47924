"""How fast are exact patching sweeps? `python -m experiments.sweep_speed --help`; the question is in README.md."""

import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import torch

from experiments.sweep_speed.answers import headline, verdicts
from experiments.sweep_speed.config import PRESETS, SweepSpeedConfig
from experiments.sweep_speed.measure import measure, timings
from experiments.sweep_speed.page import sections
from experiments.sweep_speed.tools import has_nnsight
from experiments.sweep_speed.workload import TOYS
from interp.cli import end_study, run_study, study_command
from interp.errors import ConfigError
from interp.provenance import code_version, versions
from interp.report import Page
from interp.result import Provenance

QUESTION = "How much faster are exact patching sweeps than TransformerLens' and nnsight's, and how near to the fewest operations?"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write the report."""
    command = study_command("experiments.sweep_speed", QUESTION, PRESETS, argv, trains=False)
    config, began = command.config, time.perf_counter()
    check_device(config.device)
    print(f"{QUESTION}\npreset {command.preset}, on {device_name(config.device)}; nnsight: {nnsight_version()}")
    results = measure(config, lambda name: print(f"{time.perf_counter() - began:4.0f} s  measuring: {name} ..."))
    cards = verdicts(results, config.device)
    seconds = time.perf_counter() - began
    page = Page(
        title="The speed of exact patching sweeps",
        question=headline(results),
        sections=sections(cards, results, shape_rows(config)),
        results=results,
        command=command.command,
        provenance=Provenance(
            model="random weights, see Method",
            data="random tokens",
            dtype="float32",
            device=device_name(config.device),
            versions=versions() | {"nnsight": nnsight_version()},
            code=code_version(),
            command=command.command,
            seconds=seconds,
        ),
        facts={
            "preset": command.preset,
            "device": device_name(config.device),
            "all threads": str(torch.get_num_threads()),
            "nnsight": nnsight_version(),
        },
    )
    end_study(command, page, cards, seconds)


def check_device(device: str) -> None:
    """Raise `ConfigError` for a device that is not there."""
    if device != "cpu" and not torch.cuda.is_available():
        raise ConfigError(
            f"device={device}", "torch sees no GPU here", "Leave device=cpu, or install torch with CUDA on such a machine"
        )


def device_name(device: str) -> str:
    """The device in words."""
    return "CPU" if device == "cpu" else torch.cuda.get_device_name(device)


def nnsight_version() -> str:
    """Its version, or that it is missing."""
    return version("nnsight") if has_nnsight() else "not installed"


def shape_rows(config: SweepSpeedConfig) -> list[dict[str, Any]]:
    """What each model is."""
    rows = []
    for name, part in timings(config).items():
        layers = {"AttnAttn": 2}.get(name, 1) if name in TOYS else part.n_layers  # type: ignore[attr-defined]
        rows.append(
            {
                "model": name,
                "layers": layers,
                "width": part.d_model,
                "heads": part.n_heads,
                "vocabulary": part.d_vocab,
                "tokens": part.n_tokens,
                "positions patched": -(-part.n_tokens // part.every),
                "rounds": part.rounds,
            }
        )
    return rows


if __name__ == "__main__":
    sys.exit(run_study(main))
