"""The hash of the weights: all that decides the numbers is in it."""

import sys

import pytest
import torch

from interp.models import ConvAttn
from interp.provenance import command_line, weights_hash


def test_a_masked_tap_changes_the_hash() -> None:
    """The mask is a buffer that is not saved with the weights."""
    torch.manual_seed(0)
    whole, masked = (ConvAttn(d_vocab=7, d_model=6, n_heads=2, masked_taps=taps) for taps in ((), (-1,)))
    masked.load_state_dict(whole.state_dict())
    assert weights_hash(whole) != weights_hash(masked)
    masked.conv.mask.copy_(whole.conv.mask)
    assert weights_hash(whole) == weights_hash(masked)


def test_the_command_names_no_folder_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    monkeypatch.setattr(sys, "orig_argv", ["/opt/secret/bin/python3", "-m", "experiments.x", "a b=1"])
    assert command_line() == "python3 -m experiments.x 'a b=1'"
    monkeypatch.setattr(sys, "orig_argv", ["python", "-c", "from multiprocessing.spawn import spawn_main; …"])
    monkeypatch.setattr(sys, "argv", ["/opt/study/__main__.py", "--preset", "quick"])
    assert command_line() == "python opt/study/__main__.py --preset quick"
