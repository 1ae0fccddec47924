"""Next-token losses of whatever is given: strings, a tensor, or a loader; per token and in summary."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.errors import DataError
from interp.probes.loss import cross_entropy
from interp.probes.padding import check_mask, check_unpadded, valid_positions
from interp.result import Result
from interp.running import Probe, Readings, run
from interp.sites import OUTPUT, HookedModel, Site

Inputs = (
    Any  # a string, strings, ids [batch pos], or an iterable of such tensors, of [tensor], of {"input_ids", "attention_mask"}
)
STATISTICS = ("mean", "min", "max")


@dataclass(frozen=True)
class PerTokenLoss(Probe):
    """The loss of every token but the first, in nats: axes (sequence, target); target t is the token at position t."""

    name: ClassVar[str] = "token_losses"

    def sites(self, model: HookedModel) -> Sequence[Site]:
        return [OUTPUT]

    def read(self, activation: Tensor, site: Site, prepared: Any) -> Tensor:
        return cross_entropy(activation, prepared)

    def result(self, readings: Readings) -> Result:
        return _token_losses(readings[OUTPUT].double())


def token_losses(
    model: HookedModel,
    inputs: Inputs,
    *,
    attention_mask: Tensor | None = None,
    pad_id: int | None = None,
    batch_size: int | None = 8,
) -> Result:
    """The loss in nats of every predicted token: axes (sequence, target), NaN where a row has no token (padding, or shorter).

    `inputs`: a string or several (made into tokens by `model.to_tokens`, each by itself, BOS as that puts it), ids [batch pos],
    or an iterable of batches: ids, ids alone in a list (a loader of a `TensorDataset`), or mappings with "input_ids" and perhaps
    "attention_mask" (a Hugging Face loader).
    Padding is what `attention_mask` (ones, then zeros) or `pad_id` (its run at the end of a row) says; tokens that look padded by
    the model's tokenizer are refused while neither is given. Padding must be on the right and the model causal: then what
    stands there cannot change the losses before it. Target t is the token at position t, given those before it.
    Raises `DataError`. Cost: one forward pass. `perplexity` gives the summary.
    """
    parts, provenance = [], None
    for tokens, mask in _batches(model, inputs, attention_mask):
        valid = _valid(model, tokens, mask, pad_id)
        result = run(model, tokens, [PerTokenLoss()], batch_size=batch_size)[PerTokenLoss.name]
        parts.append(result.values.cpu().masked_fill(~valid[:, 1:].cpu(), math.nan))
        provenance = provenance or result.provenance
    if provenance is None:
        raise DataError("token losses", "there is nothing in the inputs", "Give at least one sequence")
    width = max(part.shape[1] for part in parts)
    padded = [nn.functional.pad(part, (0, width - part.shape[1]), value=math.nan) for part in parts]
    return _token_losses(torch.cat(padded)).with_provenance(provenance)


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
    Arguments, padding and errors as in `token_losses`; raises `DataError` too when no token is predicted.
    """
    losses = token_losses(model, inputs, attention_mask=attention_mask, pad_id=pad_id, batch_size=batch_size)
    defined = ~losses.values.isnan()
    n = int(defined.sum())
    if n == 0:
        raise DataError("perplexity", "no token is predicted: every sequence has a single one", "Give longer sequences")
    kept = losses.values[defined]
    loss = torch.stack([kept.mean(), kept.min(), kept.max()])
    error = torch.full_like(loss, math.nan)
    error[0] = _ratio_error(losses.values.nansum(1), defined.sum(1), float(loss[0]))
    return replace(
        losses,
        name="perplexity",
        values=torch.stack([loss, loss.exp()]),
        stderr=torch.stack([error, error * loss.exp()]),
        axes=("measure", "statistic"),
        labels={"measure": ("loss", "perplexity"), "statistic": STATISTICS},
        count=n,
        unit="nats (loss)",
        description="over all predicted tokens; lower is better; perplexity is exp(loss)",
    )


def _token_losses(values: Float[Tensor, "sequence target"]) -> Result:
    return Result(
        name="token_losses",
        values=values,
        axes=("sequence", "target"),
        labels={"target": tuple(str(position) for position in range(1, values.shape[1] + 1))},
        count=len(values),
        unit="nats",
        description="loss of the token at each position, given those before it; NaN: no token there",
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
    """Standard error of Σ sums / Σ counts over sequences; NaN for a single one."""
    n = len(sums)
    if n < 2:
        return math.nan
    residuals = sums - mean * counts
    return float((residuals.square().sum() * n / (n - 1)).sqrt() / counts.sum())
