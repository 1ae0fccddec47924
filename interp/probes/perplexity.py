"""Next-token losses of whatever is given: strings, a tensor, or a loader; per token and in summary."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from interp.errors import DataError, ModelError
from interp.probes.loss import check_finite_losses, cross_entropy
from interp.probes.padding import check_mask, check_unpadded, valid_positions
from interp.result import Provenance, Result, left_out
from interp.running import Probe, Readings, run
from interp.sites import OUTPUT, HookedModel, Site

Inputs = (
    Any  # a string, strings, ids [batch pos], or an iterable of such tensors, of [tensor], of {"input_ids", "attention_mask"}
)
STATISTICS = ("mean", "min", "max")
TOO_LARGE = 709.0  # nats: exp of more is no finite number in float64


@dataclass(frozen=True)
class PerTokenLoss(Probe):
    """The loss of every token but the first, in nats: axes (sequence, target); target t is the token at position t."""

    name: ClassVar[str] = "token_losses"

    def sites(self, model: HookedModel) -> Sequence[Site]:
        return [OUTPUT]

    def read(self, activation: Tensor, site: Site, prepared: Any) -> Tensor:
        return cross_entropy(activation, prepared)

    def result(self, readings: Readings) -> Result:
        losses = readings[OUTPUT].double()
        check_finite_losses("token losses", losses)
        return _token_losses(losses, torch.ones_like(losses, dtype=torch.bool))


def token_losses(
    model: HookedModel,
    inputs: Inputs,
    *,
    attention_mask: Tensor | None = None,
    pad_id: int | None = None,
    batch_size: int | None = 8,
) -> Result:
    """The loss in nats of every predicted token: axes (sequence, target), NaN where a row has no token (padding, or shorter).

    NaN also marks the tokens whose loss the model leaves undefined; the description counts those.

    `inputs`: a string or several (made into tokens by `model.to_tokens`, each by itself, BOS as that puts it), ids [batch pos],
    or an iterable of batches: ids, ids alone in a list (a loader of a `TensorDataset`), or mappings with "input_ids" and perhaps
    "attention_mask" (a Hugging Face loader).
    Padding is what `attention_mask` (ones, then zeros) or `pad_id` (its run at the end of a row) says; tokens that look padded by
    the model's tokenizer are refused while neither is given. Padding must be on the right and the model causal: then what
    stands there cannot change the losses before it. Target t is the token at position t, given those before it.
    Raises `DataError`; `ModelError` for an infinite loss. Cost: one forward pass. `perplexity` gives the summary.
    """
    values, there, provenance = _read(model, inputs, attention_mask, pad_id, batch_size)
    return _token_losses(values, there).with_provenance(provenance)


def _read(
    model: HookedModel, inputs: Inputs, attention_mask: Tensor | None, pad_id: int | None, batch_size: int | None
) -> tuple[Float[Tensor, "sequence target"], Bool[Tensor, "sequence target"], Provenance]:
    """The losses, NaN where there is no token, and where there is one."""
    parts, valids, provenance = [], [], None
    for tokens, mask in _batches(model, inputs, attention_mask):
        valid = _valid(model, tokens, mask, pad_id)
        result = run(model, tokens, [PerTokenLoss()], batch_size=batch_size)[PerTokenLoss.name]
        valids.append(valid[:, 1:].cpu())
        parts.append(result.values.cpu().masked_fill(~valids[-1], math.nan))
        provenance = provenance or result.provenance
    if provenance is None:
        raise DataError("token losses", "there is nothing in the inputs", "Give at least one sequence")
    width = max(part.shape[1] for part in parts)
    values = torch.cat([nn.functional.pad(part, (0, width - part.shape[1]), value=math.nan) for part in parts])
    there = torch.cat([nn.functional.pad(valid, (0, width - valid.shape[1])) for valid in valids])
    return values, there, provenance


def perplexity(
    model: HookedModel,
    inputs: Inputs,
    *,
    attention_mask: Tensor | None = None,
    pad_id: int | None = None,
    batch_size: int | None = 8,
) -> Result:
    """Loss and perplexity over all predicted tokens: axes (measure, statistic), the mean, smallest and largest of each.

    The measures are "loss" in nats and "perplexity", its exponential; so the mean perplexity is exp(mean loss over tokens), the
    usual corpus perplexity, and not the mean of the tokens' own. The standard error of the mean loss is over sequences
    (a ratio estimate: sequences weigh by their tokens), that of perplexity follows from it; `count` is the number of tokens.
    Tokens whose loss is NaN are left out and counted in the description; all is NaN when none is left.
    Arguments, padding and errors as in `token_losses`; raises `DataError` too when no token is predicted, and `ModelError` for a
    loss whose exponential is too large for a number.
    """
    values, there, provenance = _read(model, inputs, attention_mask, pad_id, batch_size)
    n, defined = int(there.sum()), ~values.isnan()
    if n == 0:
        raise DataError("perplexity", "no token is predicted: every sequence has a single one", "Give longer sequences")
    kept = values[defined]
    loss = torch.stack([kept.mean(), kept.min(), kept.max()]) if len(kept) else torch.full((3,), math.nan, dtype=values.dtype)
    if float(loss[2]) > TOO_LARGE:
        told = f"a token has a loss of {float(loss[2]):.4g} nats, and its exponential is too large for a number"
        raise ModelError("perplexity", told, "Look at the losses themselves: interp.token_losses")
    error = torch.full_like(loss, math.nan)
    error[0] = _ratio_error(values.nansum(1), defined.sum(1), float(loss[0]))
    return Result(
        name="perplexity",
        values=torch.stack([loss, loss.exp()]),
        stderr=torch.stack([error, error * loss.exp()]),
        axes=("measure", "statistic"),
        labels={"measure": ("loss", "perplexity"), "statistic": STATISTICS},
        count=len(kept),
        unit="nats (loss)",
        description="over all predicted tokens; lower is better; perplexity is exp(loss)"
        + left_out(n - len(kept), n, "predicted tokens", "loss"),
        provenance=provenance,
    )


def _token_losses(values: Float[Tensor, "sequence target"], there: Bool[Tensor, "sequence target"]) -> Result:
    undefined, n = int(values[there].isnan().sum()), int(there.sum())
    told = f", and at {undefined} of {n} tokens, whose loss is not defined" if undefined else ""
    return Result(
        name="token_losses",
        values=values,
        axes=("sequence", "target"),
        labels={"target": tuple(str(position) for position in range(1, values.shape[1] + 1))},
        count=len(values),
        unit="nats",
        description=f"loss of the token at each position, given those before it; NaN: no token there{told}",
    )


def _batches(model: Any, inputs: Inputs, mask: Tensor | None) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Batches of ids with their masks."""
    if isinstance(inputs, Tensor):
        yield inputs, mask
        return
    if mask is not None:
        raise DataError("token losses", "one attention_mask was given for several inputs", "Give ids as one tensor with it")
    if isinstance(inputs, str | Mapping):
        inputs = [inputs]
    if not isinstance(inputs, Iterable):
        raise DataError("token losses", f"the inputs are a {type(inputs).__name__}", "Give strings, ids, or batches of ids")
    for batch in inputs:
        item = batch[0] if isinstance(batch, list | tuple) and len(batch) == 1 else batch
        if isinstance(item, str):
            yield _encoded(model, item), None
        elif isinstance(item, Mapping) and isinstance(item.get("input_ids"), Tensor):
            yield item["input_ids"], item.get("attention_mask")
        elif isinstance(item, Tensor):
            yield item, None
        else:
            held = f" of {len(item)}" if isinstance(item, list | tuple) else ""
            remedy = 'Give ids, or a mapping with "input_ids"'
            raise DataError("token losses", f"a batch is a {type(item).__name__}{held}", remedy)


def _encoded(model: Any, text: str) -> Int[Tensor, "one pos"]:
    if getattr(model, "tokenizer", None) is None or not hasattr(model, "to_tokens"):
        raise DataError("losses of a text", "this model has no tokenizer", "Give token ids, or set model.tokenizer")
    return model.to_tokens(text)


def _valid(model: HookedModel, tokens: Tensor, mask: Tensor | None, pad_id: int | None) -> Tensor:
    if tokens.ndim != 2 or tokens.shape[1] < 2:
        raise DataError("token losses", f"ids have shape {tuple(tokens.shape)}", "Give [batch pos] with at least two positions")
    if mask is not None:
        return check_mask(mask, tokens)
    if pad_id is None:
        check_unpadded(model, tokens)
    return valid_positions(tokens, pad_id)


def _ratio_error(sums: Tensor, counts: Tensor, mean: float) -> float:
    """Standard error of Σ sums / Σ counts over the sequences that have any; NaN for a single one."""
    n = int((counts > 0).sum())
    if n < 2:
        return math.nan
    residuals = sums - mean * counts
    return float((residuals.square().sum() * n / (n - 1)).sqrt() / counts.sum())
