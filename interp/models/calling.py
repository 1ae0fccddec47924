"""Calling a model with hooks on it and leaving it as it was: what `run`, `audit` and the trials below them share."""

import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar

import torch
from jaxtyping import Int
from torch import Tensor, nn

from interp.errors import DataError, ModelError, SiteError, kind_of
from interp.sites import HookedModel, check_model

Hook = Callable[[Tensor], Tensor | None]
HOOKED_BY_THEMSELVES = ("transformers", "transformer_lens")
_trying: ContextVar[bool] = ContextVar("trying", default=False)


def device_of(model: HookedModel) -> torch.device:
    """The device of the model's first parameter (CPU for a model without parameters)."""
    parameter = next(iter(model.parameters()), None) if isinstance(model, nn.Module) else None
    return torch.device("cpu") if parameter is None else parameter.device


@contextmanager
def eval_mode(model: HookedModel | nn.Module) -> Iterator[None]:
    """Put every submodule into eval mode, and back to the mode each one was in.

    That includes the model that a bridge wraps: it is not among the bridge's own modules, and holds dropout of its own.
    """
    roots = [root for root in (model, getattr(model, "original_model", None)) if isinstance(root, nn.Module)]
    training = [module for module in {module: None for root in roots for module in root.modules()} if module.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def hooks_on(model: HookedModel, hooks: Mapping[str, Hook]) -> Iterator[None]:
    """Have each function called with the activation at its hook point; what it returns (unless None) replaces it.

    A function never learns the hook point's own name: a bridge may report another than the one asked for. Raises `SiteError`
    when the model refuses a hook (a hook point that a flag has switched off).
    """

    def adapted(function: Hook) -> Callable:
        return lambda activation, hook: function(activation)

    with ExitStack() as stack:
        try:
            stack.enter_context(model.hooks(fwd_hooks=[(name, adapted(function)) for name, function in hooks.items()]))
        except (ValueError, KeyError, NotImplementedError) as error:
            raise SiteError(
                f"a hook on {', '.join(map(repr, hooks))}",
                f"the model refuses it ({error})",
                "Use another site; interp.audit(model) lists those that work",
            ) from error
        yield


@contextmanager
def user_hooks_muted(model: HookedModel) -> Iterator[None]:
    """Put aside every hook that stands on the model's hook points, and back: a trial must not call a user's functions.

    `in_trial()` is true meanwhile.
    """
    points = {id(point): point for point in model.hook_dict.values()}
    kept = [(point, point._forward_hooks) for point in points.values()]
    token = _trying.set(True)
    try:
        for point in points.values():
            point._forward_hooks = OrderedDict()
        yield
    finally:
        _trying.reset(token)
        for point, hooks in kept:
            point._forward_hooks = hooks


def standing_hooks(model: HookedModel) -> list[tuple[str, Callable]]:
    """Every function that stands on the model's hook points or, as a hook of torch's, on its modules, with the place's name.

    Those that transformers and transformer_lens put on their own modules (and take to be parts of the model) are left out.
    """
    roots = [root for root in (model, getattr(model, "original_model", None)) if isinstance(root, nn.Module)]
    points = {id(point): (name, point) for name, point in model.hook_dict.items()}
    modules = {id(module): (name or "the model", module) for root in roots for name, module in root.named_modules()}
    return [
        (name, function)
        for key, (name, place) in {**modules, **points}.items()
        for functions in (place._forward_pre_hooks, place._forward_hooks)
        for function in functions.values()
        if key in points or (getattr(function, "__module__", None) or "").split(".")[0] not in HOOKED_BY_THEMSELVES
    ]


def in_trial() -> bool:
    """Whether the forward pass under way is a trial, with all hooks but its own muted."""
    return _trying.get()


def vocabulary_size(model: HookedModel) -> int:
    """The model's vocabulary size, from its `cfg`. Raises `DataError` when it does not say, `ModelError` for what is no model."""
    check_model(model)
    d_vocab = getattr(getattr(model, "cfg", None), "d_vocab", None)
    if not isinstance(d_vocab, int) or d_vocab < 1:
        raise DataError(
            f"tokens for {kind_of(model)}",
            "it does not say how large its vocabulary is",
            "Give tokens, or d_vocab: interp.hooked(…, d_vocab=…) for a module hooked so, model.cfg.d_vocab for any other",
        )
    return d_vocab


def text_encoder(model: object) -> str:
    """The call that makes a text into tokens as `model` reads it, to be named in a remedy; "" for a model without a tokenizer."""
    if getattr(model, "tokenizer", None) is None:
        return ""
    if hasattr(model, "to_tokens"):
        return "model.to_tokens(text)"
    return 'model.tokenizer(text, return_tensors="pt").input_ids'


def check_tokens(model: HookedModel, tokens: Tensor) -> None:
    """Raise `DataError` unless `tokens` is a non-empty [batch pos] tensor of ids inside the model's vocabulary and context."""
    remedy = "Give integer ids, a tensor [batch pos] of int64, at least one"
    if not isinstance(tokens, Tensor):
        raise DataError("running a model", f"tokens are given as {_given(tokens)}", _remedy(model, tokens, remedy))
    if tokens.ndim != 2 or tokens.numel() == 0 or tokens.dtype not in (torch.int64, torch.int32):
        raise DataError("running a model", f"tokens have shape {tuple(tokens.shape)} and type {tokens.dtype}", remedy)
    config = getattr(model, "cfg", None)
    d_vocab, n_ctx = getattr(config, "d_vocab", None), getattr(config, "n_ctx", None)
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or (isinstance(d_vocab, int) and d_vocab > 0 and high >= d_vocab):
        raise DataError(
            "running a model", f"token ids run from {low} to {high}, the vocabulary has {d_vocab}", "Use this model's tokenizer"
        )
    if isinstance(n_ctx, int) and 0 < n_ctx < tokens.shape[1]:
        raise DataError(
            "running a model", f"sequences of {tokens.shape[1]} tokens exceed its context of {n_ctx}", "Shorten or split them"
        )


def _given(tokens: object) -> str:
    held = type(tokens[0]).__name__ if isinstance(tokens, list | tuple) and tokens else ""
    return kind_of(tokens) + (f" of {held}" if held else "")


def _remedy(model: object, tokens: object, usual: str) -> str:
    """For what was given in place of ids: of a text, how this model makes it into them."""
    first = tokens[0] if isinstance(tokens, list | tuple) and tokens else tokens
    if not isinstance(first, str):
        return usual
    call = text_encoder(model)
    if call:
        return f"Make the text into ids first: tokens = {call}"
    return f"{usual}; this model has no tokenizer to make them of a text"


def logits_of(model: HookedModel, tokens: Int[Tensor, "batch pos"]) -> Tensor:
    """The model's output. Raises `ModelError` when it is not a tensor."""
    logits = model(tokens)
    if not isinstance(logits, Tensor):
        raise ModelError(
            f"running {kind_of(model)}",
            f"its forward pass returns {kind_of(logits)}, not a tensor",
            "Return the logits, or wrap the module with interp.hooked(module, sites, logits=…)",
        )
    return logits


def trial(model: HookedModel, tokens: Int[Tensor, "batch pos"], hooks: Mapping[str, Hook]) -> tuple[Tensor, dict[str, int]]:
    """Logits under `hooks` alone, and how often each hook fired. In eval mode, without gradients, the user's hooks muted."""
    fired = dict.fromkeys(hooks, 0)

    def counted(name: str, function: Hook) -> Hook:
        def hook(activation: Tensor) -> Tensor | None:
            fired[name] += 1
            return function(activation)

        return hook

    counting = {name: counted(name, function) for name, function in hooks.items()}
    with warnings.catch_warnings(), torch.no_grad(), eval_mode(model), user_hooks_muted(model), hooks_on(model, counting):
        warnings.simplefilter("ignore", UserWarning)  # a bridge warns of edits that it drops: that is being found out
        logits = logits_of(model, tokens.to(device_of(model), torch.int64))
    return logits, fired
