"""Saved cells of a sweep are taken up by the same sweep alone: in doubt they are refused."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from interp import Site, ablated, edited, metrics, patching_effects
from interp.errors import ResultError
from interp.identity import described
from interp.interventions.edits import Zero
from interp.models import AttnAttn

ANSWERS = torch.tensor([1, 2])
PLACE = 3
READ = metrics.logit_diff(1, 2)


def by_global(logits: Tensor, tokens: Tensor) -> Tensor:
    return picked(logits, ANSWERS)


def picked(logits: Tensor, ids: Tensor) -> Tensor:
    return logits[:, PLACE].gather(1, ids[: len(logits), None])[:, 0]


def model() -> AttnAttn:
    torch.manual_seed(1)
    return AttnAttn(d_vocab=19, d_model=8, n_heads=2, residual=True).eval()


def swept(subject: Any, metric: Any, kept: Path | None, **more: Any) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    clean, corrupted = (torch.randint(19, (2, 5), generator=generator) for _ in range(2))
    return patching_effects(subject, clean, corrupted, metric, checkpoint=kept, progress=False, **more).values


@contextmanager
def hooked(subject: Any) -> Iterator[None]:
    """A bound that does not bind in either untouched run: nothing but the hook itself tells the sweeps apart."""
    with subject.hooks([("blocks.0.attn.hook_z", lambda z, hook: z.clamp(-1e6, 1e6))]):
        yield


UNDER: dict[str, Callable[[Any], Any]] = {
    "nothing": nullcontext,
    "ablated": lambda subject: ablated(subject, heads=[(0, 0)], mode="zero"),
    "another head": lambda subject: ablated(subject, heads=[(0, 1)], mode="zero"),
    "edited": lambda subject: edited(subject, [Zero(Site("z", 1, head=0))]),
    "hooked": hooked,
}


@pytest.mark.parametrize("other", UNDER)
@pytest.mark.parametrize("first", UNDER)
def test_cells_made_under_other_hooks_are_refused_and_under_the_same_taken_up(first: str, other: str, tmp_path: Path) -> None:
    kept = tmp_path / "cells.safetensors"
    subject = model()
    with UNDER[first](subject):
        whole = swept(subject, READ, kept)
    subject = model()
    with UNDER[other](subject):
        if first == other:
            assert torch.equal(swept(subject, READ, kept), whole)
            assert torch.equal(swept(subject, READ, kept), whole)
        else:
            with pytest.raises(ResultError, match="another sweep .*hooks on it"):
                swept(subject, READ, kept)


def test_a_global_that_the_metric_reads_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, this = tmp_path / "cells.safetensors", sys.modules[__name__]
    whole = swept(model(), by_global, kept)
    assert torch.equal(swept(model(), by_global, kept), whole)
    for name, other in (("ANSWERS", torch.tensor([4, 5])), ("PLACE", 2), ("picked", lambda logits, ids: logits[:, -1, 0])):
        with monkeypatch.context() as patch:
            patch.setattr(this, name, other)
            with pytest.raises(ResultError, match="another sweep"):
                swept(model(), by_global, kept)
    assert torch.equal(swept(model(), by_global, kept), whole)


def test_two_functions_on_one_line_are_told_apart(tmp_path: Path) -> None:
    one, other = (lambda logits, tokens: logits[:, -1, 3]), (lambda logits, tokens: logits[:, -1, 5])
    swept(model(), one, tmp_path / "cells.safetensors")
    with pytest.raises(ResultError, match="another sweep"):
        swept(model(), other, tmp_path / "cells.safetensors")


def test_untouched_runs_that_changed_for_no_reason_seen_are_refused(tmp_path: Path) -> None:
    """What a function looks up elsewhere: no description knows of it, but the metric of both runs does."""
    kept = tmp_path / "cells.safetensors"

    def from_outside(logits: Tensor, tokens: Tensor) -> Tensor:
        return logits[:, -1, int(os.environ["INTERP_TEST_ID"])]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INTERP_TEST_ID", "3")
        whole = swept(model(), from_outside, kept)
        assert torch.equal(swept(model(), from_outside, kept, batch_size=1), whole)
        patch.setenv("INTERP_TEST_ID", "5")
        with pytest.raises(ResultError, match="another sweep"):
            swept(model(), from_outside, kept)


def function(source: str, **names: Any) -> Any:
    names = {"__name__": "__main__", "torch": torch} | names
    exec(compile(source, f"<cell {id(names)}>", "exec"), names)
    return names["f"]


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("f = lambda x: x + 1", {}),
        ("def f(x): return [y + 1 for y in x if y in {1, 2}]", {}),
        ("def f(x): return (lambda: K + x)()", {"K": 1}),
        ("def f(x): return K[0]['a'] + x", {"K": [{"a": 1}]}),
        ("def f(x): return helpers.g(x)", {"helpers": 1}),
        ("class K:\n    a = 1\n    def g(self): return self.a + 1\ndef f(x): return K().g()", {}),
    ],
)
def test_whatever_a_function_names_changes_its_description(source: str, names: dict[str, Any]) -> None:
    def made(text: str, one: int) -> str:
        given: dict[str, Any] = dict.fromkeys(names, one)
        if isinstance(names.get("K"), list):
            given["K"] = [{"a": one}]
        if "helpers" in names:
            given["helpers"] = ModuleType("helpers_of_mine")
            given["helpers"].g = function(f"def f(x): return x + {one}")
        return described(function(text, **given))

    assert made(source, 1) == made(source, 1) == made("\n\n" + source, 1)
    changed = made(source, 2) if names else made(source.replace("+ 1", "+ 2"), 1)
    assert changed != made(source, 1)


def test_the_description_is_the_same_in_another_process() -> None:
    """Whatever the order of sets and the numbers of objects there."""
    program = (
        "import hashlib, numpy, torch, logging\nfrom interp import metrics\nfrom interp.identity import described\n"
        "log, table = logging.getLogger('x'), numpy.arange(3)\n"
        "def f(logits, tokens):\n    log.info('%s', table)\n    return logits[:, -1, 1] if tokens in {'a', 'b', 'c'} else K\n"
        "K = {'a', 'b', 'c', 'd'}\nprint(hashlib.sha256(described([f, metrics.logit_diff(1, 2)]).encode()).hexdigest())\n"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1 and len(found.pop().strip()) == 64
