"""Data: corpora, tokenizers, packing, generated tasks. Every source ends in a `TokenData`: three splits of tokens.

data = load_data(TextConfig(corpus="python-docs", length=128))
data.train           # sequence pos, every row beginning with BOS
"""

from interp.data.arithmetic import ModularAdditionConfig
from interp.data.brackets import BracketsConfig
from interp.data.corpora import CORPORA, Corpus, load_corpus
from interp.data.induction import InductionConfig
from interp.data.markov import MarkovConfig
from interp.data.packing import encode_documents, pack
from interp.data.padded import PaddedTextConfig, padded_rows
from interp.data.pairs import (
    PromptPairs,
    greater_than_metric,
    greater_than_pairs,
    induction_pairs,
    ioi_pairs,
    load_pairs,
    load_pairs_by_length,
)
from interp.data.passages import REPEATED_PASSAGE, check_passage, encode_text, encode_texts
from interp.data.repeated import RepeatedConfig, repeated_sequences
from interp.data.strings import CopyConfig, HistogramConfig, ReverseConfig, SortConfig
from interp.data.tasks import DrawnTask, Task, load_task, task
from interp.data.text import TextConfig, load_text
from interp.data.tokenizers import load_tokenizer
from interp.data.tokens import DATA, DataSource, TokenData

DataConfig = DATA.field()
"""Any settings of data, told apart by `kind`, also those registered later; for use as the type of a field."""


def load_data(config: DataSource) -> TokenData:
    """The tokens that `config`, settings of any registered kind of data, describes. Raises `DataError` where its `load` does."""
    return config.load()


__all__ = [
    "CORPORA",
    "DATA",
    "REPEATED_PASSAGE",
    "BracketsConfig",
    "CopyConfig",
    "Corpus",
    "DataConfig",
    "DataSource",
    "DrawnTask",
    "HistogramConfig",
    "InductionConfig",
    "MarkovConfig",
    "ModularAdditionConfig",
    "PaddedTextConfig",
    "PromptPairs",
    "RepeatedConfig",
    "ReverseConfig",
    "SortConfig",
    "Task",
    "TextConfig",
    "TokenData",
    "check_passage",
    "encode_documents",
    "encode_text",
    "encode_texts",
    "greater_than_metric",
    "greater_than_pairs",
    "induction_pairs",
    "ioi_pairs",
    "load_corpus",
    "load_data",
    "load_pairs",
    "load_pairs_by_length",
    "load_task",
    "load_text",
    "load_tokenizer",
    "pack",
    "padded_rows",
    "repeated_sequences",
    "task",
]
