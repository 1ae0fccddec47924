"""Text as training data: a corpus, a tokenizer and a length."""

from typing import Any, Literal

import torch
from einops import rearrange
from jaxtyping import Int
from torch import Tensor

from interp.config import setting, settings
from interp.data.corpora import load_corpus
from interp.data.packing import bos_id, pack
from interp.data.tokenizers import load_tokenizer, vocabulary_size
from interp.data.tokens import DATA, SPLITS, TokenData, tokens_fingerprint
from interp.errors import DataError
from interp.seeds import seed_for


@DATA.register
@settings
class TextConfig:
    """Text, packed to sequences of one length."""

    kind: Literal["text"] = setting("text", "which data this is")
    corpus: str = setting("python-docs", "python-docs, wikitext-2-raw-v1, a path, or owner/name[:configuration] on the Hub")
    documents: Literal["whole", "lines"] = setting("whole", "whole: as the corpus has them; lines: every line is a document")
    column: str | None = setting(None, "column of a dataset that holds the text; null means 'text', or its only one of strings")
    tokenizer: str = setting("bpe", "bpe (trained on the corpus), characters, or a Hugging Face tokenizer's name or folder")
    vocab_size: int = setting(1024, "number of tokens that bpe is trained to; the other tokenizers have their own")
    length: int = setting(128, "tokens in a sequence, BOS included")
    split_seed: int = setting(0, "which documents are held out, where the corpus has no validation or test split of its own")
    repeat_share: float = setting(0.0, "share of training sequences replaced by one passage repeated; 0 leaves the text as it is")
    repeat_seed: int = setting(0, "which training sequences those are")

    def __post_init__(self) -> None:
        if self.length < 3:
            raise ValueError(f"length must be at least 3 (BOS and two tokens), not {self.length}")
        if not 0 <= self.repeat_share <= 1:
            raise ValueError(f"repeat_share must lie between 0 and 1, not {self.repeat_share}")

    def load(self) -> TokenData:
        """The three splits; see `load_text`."""
        return load_text(self)


def load_text(config: TextConfig) -> TokenData:
    """Open, tokenize and pack the three splits, each by itself, so that no sequence mixes two of them.

    Equal settings give equal tokens (for `python-docs`: under the same Python). Raises `DataError` where `load_corpus`,
    `load_tokenizer` or `pack` do; a split too short for one sequence is named.
    """
    corpus = load_corpus(config.corpus, split_seed=config.split_seed, documents=config.documents, column=config.column)
    tokenizer = load_tokenizer(config.tokenizer, corpus, vocab_size=config.vocab_size)
    splits: dict[str, Any] = {}
    for name in SPLITS:
        try:
            splits[name] = pack(getattr(corpus, name), tokenizer, length=config.length)
        except DataError as error:
            raise DataError(f"corpus {config.corpus!r}, split {name!r}", f"{error.asked}: {error.truth}", error.remedy) from None
    splits["train"] = with_repeats(splits["train"], share=config.repeat_share, seed=config.repeat_seed)
    return TokenData(
        **splits,
        d_vocab=vocabulary_size(tokenizer),
        tokenizer=tokenizer,
        bos_id=bos_id(tokenizer),
        fingerprint=tokens_fingerprint(*splits.values()),
        description=_describe(config),
    )


def with_repeats(tokens: Int[Tensor, "sequence pos"], *, share: float, seed: int) -> Int[Tensor, "sequence pos"]:
    """A copy in which a share of the rows (chosen by `seed`) reads BOS + s + s cut to the row's length, s being how it began.

    The length of s is drawn for each row, from half to three quarters of the row, so that the second copy starts at no fixed
    distance from the first: with one distance, a model with positions could learn to look that far back without reading.
    """
    n_rows, width = len(tokens), tokens.shape[1] - 1
    n_repeated = round(share * n_rows)
    generator = torch.Generator().manual_seed(seed_for("repeats in text", seed))
    chosen = torch.randperm(n_rows, generator=generator)[:n_repeated]
    shortest, longest = (width + 1) // 2, max((width + 1) // 2, 3 * width // 4)
    periods = torch.randint(shortest, longest + 1, (n_repeated,), generator=generator)
    source = torch.arange(width) % rearrange(periods, "sequence -> sequence 1")
    repeated = tokens.clone()
    repeated[chosen, 1:] = tokens[chosen, 1:].gather(1, source)
    return repeated


def _describe(config: TextConfig) -> str:
    tokenizer = f"bpe to {config.vocab_size:,} tokens" if config.tokenizer == "bpe" else config.tokenizer
    repeats = f", {config.repeat_share:.0%} of training sequences repeat a passage" if config.repeat_share else ""
    lines = ", a line a document" if config.documents == "lines" else ""
    return f"text: {config.corpus}{lines}, tokenizer {tokenizer}, sequences of {config.length}{repeats}"
