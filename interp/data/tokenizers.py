"""Tokenizers: byte-level BPE trained on the corpus, characters, or any fast Hugging Face tokenizer. One type for all."""

import re
from pathlib import Path

import tokenizers as backend
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from interp.data.cache import cache_folder, cached_text, stable_hash
from interp.data.corpora import Corpus
from interp.data.hub import why_unreachable
from interp.errors import DataError, nearest

BOS = "<|bos|>"
UNKNOWN = "<|unk|>"
TRAINED: tuple[str, ...] = ("bpe", "characters")
"""The tokenizers made from the corpus; any other name is a Hugging Face tokenizer."""

_MIN_FREQUENCY = 2
_FIXED = 256 + 1  # every byte, and BOS: below this a byte-level BPE cannot spell every text
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


def load_tokenizer(
    spec: str, corpus: Corpus, *, vocab_size: int = 1024, cache_dir: str | Path | None = None
) -> PreTrainedTokenizerFast:
    """The tokenizer `spec`: `"bpe"`, `"characters"`, or the name or folder of a fast Hugging Face tokenizer.

    - `"bpe"`: byte-level, trained on the corpus' train split only, to `vocab_size` tokens (fewer when the text is too small for
      them). Loses nothing: `decode(encode(text)) == text` for every text. Cached; the same corpus gives the same ids.
    - `"characters"`: a token for each character of the train split; every other character becomes `<|unk|>`.
    - otherwise: as it comes; `vocab_size` plays no part. Without a BOS token it gets its EOS, else its CLS token, else a new
      `<|bos|>` in that role.

    All have a BOS token, which text can never produce: `"<|bos|>"` written in a document is spelt out. None adds it by itself
    where we made it; `pack` and `encode_text` do.

    Raises `DataError` for a `vocab_size` below 257 with `"bpe"`, or a tokenizer that cannot be had.
    """
    if spec == "bpe":
        return _wrap(_bpe(corpus, vocab_size, cache_dir), bos_token=BOS)
    if spec == "characters":
        return _wrap(_characters(corpus), bos_token=BOS, unk_token=UNKNOWN)
    return open_tokenizer(spec)


def open_tokenizer(spec: str) -> PreTrainedTokenizerFast:
    """The fast Hugging Face tokenizer of this name or folder, with a BOS token, as `load_tokenizer` gives it."""
    return _with_bos(_pretrained(spec))


def vocabulary_size(tokenizer: PreTrainedTokenizerFast) -> int:
    """One more than the largest id, so that a model with this `d_vocab` can embed all of them even where ids have gaps."""
    return max(tokenizer.get_vocab().values()) + 1


def _wrap(tokenizer: Tokenizer, **special: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, split_special_tokens=True, clean_up_tokenization_spaces=False, **special
    )


def _bpe(corpus: Corpus, vocab_size: int, cache_dir: str | Path | None) -> Tokenizer:
    if vocab_size < _FIXED:
        raise DataError(
            f"tokenizer 'bpe' with vocab_size={vocab_size}",
            f"byte-level BPE needs {_FIXED} tokens before it merges anything (256 bytes and BOS)",
            f"Set vocab_size to {_FIXED} or more, or use tokenizer 'characters'",
        )
    key = stable_hash("1", corpus.fingerprint, str(vocab_size), str(_MIN_FREQUENCY), BOS, backend.__version__)
    path = cache_folder(cache_dir) / "tokenizers" / f"bpe-{vocab_size}-{key}.json"
    return Tokenizer.from_str(cached_text(path, lambda: _train_bpe(corpus, vocab_size).to_str()))


def _train_bpe(corpus: Corpus, vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=_MIN_FREQUENCY,
        special_tokens=[BOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),  # all 256, or unseen bytes would vanish from the ids
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus.train, trainer)
    return tokenizer


def _characters(corpus: Corpus) -> Tokenizer:
    seen = sorted(set().union(*corpus.train))
    vocabulary = {token: number for number, token in enumerate([BOS, UNKNOWN, *seen])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=UNKNOWN, fuse_unk=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("\n", "isolated")  # short words: without it a document is one, and slow
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([BOS, UNKNOWN])
    return tokenizer


def _pretrained(spec: str) -> PreTrainedTokenizerFast:
    asked = f"tokenizer {spec!r}"
    local = Path(spec).expanduser()
    is_folder = bool(spec) and local.is_dir()
    if not is_folder and not _HUB_NAME.fullmatch(spec):
        raise DataError(asked, "there is no such folder", f"Give {_choices()}, or an existing folder")
    reason = None if is_folder else why_unreachable()
    try:
        source = str(local) if is_folder else spec
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=is_folder or reason is not None)
    except Exception as error:  # a dozen types, by what is missing or damaged
        raise _not_found(spec, is_folder, reason, error) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise DataError(asked, f"it is a {type(tokenizer).__name__}, written in Python", "Use one with a tokenizer.json file")
    return tokenizer


def _not_found(spec: str, is_folder: bool, reason: str | None, error: Exception) -> DataError:
    said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    if is_folder:
        return DataError(
            f"tokenizer folder {spec!r}", f"it cannot be opened ({said})", "It must hold what save_pretrained writes"
        )
    hint = nearest(spec, TRAINED)
    if reason is not None:
        truth = f"no folder has that name, the Hugging Face Hub cannot be reached, and its cache here lacks it; {reason}"
        return DataError(f"tokenizer {spec!r}", truth, f"{hint}Use {_choices()}, or a folder written by save_pretrained")
    truth = f"the Hugging Face Hub did not give it ({said})"
    return DataError(f"tokenizer {spec!r}", truth, f"{hint}Use {_choices()}, or check the name on huggingface.co")


def _choices() -> str:
    return " or ".join(repr(name) for name in TRAINED)


def _with_bos(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    if tokenizer.bos_token_id is None:
        tokenizer.add_special_tokens({"bos_token": tokenizer.eos_token or tokenizer.cls_token or BOS})
    ids = tokenizer.get_vocab().values()
    if len(set(ids)) < len(ids):  # a new token gets the number of tokens as its id, which ids with gaps may already use
        raise DataError(
            f"tokenizer {tokenizer.name_or_path!r}",
            "it gives two tokens the same id",
            "Set its bos_token to a token it has, and save it",
        )
    return tokenizer
