"""`interp.diagnose`: what is wrong with a model, read off its attention, its stream and its gradients on one batch.

    print(interp.diagnose(model, tokens))                 # calls the model itself, in eval mode
    with watched(model, tokens) as watch:                 # or listens to a training step
        loss = criterion(model(tokens), labels)
        loss.backward()
    print(watch.diagnosis())

Each check states its limit and the reason for it (`CHECKS`). A check that cannot look (no padding in the batch, no such hook
point) says so and never counts as passed.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxtyping import Int
from torch import Tensor, nn

from interp.display import card, table
from interp.errors import InterpError, nearest
from interp.probes import health_flow  # noqa: F401  # adds its checks to CHECKS
from interp.probes.health_checks import CHECKS, Check, Finding, NotApplicable
from interp.probes.health_reading import Loss, Reading, blank_reading, keeping, read_batch
from interp.result import Result
from interp.sites import HookedModel

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What the checks found on one batch.

    `findings`: what is wrong, in the order of the checks. `measured`: by check, the numbers it looked at, whether or not it found
    anything. `skipped`: by check, why it could not look.
    """

    findings: tuple[Finding, ...]
    measured: Mapping[str, Result]
    skipped: Mapping[str, str]

    @property
    def healthy(self) -> bool:
        """Whether no check that could look found anything."""
        return not self.findings

    @property
    def found(self) -> tuple[str, ...]:
        """The names of the checks that found something."""
        return tuple(finding.check for finding in self.findings)

    def finding(self, check: str) -> Finding | None:
        """What one check found, or None. Raises `InterpError` for a name that is not a check."""
        names = [each.name for each in CHECKS]
        if check not in names:
            raise InterpError(f"check {check!r}", f"checks are {', '.join(names)}", f"{nearest(check, names)}Choose one of those")
        return next((finding for finding in self.findings if finding.check == check), None)

    def to_frame(self) -> "pd.DataFrame":
        """One row per check: what it says (`found`, `passed`, `not applicable`), where, evidence, likely cause."""
        import pandas as pd

        return pd.DataFrame([self._row(check) for check in CHECKS])

    def _row(self, check: Check) -> dict[str, str]:
        finding = next((each for each in self.findings if each.check == check.name), None)
        if finding is not None:
            told = ("found", finding.where, finding.evidence, finding.cause)
        elif check.name in self.skipped:
            told = ("not applicable", "", self.skipped[check.name], "")
        else:
            told = ("passed", "", "", "")
        return dict(zip(("check", "verdict", "where", "evidence", "likely cause"), (check.name, *told), strict=True))

    def __str__(self) -> str:
        looked = len(CHECKS) - len(self.skipped)
        lines = [f"{len(self.findings)} of {looked} checks found something ({len(self.skipped)} not applicable)"]
        lines += [f"- {each.check} ({each.where}): {each.evidence}. Likely: {each.cause}" for each in self.findings]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return card(str(self).splitlines()[0], table(self.to_frame()))


def diagnose(
    model: HookedModel,
    batch: Int[Tensor, "batch pos"],
    *,
    pad_id: int | None = None,
    mask: Tensor | None = None,
    causal: bool | None = None,
    residual: bool | None = None,
    loss: Loss | None = None,
) -> Diagnosis:
    """Every check of `CHECKS` on one batch of tokens: what is wrong, with evidence and a likely cause.

    Padding is told by `pad_id` (the run of it at the end of rows) or by `mask` [batch pos] (True at real tokens, on any side); a
    model whose `cfg.pad_id` names it needs neither. `causal` and `residual`: whether attention must look back only, and whether
    there is a residual stream; None takes what the model says of itself (`cfg.attention_dir`, `config.residual`), and where it
    says nothing, a stream is assumed and causality not judged. `loss` takes the logits to a number; None: cross-entropy of random
    labels, which has a gradient also where a trained model's own loss has none left.

    Give a batch of 64 tokens or more, some rows padded. Works on any hooked model in any state; it is run in eval mode and left
    as it was: mode, hooks, gradients, random state. Raises `ModelError` and `DataError` as `run` does, and `DataError` for a
    mask that does not fit or padding that nobody told. Cost: at most six forward passes, a backward pass, a short one per layer.
    Memory: the patterns and residual streams of all layers, with the graph.
    """
    reading = blank_reading(model, batch, pad_id=pad_id, mask=mask, causal=causal, residual=residual)
    read_batch(model, reading, loss)
    return _judged(reading)


class Watch:
    """What `watched` listens to; `diagnosis()` judges the last forward pass, with the gradients of a backward pass if any."""

    def __init__(self, reading: Reading, live: Mapping):
        self._reading, self._live = reading, live

    def diagnosis(self) -> Diagnosis:
        """The checks that one pass in the mode it ran in can answer. Raises `InterpError` when the model was not called."""
        if not self._reading.at:
            raise InterpError("diagnosing a watched model", "it was not called inside the block", "Call it there first")
        return _judged(self._reading)


@contextmanager
def watched(
    model: HookedModel,
    batch: Int[Tensor, "batch pos"],
    *,
    pad_id: int | None = None,
    mask: Tensor | None = None,
    causal: bool | None = None,
    residual: bool | None = None,
) -> Iterator[Watch]:
    """Listen to the caller's own forward and backward pass on `batch`, in whatever mode: `diagnose` in the midst of training.

    Arguments as in `diagnose`. Nothing is run and nothing changed; gradients come from the caller's `backward()`. Checks
    that need further passes (residual path, dropout, later tokens) are left out.
    """
    reading = blank_reading(model, batch, pad_id=pad_id, mask=mask, causal=causal, residual=residual)
    handles: list[Any] = []

    def note(site: object, gradient: Tensor) -> None:
        reading.slopes[site] = gradient.detach()  # type: ignore[index]

    def listen(module: nn.Module, inputs: tuple, output: object) -> None:
        handles.extend(
            tensor.register_hook(lambda gradient, site=site: note(site, gradient))
            for site, tensor in live.items()
            if tensor.requires_grad
        )

    with keeping(model, reading, slopes=True) as live:
        handle = model.register_forward_hook(listen)  # type: ignore[attr-defined]
        try:
            yield Watch(reading, live)
        finally:
            for each in (handle, *handles):
                each.remove()


def _judged(reading: Reading) -> Diagnosis:
    findings, measured, skipped = [], {}, {}
    for check in CHECKS:
        try:
            measured[check.name], finding = check.look(reading, check)
        except NotApplicable as reason:
            skipped[check.name] = str(reason)
            continue
        if finding is not None:
            findings.append(finding)
    return Diagnosis(tuple(findings), measured, skipped)
