"""Which hook points can be written: found by trying, because some exist whose edits the model drops without a word.

Every trial is one forward pass over a few tokens of one example, with one row per hook point tried: row i carries a value
that poisons (NaN) hook point i alone, so whatever the weights are, its logits change if and only if the model uses what the hook
returned. Row 0 stays clean. What works is remembered per model; what does not is tried again when asked again.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Int
from torch import Tensor

from interp.errors import InterpError, ModelError, SiteError
from interp.models.calling import Hook, trial, vocabulary_size
from interp.sites import HookedModel, Site

TRIAL_LENGTH, TRIAL_ROWS = 4, 64
DROPPED = "the model drops what is written there (its forward pass does not use the hook's result)"
Route = Literal["direct", "attn_out"]

_working: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()
_routes: WeakKeyDictionary[Any, dict[int, Route]] = WeakKeyDictionary()


def check_writable(model: HookedModel, sites: Sequence[Site], tokens: Int[Tensor, "batch pos"]) -> None:
    """Raise `SiteError` when an edit at one of `sites` would be dropped by the model, or reach only part of it.

    Cost: for sites not tried before on this model, one forward pass over at most 4 tokens and 64 rows, and one of 3 rows per
    layer whose `resid_mid` is edited; nothing for sites known to work.
    """
    names: dict[int, str] = {}
    for site in sites:
        name = site.hook_name
        if site.kind == "resid_mid":
            name = _name("attn_out" if resid_mid_route(model, site, tokens) == "attn_out" else "resid_mid", site.layer)
        names[id(model.hook_dict[name])] = name
    known = _working.setdefault(model, set())
    tried = refusals(model, [name for name in names.values() if name not in known], tokens)
    for name, reason in tried.items():
        if reason:
            asked = next((str(site) for site in sites if site.hook_name == name), name)
            raise SiteError(
                f"editing {asked}",
                reason,
                "Edit another site (z, attn_out, resid_pre …); interp.audit(model) lists those that work",
            )
        known.add(name)


def trial_tokens(model: HookedModel, *, n_examples: int = 1, seed: int = 0) -> Int[Tensor, "batch pos"]:
    """A few random tokens of the model's vocabulary, no longer than its context. Raises `DataError` when that is unknown."""
    d_vocab, n_ctx = vocabulary_size(model), getattr(getattr(model, "cfg", None), "n_ctx", None)
    length = min(TRIAL_LENGTH, n_ctx) if isinstance(n_ctx, int) and n_ctx > 0 else TRIAL_LENGTH
    return torch.randint(0, d_vocab, (n_examples, length), generator=torch.Generator().manual_seed(seed))


def refusals(model: HookedModel, names: Sequence[str], tokens: Int[Tensor, "batch pos"]) -> dict[str, str]:
    """For each hook name, why it cannot be written; "" when it can. The names must mean different hook points."""
    found: dict[str, str] = {}
    for start in range(0, len(names), TRIAL_ROWS - 1):
        group = list(names[start : start + TRIAL_ROWS - 1])
        verdicts, shared = _attempt(model, group, tokens)
        found |= verdicts
        for name in shared:  # no row per example there: poison all of it, alone
            found |= _attempt(model, [name], tokens, whole=True)[0]
    return found


def _attempt(model: HookedModel, names: list[str], tokens: Tensor, whole: bool = False) -> tuple[dict[str, str], list[str]]:
    """`refusals` of one group, and the names among them that could not be told apart by rows.

    A model may need its full length, or raise on NaN: then the trial is repeated with all tokens, then with large numbers.
    """
    attempts: list[tuple[int, Callable]] = [(TRIAL_LENGTH, _nan), (tokens.shape[1], _nan), (tokens.shape[1], _large)]
    for length, poison in attempts:
        try:
            return _poisoned(model, names, tokens[:1, :length], poison, whole)
        except InterpError:
            raise
        except Exception:
            if poison is _large:
                raise
    raise AssertionError("unreachable")


def _poisoned(
    model: HookedModel, names: list[str], row: Tensor, poison: Callable[[Tensor], Tensor], whole: bool
) -> tuple[dict[str, str], list[str]]:
    rows = row.repeat(len(names) + 1, 1)
    shared: list[str] = []
    silent: dict[str, str] = {}

    def hook(name: str, index: int) -> Hook:
        def poisoned(activation: Tensor) -> Tensor | None:
            if not activation.is_floating_point():
                silent[name] = f"it holds {activation.dtype}, not an activation"
                return None
            if whole:
                return poison(activation)
            if len(activation) != len(rows):
                shared.append(name)
                return None
            edited = activation.clone()
            edited[index] = poison(activation[index])
            return edited

        return poisoned

    hooks = {name: hook(name, index) for index, name in enumerate(names, start=1)}
    logits, fired = trial(model, rows, hooks)
    clean = trial(model, rows, {})[0] if whole else logits[:1].expand_as(logits)
    _check_defined(model, clean[0])
    silent |= {name: firing_problem(count) for name, count in fired.items() if count != 1}
    verdicts = {
        name: silent.get(name) or ("" if _differs(logits[index], clean[index]) else DROPPED)
        for index, name in enumerate(names, start=1)
        if name not in shared or name in silent
    }
    return verdicts, [name for name in dict.fromkeys(shared) if name not in silent]


