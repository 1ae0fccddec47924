"""Editing a fact by fine-tuning a few weights, held close to where they were: the baselines FT and FT-L of Meng et al. 2022."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from types import SimpleNamespace
from typing import Any, ClassVar, Literal, cast, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from tqdm.auto import tqdm

from interp.errors import ConfigError, ModelError, nearest
from interp.interventions.finetune_requests import Request, TokenRequest, tokenized
from interp.interventions.finetune_weights import WeightEdit, add_to, chosen_weights, only_these_trained, put
from interp.metrics.base import at_least_float32
from interp.models.calling import check_tokens, device_of, eval_mode, logits_of
from interp.sites import HookedModel

LossForm = Literal["teacher_forced", "prompt_end"]


def constrained_finetune(
    model: Any,
    requests: Iterable[Request],
    *,
    layers: int | Sequence[int],
    epsilon: float | int,
    module: str = "mlp_out",
    steps: int = 25,
    lr: float = 5e-4,
    weight_decay: float | int = 0.0,
    stop_below: float | int = 1e-2,
    loss: LossForm = "teacher_forced",
    batch_size: int = 128,
    tokenizer: Any = None,
    keep: bool = False,
    progress: bool = True,
) -> WeightEdit:
    """Train the weights of `module` in `layers` until each request's prompt is followed by its target; the deltas come back.

    A request has prompt (with "{}"), subject and target_new, as a mapping or an `EditRequest`, or is a `TokenRequest` of ids.
    After every step each weight is clamped to within `epsilon` of where it was: FT-L. `epsilon=math.inf` is FT, without a
    constraint, and has to be asked for. The defaults are the reference's; its (layer, epsilon) are (0, 2e-3) for GPT-2 medium,
    (0, 1e-3) large, (0, 5e-4) XL, and (1, inf) for FT on XL. It has none for GPT-2 small.

    `module` is "mlp_out" (weight and bias, as in the reference), "mlp_in", "attn_out", or a name such as
    "transformer.h.{layer}.mlp.c_proj" (`chosen_weights`); a plain Hugging Face causal language model needs such a name, and
    `tokenizer`. `loss`: −log p of the target, mean over its tokens, in nats. "teacher_forced" reads each token's logits after the
    prompt and the target so far; "prompt_end" reads all from the prompt's last position, as the reference does. They are equal
    for targets of one token. Tokens unknown to the tokenizer do not count. Adam over batches of `batch_size` requests, in the
    order given; a batch whose loss is below `stop_below` makes no step, and training ends when the mean over requests is.

    Rows are padded on the right whatever the tokenizer does, and read by their own lengths: in a causal model nothing depends on
    what stands behind it (`requests_from_batch` takes prompts that were padded on either side). The model runs in eval mode, with
    whatever hooks are on it. Afterwards weights are bit-equal to before (unless `keep`: then the edit is on, and `revert` takes
    it off), and mode, `requires_grad` and `.grad` are as they were, also after an exception. Deltas are trained in float32 at
    least, so half-precision weights work.

    Raises `ConfigError` for settings out of range: an `epsilon` that is no number, negative or NaN is never "no constraint";
    `DataError` for requests that cannot be used; `ModelError` for layers or weights that the model lacks or does not use,
    bidirectional models, and losses that are not finite. Cost: at most `steps` passes over the requests, forward and back to the
    first of `layers`.
    """
    settings = Settings(epsilon, steps, lr, weight_decay, stop_below, loss, batch_size)
    runs = called(model)
    with torch.inference_mode(False):
        asked = tokenized(requests, model, tokenizer)
        batches = [Batch.of(asked[i : i + settings.batch_size], loss) for i in range(0, len(asked), settings.batch_size)]
        for batch in batches:
            check_batch(runs, batch)
        weights = chosen_weights(model, layers, module)
        originals = {name: weight.detach().clone() for name, weight in weights.items()}
        try:
            with torch.enable_grad(), eval_mode(runs), only_these_trained(model, list(weights.values())):
                deltas, losses = _train(runs, weights, originals, batches, settings, progress=progress)
        finally:
            put(weights, originals)
        edit = WeightEdit(model, deltas, tuple(losses), losses[-1] < settings.stop_below)
    return edit.apply() if keep else edit


@dataclass(frozen=True)
class Settings:
    """How an edit is trained. Raises `ConfigError` for values out of range."""

    epsilon: float | int
    steps: int
    lr: float
    weight_decay: float | int
    stop_below: float | int
    loss: str
    batch_size: int

    def __post_init__(self) -> None:
        if not _is_number(self.epsilon) or not self.epsilon >= 0:
            raise ConfigError(
                f"epsilon {self.epsilon!r}",
                "it is the largest change allowed to a weight: a number, 0 or more",
                "Give for example 1e-3; no constraint is math.inf, and has to be asked for",
            )
        for name in ("steps", "batch_size"):
            value = getattr(self, name)
            if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"{name} {value!r}", "it is a whole number", "Give 1 or more")
        for name in ("lr", "weight_decay", "stop_below"):
            value = getattr(self, name)
            if not _is_number(value) or not 0 <= value < math.inf or (name == "lr" and value == 0):
                raise ConfigError(f"{name} {value!r}", "it must be a finite number that is not negative", "Give for example 5e-4")
        if self.loss not in get_args(LossForm):
            forms = get_args(LossForm)
            hint = nearest(str(self.loss), forms)
            raise ConfigError(f"loss {self.loss!r}", f"the forms are {', '.join(forms)}", f"{hint}Use one")


@dataclass(frozen=True, eq=False)
class Batch:
    """Requests padded together on the right, and where each target token's logits are read."""

    tokens: Tensor  # [request pos]
    targets: Tensor  # [request target]
    places: Tensor  # [request target], the position whose logits predict it
    counts: Tensor  # [request target], True where the target token counts

    @staticmethod
    def of(requests: Sequence[TokenRequest], form: str) -> "Batch":
        """`requests` with targets read "teacher_forced" or at the "prompt_end"."""
        forced = form == "teacher_forced"
        rows = [[*one.prompt, *(one.target[:-1] if forced else ())] for one in requests]
        places = [[len(one.prompt) - 1 + (k if forced else 0) for k in range(len(one.target))] for one in requests]
        return Batch(
            tokens=_padded(rows),
            targets=_padded([one.target for one in requests]),
            places=_padded(places),
            counts=_padded([one.known for one in requests]).bool(),
        )


