"""Texts with a polarity, in three splits: generated ones whose cue words are known, NLTK's movie reviews, any set of the Hub.

data = load_sentiment(SentimentConfig())          # "polarity": generated, nothing is downloaded
data.train.texts[0], data.train.labels[0]         # "the plot is not good at all", tensor(0)
tokenizer = word_tokenizer(data)
tokens = encode_padded(tokenizer, data.test.texts, 24)   # ids, padded on the right
"""

import hashlib
import random
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from jaxtyping import Int
from pydantic import Field
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from interp.config import setting, settings
from interp.data.hub import only_cached, why_unreachable
from interp.data.local import missing, saved_by_datasets
from interp.errors import DataError, nearest
from interp.seeds import seed_for

GENERATED, REVIEWS = "polarity", "movie_reviews"
CUES: Mapping[str, int] = {
    **dict.fromkeys(("good", "great", "lovely", "brilliant", "charming", "superb"), 1),
    **dict.fromkeys(("bad", "awful", "dull", "boring", "clumsy", "dreadful"), -1),
}
"""The words that decide a generated sentence, and which way; `NEGATION` right before one turns it round."""
NEGATION, TURNED = "not", 0.3
_FILLERS = [
    "the",
    "a",
    "this",
    "that",
    "film",
    "movie",
    "plot",
    "story",
    "scene",
    "actor",
    "music",
    "ending",
    "camera",
    "script",
    "cast",
    "is",
    "was",
    "seems",
    "felt",
    "and",
    "but",
    "so",
    "then",
    "with",
    "at",
    "in",
    "of",
    "for",
    "it",
    "they",
    "we",
    "while",
    "very",
    "quite",
    "rather",
    "almost",
    "also",
    "again",
    "all",
    "every",
    "first",
    "last",
    "long",
    "short",
    "old",
    "new",
]
PAD, UNKNOWN = "[PAD]", "[UNK]"


@settings
class SentimentConfig:
    """Which texts, and how they are split."""

    source: str = setting(
        GENERATED,
        f"{GENERATED!r} (generated), {REVIEWS!r} (through nltk), a zip or folder of pos/ and neg/ texts, a folder saved by "
        "`datasets`, or the name of a text-classification set on the Hub",
    )
    text_column: str | None = setting(
        None, "of a `datasets` set: the column of the texts; null: text, sentence, review or content"
    )
    label_column: str | None = setting(None, "of a `datasets` set: the column of the labels; null: label or labels")
    n_texts: Annotated[int, Field(ge=20)] | None = setting(
        None, "how many texts to use, drawn at random; null: all there are, and 3,000 generated ones"
    )
    seed: int = setting(0, "seed of the generated sentences and of the split")


@dataclass(frozen=True)
class Labelled:
    """Texts and their classes."""

    texts: tuple[str, ...]
    labels: Int[Tensor, " text"]


@dataclass(frozen=True)
class SentimentData:
    """Eight tenths to train on, one to choose on, one held out; no text stands in two of them.

    `classes` names the labels; `cues` are the words known to decide (empty for real texts).
    """

    train: Labelled
    validation: Labelled
    test: Labelled
    classes: tuple[str, ...]
    cues: Mapping[str, int]
    description: str
    fingerprint: str


def load_sentiment(config: SentimentConfig) -> SentimentData:
    """The texts that `config` names, split by its seed; equal settings give equal data.

    Texts that occur twice are used once. Raises `DataError` when there is no such source, when it cannot be reached (saying what
    to give instead), or when it has fewer than 20 texts or a single class.
    """
    cues: Mapping[str, int] = {}
    classes: tuple[str, ...]
    if config.source == GENERATED:
        (texts, labels), classes = _generated(config.n_texts or 3000, config.seed), ("negative", "positive")
        cues, described = CUES, "generated sentences whose cue words are known"
    elif config.source == REVIEWS:
        (texts, labels, classes), described = _from_nltk(), "NLTK movie_reviews (Pang and Lee 2004)"
    elif (path := Path(config.source).expanduser()).exists():
        saved = path.is_dir() and saved_by_datasets(path)
        texts, labels, classes = _from_datasets(config, path) if saved else _from_files(path)
        described = f"texts of {path.name}"
    elif config.source.startswith((".", "/", "~")) or path.suffix == ".zip":
        raise missing(path)
    else:
        texts, labels, classes = _from_datasets(config, None)
        described = f"{config.source} (Hugging Face Hub)"
    return _split(config, dict(zip(texts, labels, strict=True)), classes, cues, described)


