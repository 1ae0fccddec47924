"""Data: corpora, tokenizers, packing, generated tasks. Every source ends in a `TokenData`: three splits of tokens.

data = load_data(TextConfig(corpus="python-docs", length=128))
data.train           # sequence pos, every row beginning with BOS
"""

from typing import Annotated

from pydantic import Field

from interp.data.corpora import CORPORA, Corpus, load_corpus
from interp.data.packing import encode_documents, pack
from interp.data.passages import REPEATED_PASSAGE, check_passage, encode_text
from interp.data.tasks import RepeatedConfig, load_task, repeated_sequences
from interp.data.text import TextConfig, load_text
from interp.data.tokenizers import load_tokenizer
from interp.data.tokens import TokenData

DataConfig = Annotated[TextConfig | RepeatedConfig, Field(discriminator="kind")]
"""Any settings of data, told apart by `kind`; for use as the type of a field."""


def load_data(config: TextConfig | RepeatedConfig) -> TokenData:
    """The tokens that `config` describes. Raises `DataError` where `load_text` and `load_task` do."""
    return load_text(config) if isinstance(config, TextConfig) else load_task(config)


__all__ = [
    "CORPORA",
    "REPEATED_PASSAGE",
    "Corpus",
    "DataConfig",
    "RepeatedConfig",
    "TextConfig",
    "TokenData",
    "check_passage",
    "encode_documents",
    "encode_text",
    "load_corpus",
    "load_data",
    "load_task",
    "load_text",
    "load_tokenizer",
    "pack",
    "repeated_sequences",
]
