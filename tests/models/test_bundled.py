"""The bundled models open without a network and are what their folders say they are."""

import pytest

import interp
from interp.config import build
from interp.data import load_data
from interp.errors import ModelError
from interp.models.opening import BUNDLED
from interp.models.saved import _read_config
from interp.probes import TokenLoss
from interp.provenance import weights_hash
from interp.training import RunConfig, read_metrics, read_provenance

TOKEN_MODELS = [name for name in interp.bundled_models() if not name.endswith("-text")]


def test_there_are_some_and_they_are_small() -> None:
    assert {"conv-attn", "attn-attn", "smeared-key-attn", "attn-attn-supplied"} <= set(interp.bundled_models())
    assert sum(file.stat().st_size for file in BUNDLED.rglob("*") if file.is_file()) < 3_000_000


@pytest.mark.parametrize("name", interp.bundled_models())
def test_weights_are_the_recorded_ones(name: str) -> None:
    model = interp.load_model(name)
    assert weights_hash(model) == read_provenance(BUNDLED / name).weights
    if name.endswith("-text"):
        tokens = model.to_tokens("The function returns a list.")
        assert model.tokenizer.decode(tokens[0, 1:]) == "The function returns a list."
        assert interp.perplexity(model, "The function returns a list.").values[0, 0] < 5.95, "better than a guess"


@pytest.mark.parametrize("name", TOKEN_MODELS)
def test_recorded_validation_loss_comes_out_again(name: str) -> None:
    config = build(RunConfig, _read_config(BUNDLED / name))
    validation = load_data(config.data).validation[: config.train.eval_sequences]
    measured = interp.run(interp.load_model(name), validation, [TokenLoss()])["loss"].item()
    assert measured == pytest.approx(read_metrics(BUNDLED / name)[-1]["validation_loss"], abs=1e-5)


def test_known_scores() -> None:
    best = {name: interp.induction_scores(interp.load_model(name), period=6).values.max().item() for name in TOKEN_MODELS}
    assert best["conv-attn"] > 0.95
    assert best["smeared-key-attn"] > 0.9
    assert best["attn-attn-supplied"] > 0.7
    assert best["attn-attn"] < 0.2


def test_a_mistyped_name_names_the_right_one() -> None:
    with pytest.raises(ModelError, match="conv-attn"):
        interp.load_model("conv_attn")
