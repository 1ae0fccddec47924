"""A task of one's own is a class of ten lines, which every configuration can then name."""

from typing import Any, Literal

import pytest
import torch

from interp.config import build, setting
from interp.data import DATA, DrawnTask, load_data, task
from interp.errors import ConfigError, DataError
from interp.training import RunConfig
from interp.training.plans import read_plans


@task
class Parity(DrawnTask):
    """Bits, then whether the number of ones among them is odd."""

    kind: Literal["parity"] = "parity"
    n_bits: int = setting(8, "bits in a sequence")

    @property
    def symbols(self) -> tuple[str, ...]:
        return ("BOS", "0", "1")

    def draw(self, n_sequences: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        bits = torch.randint(2, (n_sequences, self.n_bits), generator=generator)
        tokens = torch.cat([bits, bits.sum(dim=1, keepdim=True) % 2], dim=1) + 1
        return tokens, torch.arange(self.n_bits + 1) == self.n_bits


def test_a_configuration_can_name_it(tmp_path: Any) -> None:
    config = build(RunConfig, {"data": {"kind": "parity", "n_bits": 6, "n_train": 100, "n_validation": 9}})
    assert config.data == Parity(n_bits=6, n_train=100, n_validation=9)
    data = load_data(config.data)
    assert data.description == "parity: Bits, then whether the number of ones among them is odd"
    assert data.answers is not None
    assert (data.train.shape, data.test.shape, data.d_vocab) == ((100, 8), (9, 8), 3)
    for row, marked in zip(data.train.tolist(), data.answers["train"].tolist(), strict=True):
        assert row[-1] - 1 == sum(token - 1 for token in row[1:-1]) % 2
        assert marked == [False] * 7 + [True]
    (tmp_path / "own.yaml").write_text("data: {kind: parity, n_bits: [4, 5]}")
    assert [plan.config.data for plan in read_plans([tmp_path / "own.yaml"])] == [Parity(n_bits=4), Parity(n_bits=5)]
    with pytest.raises(ConfigError, match="Did you mean 'n_bits'.*Settings of parity"):
        build(RunConfig, {"data": {"kind": "parity", "bits": 6}})


def drawing(tokens: Any, answers: Any) -> DrawnTask:
    class Own(Parity):
        def draw(self, n_sequences: int, generator: torch.Generator) -> Any:
            return tokens(n_sequences), answers(n_sequences)

    return Own(n_train=10, n_validation=2)


@pytest.mark.parametrize(
    ("tokens", "answers", "message"),
    [
        (lambda n: torch.zeros(n, 5, dtype=torch.long), lambda n: torch.ones(5, dtype=torch.bool), r"ids are 0 to 0.*1 to 2"),
        (lambda n: torch.full((n, 5), 3), lambda n: torch.ones(5, dtype=torch.bool), r"ids are 3 to 3.*BOS and 1 to 2"),
        (
            lambda n: torch.ones(n, 5),
            lambda n: torch.ones(5, dtype=torch.bool),
            "torch.float32.*not 27 rows of token ids|rows of",
        ),
        (lambda n: torch.ones(n - 1, 5).long(), lambda n: torch.ones(5, dtype=torch.bool), r"not \d+ rows of token ids"),
        (lambda n: torch.ones(n, 5).long(), lambda n: torch.ones(4, dtype=torch.bool), r"answers are torch.bool of shape \(4,\)"),
        (lambda n: torch.ones(n, 5).long(), lambda n: torch.ones(5), "answers are torch.float32"),
        (lambda n: torch.ones(n, 5).long(), lambda n: torch.zeros(n, 5, dtype=torch.bool), "asks for no token"),
        (lambda n: torch.ones(n, 5).long(), lambda n: torch.ones(5, dtype=torch.bool), "too few different sequences"),
    ],
)
def test_a_task_that_does_not_fit_together_is_told_so(tokens: Any, answers: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        drawing(tokens, answers).load()


def test_only_tasks_can_be_tasks() -> None:
    with pytest.raises(ConfigError, match="it is not a Task"):
        task(int)
    with pytest.raises(ConfigError, match="Parity has this kind already"):

        @task
        class Other(DrawnTask):
            kind: Literal["parity"] = "parity"

    with pytest.raises(TypeError, match="abstract"):
        DrawnTask()
    assert DATA["parity"] is Parity
