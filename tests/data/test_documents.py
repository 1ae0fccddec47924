"""Cutting text into documents, and holding documents out."""

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interp.data.documents import hold_out, into_articles, without_blank_lines
from interp.errors import DataError


def test_blank_lines_go_and_all_line_ends_become_one() -> None:
    assert without_blank_lines("\ufeffone\r\n\r\n  two \r \t \nthree\n") == "one\n  two \nthree"
    assert without_blank_lines(" \n\t\r\n") == ""


def test_wikitext_headings_start_documents_and_section_headings_do_not() -> None:
    lines = ["", " = First = \n", "", "text a\n", " = = Section = = \n", "text b", " = Second = \n", "text c"]
    assert into_articles(lines) == [" = First = \ntext a\n = = Section = = \ntext b", " = Second = \ntext c"]
    assert into_articles(lines) == into_articles(["\n".join(lines)])


def test_pieces_without_headings_stay_documents() -> None:
    assert into_articles(["x = 1\ny = = 2", "  ", "z"]) == ["x = 1\ny = = 2", "z"]


def named(n: int, size: int = 30) -> list[tuple[str, str]]:
    return [(f"name {i}", f"text {i:04d} ".ljust(size, "x")) for i in range(n)]


def test_held_out_documents_are_whole_disjoint_and_near_the_goal() -> None:
    documents = named(400)
    train, held = hold_out(documents, ("validation", "test"), seed=0, asked="corpus")
    assert sorted(train + held["validation"] + held["test"]) == sorted(text for _, text in documents)
    assert (len(train), len(held["validation"]), len(held["test"])) == (360, 20, 20)
    assert [text for _, text in documents if text in set(train)] == train  # the order of the corpus is kept


def test_the_split_follows_names_and_seed_not_the_order_of_the_documents() -> None:
    documents = named(200)
    _, held = hold_out(documents, ("validation", "test"), seed=3, asked="corpus")
    _, reordered = hold_out(documents[::-1], ("validation", "test"), seed=3, asked="corpus")
    _, reseeded = hold_out(documents, ("validation", "test"), seed=4, asked="corpus")
    assert {k: set(v) for k, v in held.items()} == {k: set(v) for k, v in reordered.items()}
    assert set(held["test"]) != set(reseeded["test"])


def test_equal_documents_cannot_stand_in_two_splits() -> None:
    documents = [(f"copy {i}", f"text {i % 100:04d} ".ljust(30, "x")) for i in range(300)]
    train, held = hold_out(documents, ("validation",), seed=0, asked="corpus")
    assert len(train) + len(held["validation"]) == 100
    assert not set(train) & set(held["validation"])


def test_a_long_document_stays_in_training() -> None:
    train, held = hold_out([("long", "y" * 5000), *named(300)], ("validation", "test"), seed=0, asked="corpus")
    assert "y" * 5000 in train
    assert 0.05 * 14000 <= sum(map(len, held["test"])) < 0.06 * 14000


@given(st.lists(st.sampled_from(["aaaa", "bbbb", "cccc", "dddd"]), min_size=1, max_size=60))
def test_one_document_is_cut_into_blocks_that_share_no_line_at_the_border(lines: list[str]) -> None:
    text = "\n".join(lines)
    try:
        train, held = hold_out([("only", text)], ("validation", "test"), seed=0, asked="corpus")
    except DataError:
        longest = max(len(list(run)) for _, run in groupby(lines))
        assert len(lines) < 40 or longest > 0.3 * len(lines)  # refused only where three blocks may not exist
        return
    blocks = [train, held["validation"], held["test"]]
    assert "\n".join(part for block in blocks for part in block) == text
    assert all(len(block) == 1 for block in blocks)
    for (left,), (right,) in zip(blocks, blocks[1:], strict=False):
        assert left.split("\n")[-1] != right.split("\n")[0]


def test_few_documents_are_cut_at_lines_and_keep_their_borders() -> None:
    train, held = hold_out([("a", "1\n2"), ("b", "3\n4\n5"), ("c", "6")], ("validation", "test"), seed=0, asked="corpus")
    assert (train, held) == (["1\n2", "3\n4"], {"validation": ["5"], "test": ["6"]})


@pytest.mark.parametrize("text", ["one line only", "two\nlines", "same\nsame\nsame\nsame"])
def test_too_few_lines_is_an_error_with_the_number(text: str) -> None:
    with pytest.raises(DataError, match=rf"corpus 'x': its {text.count(chr(10)) + 1} lines are too few, or too alike"):
        hold_out([("only", text)], ("validation", "test"), seed=0, asked="corpus 'x'")
