"""How well text can be predicted from token counts alone: the losses that a model without context comes down to."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.errors import DataError
from interp.result import Result

ORDERS, QUANTITIES = ("unigram", "bigram"), ("held out", "in sample")


def ngram_floors(
    train: Int[Tensor, "train_sequence pos"],
    held_out: Int[Tensor, "held_sequence held_pos"],
    d_vocab: int,
    *,
    train_counted: Bool[Tensor, "_ _"] | None = None,
    counted: Bool[Tensor, "_ _"] | None = None,
) -> Result:
    """Mean loss in nats of predicting tokens from counts in `train`: axes (order, quantity).

    Orders: "unigram" predicts every token by its frequency, "bigram" by what followed the same previous token. "held out" is the
    loss on `held_out` of smoothed counts, what can be done without more context; "in sample" is the entropy of the unsmoothed
    counts on `train` itself, which no predictor of that order can beat there. The first token of a row is never predicted;
    `train_counted` and `counted` leave out more, such as padding (True: predicted).

    Unigrams have one added to every count. Bigrams are interpolated by absolute discounting: each count loses
    D = n1 / (n1 + 2 n2), of which n1 and n2 bigrams were seen once and twice, and what is lost goes to the unigram; a previous
    token never seen gives the unigram alone. Both sum to 1 over the vocabulary. Raises `DataError` when nothing is predicted, or
    for ids outside `d_vocab`. Cost: a sort of the training bigrams; no matrix over the vocabulary.
    """
    first, next_ = _pairs(train, train_counted, d_vocab, "train")
    given, wanted = _pairs(held_out, counted, d_vocab, "held_out")
    unigrams = torch.bincount(next_, minlength=d_vocab).double()
    probability = (unigrams + 1) / (unigrams.sum() + d_vocab)
    codes, counts = (first * d_vocab + next_).unique(return_counts=True)
    bigram = _bigram_probability(codes, counts.double(), given * d_vocab + wanted, probability)
    seen = torch.bincount(first, minlength=d_vocab).double()
    share = unigrams[unigrams > 0] / unigrams.sum()
    conditional = counts / seen[codes // d_vocab]
    values = [
        [-probability[wanted].log().mean(), -(share * share.log()).sum()],
        [-bigram.log().mean(), -(counts * conditional.log()).sum() / counts.sum()],
    ]
    return Result(
        name="n-gram floors",
        values=torch.tensor(values, dtype=torch.float64),
        axes=("order", "quantity"),
        labels={"order": ORDERS, "quantity": QUANTITIES},
        count=len(wanted),
        unit="nats",
        description="mean loss of predicting each token from counts in the training text, and the entropy of those counts",
    )


def _pairs(tokens: Tensor, counted: Tensor | None, d_vocab: int, name: str) -> tuple[Tensor, Tensor]:
    """Each predicted token and the one before it."""
    if tokens.ndim != 2 or (counted is not None and counted.shape != tokens.shape):
        raise DataError(
            f"n-gram floors of {name}", f"it has shape {tuple(tokens.shape)}", "Give [sequence pos], and a mask alike"
        )
    if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < d_vocab:
        raise DataError(f"n-gram floors of {name}", f"it has ids outside 0 to {d_vocab - 1}", "Give the right d_vocab")
    kept = torch.ones_like(tokens[:, 1:], dtype=torch.bool) if counted is None else counted[:, 1:].bool()
    if not bool(kept.any()):
        raise DataError(f"n-gram floors of {name}", "no token is predicted", "Give rows of at least two tokens that count")
    return tokens[:, :-1][kept], tokens[:, 1:][kept]


def _bigram_probability(
    codes: Int[Tensor, " bigram"],
    counts: Float[Tensor, " bigram"],
    asked: Int[Tensor, " target"],
    unigram: Float[Tensor, " d_vocab"],
) -> Float[Tensor, " target"]:
    """p(next | previous) of each bigram asked, by absolute discounting; a bigram's code is previous · d_vocab + next."""
    once, twice = float((counts == 1).sum()), float((counts == 2).sum())
    discount = once / (once + 2 * twice) if once and twice else 0.5
    d_vocab = len(unigram)
    before, given, wanted = codes // d_vocab, asked // d_vocab, asked % d_vocab
    total = torch.zeros(d_vocab, dtype=torch.float64).index_add(0, before, counts)[given]
    kinds = torch.bincount(before, minlength=d_vocab).double()[given]
    place = torch.searchsorted(codes, asked).clamp(max=len(codes) - 1)
    count = torch.where(codes[place] == asked, counts[place], 0.0)
    smoothed = ((count - discount).clamp(min=0) + discount * kinds * unigram[wanted]) / total.clamp(min=1)
    return torch.where(total > 0, smoothed, unigram[wanted])