def target_log_probs(model: Any, batch: Batch) -> tuple[Float[Tensor, "request target"], Bool[Tensor, "request target"]]:
    """The log-probability of each target token, in nats (0 where none counts), and whether it is the likeliest.

    Cost: one forward pass. An answer as likely as the likeliest other one is not counted as the likeliest unless it comes first.
    """
    device = device_of(model)
    logits = logits_of(model, batch.tokens.to(device))
    places, targets = batch.places.to(device), batch.targets.to(device)
    rows = torch.arange(len(places), device=device)[:, None]
    log_probs = at_least_float32(logits[rows, places]).log_softmax(-1)  # request target d_vocab
    chosen = log_probs.gather(-1, targets[..., None])[..., 0].where(batch.counts.to(device), 0)
    return chosen, log_probs.argmax(-1) == targets


def batch_loss(model: HookedModel, batch: Batch) -> Float[Tensor, ""]:
    """−log p of the targets in nats: mean over the tokens that count of each request, then over requests."""
    return -(target_log_probs(model, batch)[0].sum(-1) / batch.counts.to(device_of(model)).sum(-1)).mean()


def _train(
    model: HookedModel,
    weights: Mapping[str, nn.Parameter],
    originals: Mapping[str, Tensor],
    batches: Sequence[Batch],
    settings: Settings,
    *,
    progress: bool,
) -> tuple[dict[str, Tensor], list[float]]:
    """The deltas after the last step and the mean loss at each; the weights are left as trained.

    The deltas themselves are what Adam moves: clamping them is exact, and half-precision weights do not round small steps away.
    """
    deltas = {name: torch.zeros_like(at_least_float32(weight.detach())) for name, weight in weights.items()}
    optimizer = torch.optim.Adam(list(deltas.values()), lr=float(settings.lr))
    losses: list[float] = []
    n_requests = sum(len(batch.tokens) for batch in batches)
    for _ in tqdm(range(settings.steps), desc="editing", unit="step", disable=not progress):
        total = 0.0
        for batch in batches:
            loss = batch_loss(model, batch)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise ModelError("fine-tuning", f"the loss is {value} at step {len(losses)}", "Lower lr or epsilon")
            total += value * len(batch.tokens)
            if value >= settings.stop_below:
                _set_gradients(deltas, weights, loss, settings.weight_decay)
                optimizer.step()
                for delta in deltas.values():
                    _clamp(delta, float(settings.epsilon))
                add_to(weights, originals, deltas)
        losses.append(total / n_requests)
        if losses[-1] < settings.stop_below:
            break
    for delta in deltas.values():
        delta.grad = None
    return deltas, losses