def word_tokenizer(data: SentimentData, vocab_size: int = 4096) -> PreTrainedTokenizerFast:
    """Lower-cased words of the train split, the most frequent first: [PAD] is 0, [UNK] every other word."""
    if vocab_size < 3:
        raise DataError(f"a vocabulary of {vocab_size}", "padding and unknown words take two", "Give vocab_size=3 or more")
    normalise, split = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    counts: Counter[str] = Counter()
    for text in data.train.texts:
        counts.update(word for word, _ in split.pre_tokenize_str(normalise.normalize_str(text)))
    frequent = sorted(counts, key=lambda word: (-counts[word], word))
    words = [PAD, UNKNOWN, *(word for word in frequent if word not in (PAD, UNKNOWN))][:vocab_size]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token=UNKNOWN))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalise, split
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        padding_side="right",
        split_special_tokens=True,  # "[PAD]" written in a text is a word like any other
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def encode_padded(tokenizer: Any, texts: Sequence[str], length: int) -> Int[Tensor, "text pos"]:
    """Ids of each text, cut to `length` and padded on the right to the longest of them.

    Raises `DataError` for a tokenizer without a padding token, or a text that gives no token.
    """
    if getattr(tokenizer, "pad_token_id", None) is None:
        raise DataError("padding texts", "the tokenizer has no padding token", "Set tokenizer.pad_token")
    if not texts or length < 1:
        raise DataError(
            f"encoding {len(texts)} texts to {length} tokens", "there is nothing to encode", "Give texts and a length ≥ 1"
        )
    found = tokenizer(list(texts), padding=True, truncation=True, max_length=length, padding_side="right", return_tensors="pt")
    empty = [number for number, row in enumerate(found["attention_mask"]) if not bool(row.any())]
    if empty:
        raise DataError(f"text {empty[0]}", f"{texts[empty[0]]!r} gives no token", "Leave it out")
    return found["input_ids"]


def cue_count(text: str, cues: Mapping[str, int] = CUES) -> int:
    """The class that adding up cue words gives when negation is ignored (1 for a sum above 0): what needs no attention."""
    return int(sum(cues.get(word, 0) for word in text.split()) > 0)


def _generated(n_texts: int, seed: int) -> tuple[list[str], list[int]]:
    """Balanced sentences of 4 to 14 words with one or two cues; their sum, negations turned round, is never 0."""
    draw = random.Random(seed_for("polarity", seed))
    texts: dict[str, int] = {}
    while len(texts) < n_texts:
        wanted = len(texts) % 2
        words, total = _sentence(draw)
        if (total > 0) == bool(wanted) and total:
            texts.setdefault(" ".join(words), wanted)
    return list(texts), list(texts.values())


def _sentence(draw: random.Random) -> tuple[list[str], int]:
    phrases, total = [], 0
    for _ in range(draw.randint(1, 2)):
        cue, turned = draw.choice(list(CUES)), draw.random() < TURNED
        phrases.append([NEGATION, cue] if turned else [cue])
        total += -CUES[cue] if turned else CUES[cue]
    phrases += [[draw.choice(_FILLERS)] for _ in range(draw.randint(4, 12) - sum(map(len, phrases)))]
    if draw.random() < TURNED:  # a negation that turns nothing, so that its presence alone tells little
        phrases.append([NEGATION, draw.choice(_FILLERS)])
    draw.shuffle(phrases)
    return [word for phrase in phrases for word in phrase], total


def _from_nltk() -> tuple[list[str], list[int], tuple[str, ...]]:
    asked = f"source {REVIEWS!r}"
    remedy = f"Give the path of movie_reviews.zip or of its unpacked folder as source, or use {GENERATED!r}, which needs nothing"
    try:
        import nltk
        from nltk.corpus import movie_reviews
    except ImportError:
        raise DataError(asked, "nltk, which provides it, is not installed", f"pip install nltk. Or: {remedy}") from None
    try:
        nltk.data.find("corpora/movie_reviews.zip")
    except LookupError:
        nltk.download("movie_reviews", quiet=True)
    try:
        names = [(name, label) for label, folder in enumerate(("neg", "pos")) for name in movie_reviews.fileids(folder)]
        return [movie_reviews.raw(name) for name, _ in names], [label for _, label in names], ("neg", "pos")
    except (LookupError, OSError) as error:
        told = " ".join(str(error).split())[:120]
        raise DataError(asked, f"nltk neither has it nor can download it ({told})", remedy) from None