def _check_defined(model: HookedModel, output: Tensor) -> None:
    """Where everything is NaN already, no edit can be seen to arrive."""
    if bool(output.isnan().all()):
        raise ModelError(
            f"trying out edits of a {type(model).__name__}", "its output is NaN before anything is edited", "Look at its weights"
        )


def firing_problem(count: int) -> str:
    """What is wrong with a hook point that fired `count` times in one forward pass; "" for once."""
    if count == 1:
        return ""
    return f"it fires {count} times in one forward pass" if count else "it never fires in this model's forward pass"


def resid_mid_route(model: HookedModel, site: Site, tokens: Int[Tensor, "batch pos"]) -> Route:
    """How `resid_mid` of a layer is to be written so that all that follows sees it.

    "direct": the hook's result goes on to the MLP and to the residual stream. "attn_out": it reaches only the MLP (every bridge),
    but the block is sequential, resid_mid = resid_pre + attn_out and resid_post = resid_mid + mlp_out, so that an edit of
    attn_out does it. Both are measured, once per model and layer. Raises `SiteError` when neither holds.
    """
    assert site.layer is not None
    known = _routes.setdefault(model, {})
    if site.layer not in known:
        known[site.layer] = _find_route(model, site, tokens)
    return known[site.layer]


def _find_route(model: HookedModel, site: Site, tokens: Tensor) -> Route:
    names = {kind: _name(kind, site.layer) for kind in ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")}
    missing = [kind for kind, name in names.items() if name not in model.hook_dict]
    if "resid_mid" in missing:
        raise _refused(site, "this model has no such site")
    if missing and getattr(model.hook_dict[names["resid_mid"]], "name", None) == names["resid_mid"]:
        return "direct"  # a hook point of the model's own, in its own forward pass: nothing to compare it with
    if missing:
        raise _refused(site, f"where its edits go cannot be measured: this model has no {', '.join(missing)}")
    try:
        streams = _streams(model, names, tokens[:1, :TRIAL_LENGTH])
    except SiteError:
        raise
    except Exception:
        streams = _streams(model, names, tokens[:1])
    if not streams:
        raise _refused(site, "its block's hook points do not all fire once")
    _check_defined(model, streams[-2][0])
    pre, attn, mid, mlp, post, change = streams
    if near(post[:2] - mlp[:2], torch.stack([mid[0], mid[1] + change])):
        return "direct"
    if near(mid[0::2], pre[0::2] + attn[0::2]) and near(post[0::2] - mlp[0::2], mid[0::2]):
        return "attn_out"
    raise _refused(
        site,
        "its edits reach only a part of the model, and no edit of attn_out makes up for it "
        "(resid_mid is not resid_pre + attn_out here: parallel, normalised or scaled blocks)",
    )


def _streams(model: HookedModel, names: dict[str, str], row: Tensor) -> tuple[Tensor, ...] | None:
    """The block's streams in three rows (clean, resid_mid changed, attn_out changed) and the change; None if any is silent.

    resid_mid is as it came in, attn_out as it went out.
    """
    seen: dict[str, Tensor] = {}

    def hook(kind: str) -> Hook:
        def catch(activation: Tensor) -> Tensor | None:
            seen[kind] = activation.clone()
            index = {"resid_mid": 1, "attn_out": 2}.get(kind)
            if index is None or len(activation) != 3:
                return None
            seen.setdefault("change", (1 + activation[0].abs().mean()) * _noise(activation[0]))
            edited = activation.clone()
            edited[index] += seen["change"]
            if kind == "attn_out":
                seen[kind] = edited.clone()
            return edited

        return catch

    _, fired = trial(model, row.repeat(3, 1), {name: hook(kind) for kind, name in names.items()})
    order = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
    whole = set(fired.values()) == {1} and all(len(seen[kind]) == 3 for kind in order)
    return (*(seen[kind] for kind in order), seen["change"]) if whole else None


def holds_pattern(activation: Tensor) -> bool:
    """Whether every row is a distribution: attention after the softmax, not before."""
    if not activation.is_floating_point() or activation.ndim == 0:
        return False
    return bool((activation >= 0).all()) and bool(((activation.sum(-1) - 1).abs() < 1e-2).all())


def _name(kind: str, layer: int | None) -> str:
    return Site(kind, layer).hook_name


def _refused(site: Site, truth: str) -> SiteError:
    return SiteError(
        f"editing {site}", truth, "Edit resid_pre, attn_out or mlp_out instead; interp.audit(model) lists what works"
    )


def _nan(activation: Tensor) -> Tensor:
    return torch.full_like(activation, torch.nan)


def _large(activation: Tensor) -> Tensor:
    return 10 * (1 + activation.nan_to_num(0, 0, 0).abs().mean()) * _noise(activation)


def _noise(like: Tensor) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(0)).to(like)


def _tolerance(like: Tensor) -> float:
    """Relative: rows of one batch differ by rounding."""
    return min(1000 * torch.finfo(like.dtype).eps, 0.2)


def _differs(a: Tensor, b: Tensor) -> bool:
    if bool((a.isnan() != b.isnan()).any()):
        return True
    a, b = a.nan_to_num(0, 0, 0), b.nan_to_num(0, 0, 0)
    return bool((a - b).abs().max() > _tolerance(a) * b.abs().max())


def near(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are equal but for rounding in their type (relative to the largest entry)."""
    return bool((a - b).abs().max() <= _tolerance(a) * (1 + b.abs().max()))
