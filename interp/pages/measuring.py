"""What an overview measures: each reading by itself, so that a model which refuses one is still shown the others.

A reading that the model cannot give is a `Refused` with the reason; nothing is left out without a word.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, cast

import torch
from jaxtyping import Int
from torch import Tensor, nn
from tqdm.auto import tqdm

from interp import metrics
from interp.data import PromptPairs, induction_pairs
from interp.errors import DataError, InterpError
from interp.interventions import ablation_effects, ablation_sweep, activation_patching
from interp.models import audit
from interp.models.calling import device_of
from interp.pages.heads import STANDARD_ERRORS, cells_of, induction_heads, name_of, other_sets
from interp.pages.reading import spelled
from interp.probes import (
    attention_patterns,
    filter_norms,
    head_scores,
    in_context_learning,
    kernel_maps,
    kernel_stats,
    key_smear,
    null_scores,
    repeat_loss,
    repeated_tokens,
    token_losses,
)
from interp.probes.scores import Induction
from interp.result import Result
from interp.running import Probe, Readings, run
from interp.sites import OUTPUT, HookedModel, Site

N_SCORED, N_ABLATED, N_PAIRS = 32, 8, 32  # sequences, sequences and pairs: what is read, ablated and patched
N_GUESSES, N_RANDOM = 5, 8


@dataclass(frozen=True)
class Refused:
    """A reading that this model does not give, and why (what is the case, as a clause)."""

    reason: str


Found = Mapping[str, Any]  # name of a reading -> what it gave (mostly a `Result`), or `Refused`


@dataclass(frozen=True, eq=False)
class Asked:
    """What is measured on what: the model, the sequence shown token by token, and how repeats are drawn."""

    model: HookedModel
    example: Int[Tensor, "1 pos"]
    period: int
    seed: int
    batch_size: int

    def repeats(self, n_sequences: int, copies: int = 2) -> Int[Tensor, "sequence pos"]:
        """BOS + r + r (+ r …), the same r whatever the number of copies."""
        return repeated_tokens(self.model, n_sequences=n_sequences, period=self.period, copies=copies, seed=self.seed)


def measured(asked: Asked, progress: bool) -> dict[str, Any]:
    """Every reading, in the order in which later ones use earlier ones."""
    steps: dict[str, Callable[[Asked, dict[str, Any]], Any]] = {
        "audit": lambda asked, found: audit(asked.model),
        "scores": _scores,
        "null": _null,
        "patterns": lambda asked, found: attention_patterns(asked.model, asked.example),
        "repeat loss": _repeat_loss,
        "in-context learning": _learning,
        "token losses": lambda asked, found: token_losses(asked.model, asked.example),
        "next tokens": _next_tokens,
        "ablation": partial(_ablation, progress=progress),
        "effects of sets": partial(_effects_of_sets, progress=progress),
        "cause": _cause,
        "answer gap": _answer_gap,
        "patched heads": partial(_patched, site="z", progress=progress),
        "patched positions": partial(_patched, site="resid_pre", progress=progress),
        "following": _following,
        "smear": lambda asked, found: _smear(asked, -1),
        "smear control": lambda asked, found: _smear(asked, -2),
        "kernel statistics": lambda asked, found: kernel_stats(cast(nn.Module, asked.model)),
        "kernel maps": lambda asked, found: kernel_maps(cast(nn.Module, asked.model)),
        "filter norms": lambda asked, found: filter_norms(cast(nn.Module, asked.model)),
    }
    found: dict[str, Any] = {}
    with tqdm(steps.items(), desc="measuring", unit="reading", disable=not progress) as bar:
        for name, step in bar:
            bar.set_postfix_str(name)
            try:
                result = step(asked, found)
                found[name] = timeless(result) if isinstance(result, Result) else result
            except InterpError as error:
                found[name] = Refused(error.truth)
    return found


def timeless(result: Result) -> Result:
    """Without the seconds it took, so that the same measurement gives the same page."""
    return result.with_provenance(replace(result.provenance, seconds=0.0))


def needed(found: Found, name: str) -> Any:
    """A reading that another one rests on. Raises `DataError` when it was refused."""
    if isinstance(found[name], Refused):
        raise DataError("a reading", f"it rests on the {name}, which could not be had: {found[name].reason}", "See there")
    return found[name]


def _scores(asked: Asked, found: Found) -> Result:
    """All scores on repeats; of a model whose attention looks ahead those that have a meaning there."""
    looks_ahead = getattr(getattr(asked.model, "cfg", None), "attention_dir", "causal") == "bidirectional"
    return head_scores(
        asked.model,
        asked.repeats(N_SCORED, copies=4),
        period=asked.period,
        bidirectional=looks_ahead,
        batch_size=asked.batch_size,
    )


def _null(asked: Asked, found: Found) -> Result:
    tokens = asked.repeats(N_SCORED, copies=4)
    return null_scores(asked.model, tokens, period=asked.period, seed=asked.seed, batch_size=asked.batch_size)


def _repeat_loss(asked: Asked, found: Found) -> Result:
    return repeat_loss(asked.model, asked.repeats(N_SCORED), asked.period, batch_size=asked.batch_size)


def _learning(asked: Asked, found: Found) -> Result:
    """Loss in the middle of the first copy and of the fourth."""
    widest = min(11, asked.period - 1)
    window = widest - (widest % 2 == 0)
    early, late = 1 + asked.period // 2, 1 + 3 * asked.period + asked.period // 2
    tokens = asked.repeats(N_SCORED, copies=4)
    return in_context_learning(asked.model, tokens, early, late, window=window, batch_size=asked.batch_size)


def _ablation(asked: Asked, found: Found, progress: bool) -> Result:
    tokens, metric = asked.repeats(N_ABLATED), _loss_of_copy(asked.period, 2)
    return ablation_sweep(asked.model, tokens, metric, batch_size=asked.batch_size, progress=progress)


def _effects_of_sets(asked: Asked, found: Found, progress: bool) -> Result:
    """Axes (example, copy, set): what ablating the induction heads, and as many others, does to the loss of each copy."""
    scores = needed(found, "scores")
    chosen = induction_heads(scores, needed(found, "null"))
    if not chosen:
        raise DataError("ablating induction heads", "no head passes for an induction head", "See the scores")
    others = [cell for cell in cells_of(scores) if cell not in chosen]
    sets = {"induction heads": chosen} | other_sets(others, len(chosen), N_RANDOM, asked.seed)
    tokens = asked.repeats(N_ABLATED)
    copies = [
        ablation_effects(
            asked.model, tokens, _loss_of_copy(asked.period, copy), sets, batch_size=asked.batch_size, progress=progress
        )
        for copy in (1, 2)
    ]
    return replace(
        copies[0],
        name=f"{copies[0].name} of sets of heads",
        values=torch.stack([copy.values for copy in copies], dim=1),
        axes=("example", "copy", "set"),
        labels={"copy": ("first copy", "second copy"), "set": tuple(sets)},
        description="effect on the loss of each copy: metric(ablated) − metric(untouched), mean ablation; "
        + "; ".join(f"{name}: {', '.join(map(name_of, heads))}" for name, heads in sets.items()),
    )


def _cause(asked: Asked, found: Found) -> Result:
    """Axes (copy, set): the mean of the effects over examples, with its standard error."""
    return averaged(needed(found, "effects of sets"))


def averaged(effects: Result) -> Result:
    """The mean over the first axis, with its standard error where there are two entries or more."""
    values = effects.values.double()
    n = len(values)
    error = values.std(0) / n**0.5 if n > 1 else None
    labels = {axis: names for axis, names in effects.labels.items() if axis != effects.axes[0]}
    return replace(effects, values=values.mean(0), stderr=error, axes=effects.axes[1:], labels=labels, count=n)


def _loss_of_copy(period: int, copy: int) -> metrics.Metric:
    """The mean loss of one copy of a repeat, without its first token, which nothing announces."""
    start = (copy - 1) * period
    return metrics.loss(range(start + 2, start + period + 1))


def _pairs(asked: Asked) -> PromptPairs:
    return induction_pairs(asked.model, n=N_PAIRS, period=asked.period, seed=asked.seed).to(device_of(asked.model))


def _answer_gap(asked: Asked, found: Found) -> Result:
    """How much higher the answer stands above the other token after the clean prompt than after the corrupted one, by pairs."""
    pairs = _pairs(asked)
    clean, corrupted = (
        metrics.metric_values(asked.model, tokens, pairs.metric(), batch_size=asked.batch_size)
        for tokens in (pairs.clean, pairs.corrupted)
    )
    gaps = replace(
        clean,
        name="gap of the answers",
        values=clean.values.double() - corrupted.values.double(),
        unit="logits",
        description="answer minus other token, after the clean prompt minus after the corrupted one: mean over pairs",
    )
    return averaged(gaps)


def gap_in_words(gap: Result) -> str:
    """The gap with its standard error."""
    error = "" if gap.stderr is None else f" ± {float(gap.stderr):.2g}"
    return f"{gap.item():.3g}{error} logits"


def _patched(asked: Asked, found: Found, site: str, progress: bool) -> Result:
    """Recovery on induction pairs. Raises `DataError` where the gap that it is a share of is not clearly above 0."""
    gap = needed(found, "answer gap")
    if gap.stderr is None or not gap.item() > STANDARD_ERRORS * float(gap.stderr):
        told = (
            f"it hardly tells the prompts of a pair apart: clean minus corrupted is {gap_in_words(gap)} over {gap.count} pairs, "
            f"not {STANDARD_ERRORS:g} standard errors above 0, and recovery is a share of that gap"
        )
        raise DataError("patching induction pairs", told, "Patch prompts that it can answer")
    pairs = _pairs(asked)
    positions = pairs.positions if site == "resid_pre" else None
    return activation_patching(
        asked.model, pairs.clean, pairs.corrupted, pairs.metric(), site, positions=positions, values="recovery", progress=progress
    )


def _following(asked: Asked, found: Found) -> Result:
    """At each position of the example, the attention of the best induction head to what followed earlier copies of the token."""
    scores, patterns = needed(found, "scores"), needed(found, "patterns")
    if "induction" not in scores.labels_of("score"):
        raise DataError("induction token by token", "attention looks ahead, where “earlier” means nothing", "See the scores")
    induction = scores.at(score="induction").values.nan_to_num(-1.0)
    layer, head = divmod(int(induction.argmax()), induction.shape[1])
    marks = Induction().marks(asked.example)[0].to(patterns.values.device)
    one = patterns.at(layer=layer, head=head)
    return replace(
        one,
        name=f"induction of {name_of((int(scores.labels_of('layer')[layer]), head))}",
        values=(one.values * marks).sum(-1).masked_fill(~marks.any(-1), torch.nan),
        axes=("pos",),
        labels={},
        description="attention to what followed earlier copies of each token; undefined where there is none",
    )


@dataclass(frozen=True)
class _Likeliest(Probe):
    """The ids and probabilities of the likeliest next tokens at every position."""

    k: int
    name: ClassVar[str] = "likeliest"

    def sites(self, model: HookedModel) -> list[Site]:
        return [OUTPUT]

    def read(self, activation: Tensor, site: Site, prepared: Any) -> Tensor:
        best = activation.double().softmax(-1).topk(min(self.k, activation.shape[-1]))
        return torch.stack([best.values, best.indices.double()], dim=-1)

    def result(self, readings: Readings) -> Result:
        return Result(name=self.name, values=readings[OUTPUT], axes=("example", "pos", "rank", "what"))


@dataclass(frozen=True, eq=False)
class Guesses:
    """The likeliest next tokens at every position: their texts, and their probabilities (pos, rank)."""

    texts: list[list[str]]
    probabilities: Result


def _next_tokens(asked: Asked, found: Found) -> Guesses:
    both = run(asked.model, asked.example, [_Likeliest(N_GUESSES)])[_Likeliest.name]
    probabilities, ids = both.values[0].unbind(-1)
    shown = replace(
        both,
        name="next-token probabilities",
        values=probabilities,
        axes=("pos", "rank"),
        labels={"rank": tuple(str(rank + 1) for rank in range(ids.shape[1]))},
        unit="probability",
        description="probabilities of the likeliest next tokens at each position",
    )
    texts = [[spelled(asked.model, token[None])[0] for token in row] for row in ids.long().cpu()]
    return Guesses(texts, timeless(shown))


def _smear(asked: Asked, offset: int) -> Result:
    return key_smear(asked.model, offset=offset, seed=asked.seed, batch_size=4 * asked.batch_size)
