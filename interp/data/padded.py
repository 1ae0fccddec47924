"""Text in rows of whole lines, padded on the right; what counts is told apart from the padding."""

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Bool, Int
from pydantic import Field
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from interp.config import setting, settings
from interp.data.cache import stable_hash
from interp.data.corpora import load_corpus
from interp.data.packing import bos_id, encode_documents
from interp.data.tokenizers import load_tokenizer, vocabulary_size
from interp.data.tokens import DATA, SPLITS, TokenData, tokens_fingerprint
from interp.errors import DataError

Rows = Annotated[int, Field(gt=0)]


@DATA.register
@settings
class PaddedTextConfig:
    """Text in rows of whole lines: BOS, as many as fit, padding. Train with `train.targets=answers`: padding is no answer."""

    kind: Literal["padded_text"] = setting("padded_text", "which data this is")
    corpus: str = setting("python-source", "python-docs, python-source, wikitext-2-raw-v1, a path, or owner/name[:configuration]")
    column: str | None = setting(None, "column of a dataset that holds the text; null means 'text', or its only one of strings")
    tokenizer: str = setting("bpe", "bpe (trained on the corpus), characters, or a Hugging Face tokenizer's name or folder")
    vocab_size: int = setting(1024, "number of tokens that bpe is trained to; the other tokenizers have their own")
    length: Annotated[int, Field(ge=3)] = setting(64, "tokens in a row, BOS and padding included")
    n_train: Rows = setting(4096, "training rows at most, from documents in an order drawn by split_seed")
    n_held_out: Rows = setting(512, "validation rows at most, and test rows")
    split_seed: int = setting(0, "which documents are held out, and which come first")

    def load(self) -> TokenData:
        """The three splits, `answers` marking every token that is neither BOS nor padding.

        Raises `DataError` where `load_corpus` and `load_tokenizer` do, and for a split that has no line.
        """
        corpus = load_corpus(self.corpus, split_seed=self.split_seed, column=self.column)
        tokenizer = load_tokenizer(self.tokenizer, corpus, vocab_size=self.vocab_size)
        tokens: dict[str, Any] = {}
        answers: dict[str, Tensor] = {}
        for split in SPLITS:
            most = self.n_train if split == "train" else self.n_held_out
            documents = sorted(getattr(corpus, split), key=lambda text: stable_hash(str(self.split_seed), text))
            tokens[split], answers[split] = padded_rows(documents, tokenizer, length=self.length, most=most)
            if not len(tokens[split]):
                raise DataError(f"corpus {self.corpus!r}, split {split!r}", "it has no line of text", "Give a longer text")
        share = 1 - float(answers["train"][:, 1:].double().mean())
        made = f"bpe to {self.vocab_size:,} tokens" if self.tokenizer == "bpe" else self.tokenizer
        return TokenData(
            **tokens,
            d_vocab=vocabulary_size(tokenizer),
            tokenizer=tokenizer,
            bos_id=bos_id(tokenizer),
            fingerprint=tokens_fingerprint(*tokens.values(), *(real.long() for real in answers.values())),
            description=f"text: {self.corpus}, tokenizer {made}, whole lines in rows of {self.length}, {share:.0%} padding",
            answers=answers,
            padded=True,
        )


def padded_rows(
    documents: Iterable[str], tokenizer: PreTrainedTokenizerFast, *, length: int, most: int
) -> tuple[Int[Tensor, "sequence pos"], Bool[Tensor, "sequence pos"]]:
    """Up to `most` rows of BOS, text and padding, and True where a row has text.

    A row holds consecutive lines of one document, as many as have `length` - 1 tokens when each is encoded alone; a line with
    more is cut, and so is the rare row that has more when encoded as a whole. Padding has BOS's id, so that no model needs
    another token: which positions are padding stands in the second tensor and nowhere else. Right padding changes nothing before
    it in a causal model.
    """
    texts: list[str] = []
    for document in documents:
        texts += _whole_lines(document, tokenizer, length - 1)
        if len(texts) >= most:
            break
    encoded = [ids[: length - 1] for ids in encode_documents(texts[:most], tokenizer) if ids]
    tokens = torch.full((len(encoded), length), bos_id(tokenizer))
    real = torch.zeros(len(encoded), length, dtype=torch.bool)
    for row, ids in enumerate(encoded):
        tokens[row, 1 : 1 + len(ids)] = torch.tensor(ids)
        real[row, 1 : 1 + len(ids)] = True
    return tokens, real


def _whole_lines(document: str, tokenizer: PreTrainedTokenizerFast, room: int) -> Iterator[str]:
    """A document in pieces of whole lines with up to `room` tokens each, or one longer line."""
    lines = [line + "\n" for line in document.split("\n") if line.strip()]
    piece, used = "", 0
    for line, ids in zip(lines, encode_documents(lines, tokenizer), strict=True):
        if piece and used + len(ids) > room:
            yield piece
            piece, used = "", 0
        piece, used = piece + line, used + len(ids)
    if piece:
        yield piece
