"""What is reached without attention: counting words."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from interp.data.sentiment import Labelled, SentimentData

DECAYS = (1e-5, 1e-4, 1e-3, 1e-2)  # of the squared weights; one is chosen on validation


def bag_of_words(tokenizer: Any, data: SentimentData) -> float:
    """Accuracy on the held-out tenth of logistic regression on which words a whole text has, each row scaled to length 1."""
    train, validation, test = (_presence(tokenizer, part) for part in (data.train, data.validation, data.test))
    fits = [_regression(train, data.train.labels, len(data.classes), decay) for decay in DECAYS]
    best = max(fits, key=lambda weights: _accuracy(validation, data.validation.labels, weights))
    return _accuracy(test, data.test.labels, best)


def _presence(tokenizer: Any, texts: Labelled) -> Float[Tensor, "text word"]:
    rows: Sequence[list[int]] = tokenizer(list(texts.texts), add_special_tokens=False)["input_ids"]
    found = torch.zeros(len(rows), len(tokenizer) + 1)
    found[:, -1] = 1  # the bias
    for row, ids in zip(found, rows, strict=True):
        row[ids] = 1
    return F.normalize(found, dim=1)


def _regression(features: Tensor, labels: Int[Tensor, " text"], n_classes: int, decay: float) -> Float[Tensor, "word kind"]:
    weights = torch.zeros(features.shape[1], n_classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(features @ weights, labels) + decay * weights.square().sum()
        value.backward()
        return value

    optimizer.step(loss)  # type: ignore[arg-type]
    return weights.detach()


def _accuracy(features: Tensor, labels: Tensor, weights: Tensor) -> float:
    return float(((features @ weights).argmax(-1) == labels).double().mean())