def _from_files(path: Path) -> tuple[list[str], list[int], tuple[str, ...]]:
    """Texts by the name of the folder they lie in, of a zip or a folder."""
    asked = f"texts of {str(path)!r}"
    try:
        if path.is_dir():
            found = {file.relative_to(path).as_posix(): file.read_bytes() for file in sorted(path.rglob("*.txt"))}
        else:
            with zipfile.ZipFile(path) as archive:
                found = {name: archive.read(name) for name in sorted(archive.namelist()) if name.endswith(".txt")}
    except (OSError, zipfile.BadZipFile, RuntimeError) as error:
        raise DataError(
            asked, f"it cannot be read ({error})", "Give a zip or a folder that holds pos/*.txt and neg/*.txt"
        ) from None
    by_name = {name: content for name, content in found.items() if "__MACOSX" not in name}
    classes = tuple(sorted({Path(name).parent.name for name in by_name}))
    if len(classes) < 2 or "" in classes:
        shown = f"its texts lie in {', '.join(map(repr, classes))}" if by_name else "it holds no .txt file in a folder"
        raise DataError(asked, shown, "Put the texts of each class into a folder named after it, e.g. pos/ and neg/")
    texts = [content.decode("utf-8", errors="replace") for content in by_name.values()]
    return texts, [classes.index(Path(name).parent.name) for name in by_name], classes


def _from_datasets(config: SentimentConfig, folder: Path | None) -> tuple[list[str], list[int], tuple[str, ...]]:
    import datasets

    asked = f"text-classification set {config.source!r}"
    reason = None if folder else why_unreachable()
    try:
        if folder:
            found = datasets.load_from_disk(str(folder))
        elif reason is None:
            found = datasets.load_dataset(config.source)
        else:
            with only_cached():
                found = datasets.load_dataset(config.source)
    except Exception as error:  # a dozen types, by what is missing or damaged
        told = reason or f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        others = (GENERATED, REVIEWS)
        raise DataError(
            asked,
            f"it cannot be opened; no file or folder has that name, and {told}"
            if not folder
            else f"it cannot be opened ({told})",
            f"{nearest(config.source, others)}Give {GENERATED!r}, {REVIEWS!r}, a zip or folder of pos/ and neg/, or a Hub name",
        ) from error
    parts = list(found.values()) if isinstance(found, dict) else [found]
    texts: list[str] = []
    labels: list[int] = []
    names: list[str] = []
    for part in parts:
        text = _column(asked, part, config.text_column, ("text", "sentence", "review", "content"), "text_column")
        label = _column(asked, part, config.label_column, ("label", "labels"), "label_column")
        names = list(getattr(part.features[label], "names", None) or names)
        rows = [(words, kind) for words, kind in zip(part[text], part[label], strict=True) if words and kind not in (None, -1)]
        texts += [str(words) for words, _ in rows]
        labels += [kind for _, kind in rows]
    known = sorted(set(labels), key=str)
    classes = tuple(names) if names else tuple(map(str, known))
    return texts, [kind if names else known.index(kind) for kind in labels], classes


def _column(asked: str, rows: Any, wanted: str | None, usual: Sequence[str], setting_name: str) -> str:
    columns = list(rows.column_names)
    found = wanted if wanted in columns else None
    if wanted is None:
        found = next((name for name in usual if name in columns), None)
    if found is None:
        truth = f"it has the columns {', '.join(columns)}, none of them {wanted or ' or '.join(usual)}"
        raise DataError(asked, truth, f"{nearest(wanted or '', columns)}Name one of them as {setting_name}")
    return found


def _split(
    config: SentimentConfig, rows: Mapping[str, int], classes: tuple[str, ...], cues: Mapping[str, int], described: str
) -> SentimentData:
    used = [(text, label) for text, label in rows.items() if text.strip()]
    random.Random(seed_for("split of texts", config.seed)).shuffle(used)
    used = used[: config.n_texts]
    if len(used) < 20 or len({label for _, label in used}) < 2:
        truth = f"it gives {len(used)} different texts of {len({label for _, label in used})} classes"
        raise DataError(f"texts of {config.source!r}", truth, "At least 20 texts and 2 classes are needed")
    tenth = len(used) // 10
    digest = hashlib.sha256(repr(used).encode("utf-8", "surrogatepass")).hexdigest()[:32]
    parts = used[: -2 * tenth], used[-2 * tenth : -tenth], used[-tenth:]
    train, validation, test = (Labelled(tuple(t for t, _ in part), torch.tensor([n for _, n in part])) for part in parts)
    return SentimentData(train, validation, test, classes, cues, f"{described}: {len(used):,} texts", digest)
