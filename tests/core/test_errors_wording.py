"""The article in front of the name of a type."""

import numpy as np
import pytest

from interp.errors import kind_of, with_article

SPOKEN = {
    "a": ("ConvAttn", "str", "GPT2Model", "UNet", "Module", "T5", "X"),
    "an": ("AttnAttn", "int", "MLP", "LSTM", "NDArray", "ndarray", "Encoder"),
}


@pytest.mark.parametrize("spoken", [f"{article} {name}" for article, names in SPOKEN.items() for name in names])
def test_the_article_is_the_spoken_one(spoken: str) -> None:
    assert with_article(spoken.split()[1]) == spoken


def test_of_a_value() -> None:
    assert [kind_of(value) for value in (3, np.zeros(1), None, [1])] == ["an int", "an ndarray", "None", "a list"]
