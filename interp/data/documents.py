"""Documents: cutting text into them, and dividing them into splits so that no split leaks into another."""

import re
from collections.abc import Iterable, Sequence

from interp.data.cache import stable_hash
from interp.errors import DataError

HELD_OUT_SHARE = 0.05
"""The share of all characters that each split we make ourselves (validation, test) aims at."""

_ARTICLE = re.compile(r" = [^=]+ = ?")  # how WikiText begins an article; its sections have two or more signs


def without_blank_lines(text: str) -> str:
    """`text` with every line that is empty or only spaces taken out; line ends become `\\n`, a leading byte-order mark goes."""
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join(line for line in lines if line.strip())


def into_articles(pieces: Iterable[str]) -> list[str]:
    """Documents out of pieces of text: a piece each, unless lines like ` = Title = ` mark articles, as they do in WikiText.

    With such lines anywhere, the pieces are read as one run of lines and cut before each of them. Blank documents are dropped.
    """
    cleaned = [clean for clean in map(without_blank_lines, pieces) if clean]
    if not any(_ARTICLE.fullmatch(line) for piece in cleaned for line in piece.split("\n")):
        return cleaned
    articles: list[list[str]] = []
    for line in (line for piece in cleaned for line in piece.split("\n")):
        if _ARTICLE.fullmatch(line) or not articles:
            articles.append([])
        articles[-1].append(line)
    return ["\n".join(lines) for lines in articles]


def into_lines(documents: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Every line of `(name, text)` documents as a document of its own, named by its document and number."""
    return [(f"{name} line {number}", line) for name, text in documents for number, line in enumerate(text.split("\n"))]


def hold_out(
    documents: Sequence[tuple[str, str]], splits: Sequence[str], *, seed: int, asked: str
) -> tuple[list[str], dict[str, list[str]]]:
    """Divide `(name, text)` documents into training texts and one list of texts for each name in `splits`.

    Whole documents are held out, in the order of a hash of their name and `seed`, until each split has 5 % of all characters.
    Documents longer than that 5 % always stay in training, and of equal texts only the first is kept. When too few documents
    are left to hold out, the lines of all are cut into contiguous blocks instead. `asked` opens the error message.

    Raises `DataError` when there are fewer lines than splits.
    """
    unique = list({text: (name, text) for name, text in reversed(documents)}.values())[::-1]
    goal = HELD_OUT_SHARE * sum(len(text) for _, text in unique)
    eligible = [item for item in unique if len(item[1]) <= goal]
    eligible.sort(key=lambda item: stable_hash(str(seed), item[0]))
    held: dict[str, list[str]] = {}
    taken: set[str] = set()
    for split in splits:
        size, held[split] = 0, []
        while size < goal:
            if not eligible:
                return _cut_blocks([text for _, text in unique], splits, asked)
            _, text = eligible.pop()
            held[split].append(text)
            taken.add(text)
            size += len(text)
    return [text for _, text in unique if text not in taken], held


def _cut_blocks(texts: Sequence[str], splits: Sequence[str], asked: str) -> tuple[list[str], dict[str, list[str]]]:
    """Training takes the first lines, each split the next block; a run of equal lines is never cut in two."""
    lines = [(document, line) for document, text in enumerate(texts) for line in text.split("\n")]
    total, blocks, end = sum(len(line) for _, line in lines), [], len(lines)
    for _ in splits:
        size, start = 0, end
        while start > 0 and (size < HELD_OUT_SHARE * total or (start < len(lines) and lines[start][1] == lines[start - 1][1])):
            start -= 1
            size += len(lines[start][1])
        blocks.append(_join(lines[start:end]))
        end = start
    if end == 0:
        needed = ("train", *splits)
        raise DataError(
            asked,
            f"its {len(lines)} lines are too few, or too alike, to make {len(needed)} splits ({', '.join(needed)})",
            "Give a longer text, or a folder with the files train.txt, validation.txt and test.txt",
        )
    return _join(lines[:end]), dict(zip(splits, reversed(blocks), strict=True))


def _join(lines: Sequence[tuple[int, str]]) -> list[str]:
    documents: dict[int, list[str]] = {}
    for document, line in lines:
        documents.setdefault(document, []).append(line)
    return ["\n".join(kept) for kept in documents.values()]
