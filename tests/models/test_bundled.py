"""The bundled models open without a network and are what their folders say they are."""

import json

import pytest
import torch

import interp
from experiments import bundle_models
from interp.config import build
from interp.data import load_data
from interp.errors import ModelError, RunFolderError
from interp.models.opening import BUNDLED
from interp.models.saved import _read_config
from interp.probes import TokenLoss
from interp.provenance import weights_hash
from interp.training import RunConfig, kept_checkpoints, open_checkpoint, read_metrics, read_provenance

LANGUAGE = "attn-only-2l"
TOKEN_MODELS = [name for name in interp.bundled_models() if not name.endswith("-text") and name != LANGUAGE]


def test_there_are_some_and_they_are_small() -> None:
    assert {"conv-attn", "attn-attn", "smeared-key-attn", "attn-attn-supplied"} <= set(interp.bundled_models())
    assert sum(file.stat().st_size for file in BUNDLED.rglob("*") if file.is_file()) < 9_000_000


@pytest.mark.parametrize("name", interp.bundled_models())
def test_weights_are_the_recorded_ones(name: str) -> None:
    model = interp.load_model(name)
    assert weights_hash(model) == read_provenance(BUNDLED / name).weights
    if model.tokenizer is not None:
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


@pytest.mark.parametrize("name", interp.bundled_models())
def test_the_card_says_what_is_measured(name: str) -> None:
    folder = BUNDLED / name
    told = json.loads((folder / bundle_models.SCORES).read_text(encoding="utf-8"))
    found = bundle_models.measured(folder)
    assert [row["what"] for row in found] == [row["what"] for row in told]
    for row, said in zip(found, told, strict=True):
        for part in ("value", "stderr", "baseline"):
            assert row[part] == (said[part] if said[part] is None else pytest.approx(said[part], abs=2e-4)), row["what"]
    assert (folder / bundle_models.CARD).read_text(encoding="utf-8") == bundle_models.card(folder, told)


def test_the_list_names_all() -> None:
    names = interp.bundled_models()
    assert (BUNDLED / bundle_models.CARD).read_text(encoding="utf-8") == bundle_models.overview(BUNDLED, names)


def test_the_language_model_went_through_a_phase_change() -> None:
    steps = kept_checkpoints(LANGUAGE)
    assert steps[0] == 0
    assert len(steps) >= 6
    models = {step: open_checkpoint(LANGUAGE, step) for step in steps}
    assert weights_hash(models[steps[-1]]) == read_provenance(BUNDLED / LANGUAGE).weights
    tokens = interp.repeated_tokens(models[0], n_sequences=16, period=25, seed=5)
    scores = {step: interp.induction_scores(model, tokens, period=25) for step, model in models.items()}
    best = torch.stack([score.values.max() for score in scores.values()])
    uniform = float(torch.as_tensor(scores[0].baseline).flatten()[0])
    assert best[0] < 2 * uniform
    assert best[-1] > 5 * uniform
    layer, head = divmod(int(scores[steps[-1]].values.argmax()), 4)
    assert layer == 1
    losses = {step: interp.repeat_loss(model, tokens, 25).values for step, model in models.items()}
    assert abs(losses[0][2]) < 0.1
    assert losses[steps[-1]][2] > 1.5
    with interp.ablated(models[steps[-1]], heads=[(layer, head)], mode="mean"):
        assert interp.repeat_loss(models[steps[-1]], tokens, 25).values[2] < 0.5 * losses[steps[-1]][2]
    assert models[0].tokenizer.decode(models[0].to_tokens("The list is empty.")[0, 1:]) == "The list is empty."


def test_a_checkpoint_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(RunFolderError, match="the steps kept are 0, .* Did you mean 2000"):
        open_checkpoint(LANGUAGE, 1999)
    with pytest.raises(RunFolderError, match="Did you mean 'attn-only-2l'"):
        open_checkpoint("attn-only-2", 0)
    with pytest.raises(RunFolderError, match="Did you mean 'attn-only-2l'"):
        kept_checkpoints("attn_only_2l")


def test_a_mistyped_name_names_the_right_one() -> None:
    with pytest.raises(ModelError, match="conv-attn"):
        interp.load_model("conv_attn")
