"""What a model is trained to predict, and from what: the next token, or tokens hidden behind a mask."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from interp.data import TokenData
from interp.errors import ConfigError
from interp.models import PretrainedConfig
from interp.probes.loss import cross_entropy
from interp.seeds import seed_for
from interp.training.config import RunConfig, TrainConfig


@dataclass(frozen=True)
class Batch:
    """Tokens to predict, what the model reads instead, and which of the predictions count (None: all).

    With the autoregressive objective the first token of a row is never predicted, so `counted` is False there.
    """

    tokens: Int[Tensor, "batch pos"]
    inputs: Int[Tensor, "batch pos"]
    counted: Bool[Tensor, "batch pos"] | None

    @property
    def n_counted(self) -> int:
        """How many predictions count."""
        batch, length = self.tokens.shape
        return batch * (length - 1) if self.counted is None else int(self.counted.sum())

    def rows(self, which: slice) -> "Batch":
        """A part of the batch."""
        return Batch(self.tokens[which], self.inputs[which], None if self.counted is None else self.counted[which])

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device."""
        counted = None if self.counted is None else self.counted.to(device)
        tokens = self.tokens.to(device)
        return Batch(tokens, tokens if self.inputs is self.tokens else self.inputs.to(device), counted)


def training_batch(config: TrainConfig, data: TokenData, rows: Int[Tensor, " row"], step: int) -> Batch:
    """The batch of a step. Masks depend on seed and step only, so that a run can go on from anywhere."""
    tokens = data.train[rows]
    if config.objective == "masked":
        return masked(tokens, data.d_vocab, config.mask_share, seed_for("masks", config.seed, step))
    if config.targets == "answers":
        assert data.answers is not None
        return Batch(tokens, tokens, _predicted(data.answers["train"][rows]))
    return Batch(tokens, tokens, None)


def masked(tokens: Int[Tensor, "batch pos"], mask_id: int, share: float, seed: int) -> Batch:
    """A batch in which a random `share` of the tokens after the first (at least one) is replaced by `mask_id`, and counts."""
    draws = torch.rand(tokens.shape[0], tokens.shape[1] - 1, generator=torch.Generator().manual_seed(seed))
    hidden = nn.functional.pad((draws < share) | (draws == draws.min()), (1, 0), value=False)
    return Batch(tokens, tokens.masked_fill(hidden, mask_id), hidden)


def token_losses(
    objective: str, logits: Float[Tensor, "batch pos d_vocab"], tokens: Int[Tensor, "batch pos"]
) -> Float[Tensor, "batch target"]:
    """Nats lost on each token: on each but the first given those before it, or (masked) on each given its whole row."""
    logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
    if objective == "autoregressive":
        return cross_entropy(logits, tokens)
    flat = rearrange(logits, "batch pos d_vocab -> (batch pos) d_vocab")
    losses = nn.functional.cross_entropy(flat, tokens.flatten(), reduction="none")
    return rearrange(losses, "(batch pos) -> batch pos", batch=len(tokens))


def mean_loss(objective: str, logits: Tensor, batch: Batch, n_counted: int) -> Float[Tensor, ""]:
    """The losses that count, summed and divided by `n_counted`: parts of a batch add up to the mean over it."""
    losses = token_losses(objective, logits, batch.tokens)
    if batch.counted is not None:
        counted = batch.counted if objective == "masked" else batch.counted[:, 1:]
        losses = losses * counted
    return losses.sum() / n_counted


def model_for(config: RunConfig, data: TokenData) -> Any:
    """The model's settings with the data's vocabulary filled in (and a mask, one more id, for the masked objective).

    Those of a published model stay as they are: its vocabulary is its own.
    Raises `ConfigError` when model, data and objective contradict.
    """
    model, train, length = config.model, config.train, data.train.shape[1]
    hidden = train.objective == "masked"
    if isinstance(model, PretrainedConfig) and not hidden:
        model.check_data(data.d_vocab, length, data.tokenizer)
        _check_answers(train, data)
        return model
    d_vocab = data.d_vocab + hidden
    if getattr(model, "d_vocab", None) not in (None, d_vocab):
        truth = f"it is {model.d_vocab} and the data has {data.d_vocab} tokens" + (" and a mask" if hidden else "")
        raise ConfigError("model.d_vocab", truth, "Leave it at null")
    if length > getattr(model, "n_ctx", length):
        raise ConfigError(
            "model.n_ctx", f"it is {model.n_ctx} and sequences have {length} tokens", f"Set it to at least {length}"
        )
    if hidden and getattr(model, "causal", True):
        raise ConfigError(
            "train.objective=masked",
            f"{model.kind} sees only the tokens before a mask",
            "Set model.kind=transformer and model.causal=false, or train.objective=autoregressive",
        )
    if not hidden and not getattr(model, "causal", True):
        raise ConfigError(
            "train.objective=autoregressive",
            f"{model.kind} with causal=false sees the token that it is to predict",
            "Set model.causal=true, or train.objective=masked",
        )
    _check_answers(train, data)
    return replace(model, d_vocab=d_vocab)


def _check_answers(train: TrainConfig, data: TokenData) -> None:
    if train.targets == "all":
        if data.padded and train.objective == "autoregressive":
            truth = f"its rows end in padding, which would be trained on ({data.description})"
            raise ConfigError("train.targets=all", truth, "Set train.targets=answers: every token but the padding is one")
        return
    if data.answers is None:
        raise ConfigError("train.targets=answers", f"the data has none ({data.description})", "Leave it at all, or name a task")
    if not data.answers["train"][:, 1:].any():
        raise ConfigError("train.targets=answers", f"no training row has one ({data.description})", "Leave it at all")


def _predicted(answers: Bool[Tensor, "batch pos"]) -> Bool[Tensor, "batch pos"]:
    first = torch.zeros_like(answers[:, :1])
    return torch.cat([first, answers[:, 1:]], dim=1)