def _set_gradients(
    deltas: Mapping[str, Tensor], weights: Mapping[str, nn.Parameter], loss: Tensor, weight_decay: float | int
) -> None:
    """The loss's gradient with respect to each weight, plus its decay, as the gradient of its delta."""
    reached = loss.requires_grad  # else no path leads to any of them
    gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True) if reached else [None] * len(weights)
    unused = [name for name, gradient in zip(weights, gradients, strict=True) if gradient is None]
    if unused:
        raise ModelError(
            f"editing {', '.join(unused)}", "the model's output does not depend on these weights", "Edit those that it uses"
        )
    for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
        assert gradient is not None
        deltas[name].grad = gradient.to(deltas[name].dtype) + weight_decay * weight.detach().to(deltas[name].dtype)


def _clamp(delta: Tensor, epsilon: float) -> None:
    """Every entry to [−ε, ε], where ε is the largest number of the delta's type that is not above `epsilon`."""
    bound = torch.tensor(epsilon, dtype=torch.float64).to(delta.dtype)
    if float(bound) > epsilon:
        bound = torch.nextafter(bound, torch.zeros_like(bound))
    delta.clamp_(-bound.to(delta.device), bound.to(delta.device))


class Plain(nn.Module):
    """A plain Hugging Face causal language model, as hooked models are called: without hook points, token ids to logits."""

    hook_dict: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, wrapped: Any):
        super().__init__()
        self.wrapped = wrapped
        config = wrapped.config
        self.cfg = SimpleNamespace(d_vocab=config.vocab_size, n_ctx=getattr(config, "max_position_embeddings", None))

    def hooks(self, fwd_hooks: list, bwd_hooks: list | None = None, reset_hooks_end: bool = True) -> Any:
        """No hook is possible; there is nothing to put back."""
        raise NotImplementedError("a plain model has no hook points")

    def forward(self, tokens: Tensor) -> Tensor:
        return self.wrapped(input_ids=tokens).logits


def called(model: Any) -> HookedModel:
    """The model as something that maps token ids to logits: itself, or a plain Hugging Face one wrapped.

    Raises `ModelError` for anything else, and for models that do not predict the next token.
    """
    hooked = isinstance(model, HookedModel)
    if not isinstance(model, nn.Module) or not (hooked or hasattr(model, "save_pretrained")):
        raise ModelError(
            f"fine-tuning a {type(model).__name__}",
            "it is neither a hooked model nor one of Hugging Face",
            "Give what interp.load_model returns, or wrap a module with interp.hooked",
        )
    bidirectional = getattr(getattr(model, "cfg", None), "attention_dir", "causal") == "bidirectional"
    if bidirectional or (not hooked and not cast(Any, model).can_generate()):
        raise ModelError(
            f"fine-tuning a {type(model).__name__}", "it does not predict the next token", "Give a causal language model"
        )
    return cast(HookedModel, model if hooked else Plain(model))


def check_batch(model: HookedModel, batch: Batch) -> None:
    """Raise `DataError` for ids outside the model's vocabulary and rows longer than its context."""
    check_tokens(model, batch.tokens)
    check_tokens(model, batch.targets)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and not math.isnan(value)


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """Rows of numbers as one tensor, zeros on the right."""
    return nn.utils.rnn.pad_sequence([torch.tensor([int(one) for one in row]) for row in rows], batch_first=True)
