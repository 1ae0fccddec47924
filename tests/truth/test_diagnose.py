"""`interp.diagnose` on bugs that were planted and on models that are right: both must come out, with the right evidence."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import interp
from experiments.debug_encoder.planted import BUGS, build, language_model
from interp.errors import DataError, InterpError, ModelError
from interp.models.encoder import Encoder, EncoderConfig
from interp.probes.health import diagnose, watched
from interp.probes.health_checks import CHECKS
from tests.models.zoo import BUILDERS, KINDS_OF_MODEL, OwnModel, tokens, zoo

CONFIG = EncoderConfig(d_vocab=53, d_model=32, n_heads=2, n_ctx=24)
SEEDS = (0, 1)


def batch(padded: bool = True, n: int = 12) -> Tensor:
    ids = tokens(n, 17, seed=7)
    for row in range(0, n, 2):
        ids[row, 6 + row // 2 :] = 0 if padded else ids[row, 6 + row // 2 :]
    return ids


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_every_planted_bug_is_found(bug) -> None:  # noqa: ANN001
    for seed in SEEDS:
        found = diagnose(build(bug.name, CONFIG, seed), batch(padded=not bug.causal))
        assert set(found.found) & set(bug.expected), str(found)
        told = next(found.finding(name) for name in bug.expected if name in found.found)
        assert told.evidence and told.cause and told.where


@pytest.mark.parametrize(
    "change", [{}, {"mask": "-1e9"}, {"norm": "post"}, {"activation": "relu"}, {"n_layers": 6, "dropout": 0.2}], ids=str
)
def test_no_healthy_encoder_is_blamed(change: dict) -> None:
    for seed in SEEDS:
        found = diagnose(build("correct", replace(CONFIG, **change), seed), batch())
        assert found.healthy, str(found)
        assert "mass on padding" in found.measured and "dead units" in found.measured


@pytest.mark.parametrize("name", KINDS_OF_MODEL)
def test_no_healthy_model_of_any_kind_is_blamed(name: str) -> None:
    found = diagnose(zoo(name), tokens(8, 17))
    assert found.healthy, str(found)
    assert len(found.measured) >= 10, "the checks did look"


@pytest.mark.parametrize("name", interp.bundled_models())
def test_no_trained_model_is_blamed(name: str) -> None:
    model = interp.load_model(name)
    ids = torch.randint(1, model.cfg.d_vocab, (6, 20), generator=torch.Generator().manual_seed(3))
    assert diagnose(model, ids).healthy


def test_causes_tell_bugs_apart() -> None:
    def cause(bug: str, check: str, padded: bool = True) -> str:
        finding = diagnose(build(bug, CONFIG, 3), batch(padded)).finding(check)
        assert finding is not None
        return finding.cause

    assert "polarity" in cause("padding mask reversed", "mass on padding")
    assert "no padding mask" in cause("padding mask missing", "mass on padding")
    assert "queries" in cause("softmax over queries", "rows do not sum to 1")
    assert "heads" in cause("softmax over heads", "rows do not sum to 1")
    assert "transposed" in cause("causal mask transposed", "attention to the future", padded=False)
    assert "missing" in cause("causal mask missing", "attention to the future", padded=False)
    assert "keys are all masked" in cause("padding mask reversed, −inf", "not finite")


def test_numbers_are_those_worked_out_by_hand() -> None:
    model = build("correct", CONFIG, 0)
    for block in model.blocks:
        block.attn.hide_padding = lambda scores, real: torch.zeros_like(scores)  # uniform over all 10 keys
    ids = tokens(8, 10)
    ids[:4, 7:] = 0
    found = diagnose(model, ids)
    assert found.measured["mass on padding"].values.flatten().tolist() == pytest.approx([0.3] * 4)
    assert found.finding("mass on padding").where == "layer 0, all heads; layer 1, all heads"
    assert {"mass on padding", "attention is uniform"} == set(found.found)
    scaled = diagnose(build("scale missing", CONFIG, 0), batch())
    assert scaled.measured["scale of the scores"].values.flatten().tolist() == pytest.approx([4.0] * 4, rel=1e-3)
    twice = diagnose(build("stream added twice", CONFIG, 0), batch())
    assert twice.measured["stream is rescaled"].values.tolist() == pytest.approx([2.0, 2.0], rel=1e-4)


def test_one_broken_layer_is_located() -> None:
    model = build("correct", replace(CONFIG, n_layers=3), 0)
    model.blocks[1].after_attention = lambda x, attn_out: attn_out
    found = diagnose(model, batch())
    assert found.found == ("residual path",)
    assert found.finding("residual path").where == "layer 1"
    assert found.measured["residual path"].values[[0, 2]].tolist() == pytest.approx([1.0, 1.0])
    model = build("correct", CONFIG, 0)
    model.blocks[1].attn.W_K.data[1] = 0
    assert diagnose(model, batch()).finding("attention is uniform").where == "layer 1, head 1"


@pytest.mark.parametrize("name", ["gpt2", "conv-attn", "own"])
def test_the_model_is_left_as_it_was(name: str) -> None:
    model = BUILDERS[name]()
    model.train()
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    modes = {module: module.training for module in model.modules()}
    next(model.parameters()).grad = torch.ones_like(next(model.parameters()))
    state = torch.get_rng_state()
    diagnose(model, tokens(4, 9))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in weights.items())
    assert modes == {module: module.training for module in model.modules()}
    assert bool((next(model.parameters()).grad == 1).all()) and sum(p.grad is not None for p in model.parameters()) == 1
    assert not any(point._forward_hooks for point in model.hook_dict.values())


def test_frozen_models_and_disabled_gradients_are_diagnosed_alike() -> None:
    model = build("residual missing", CONFIG, 0)
    expected = diagnose(model, batch())
    model.requires_grad_(False)
    with torch.no_grad():
        assert diagnose(model, batch()).found == expected.found
    with torch.inference_mode():
        assert diagnose(model, batch()).found == expected.found
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        assert diagnose(build("correct", CONFIG, 0).to(dtype), batch()).healthy
        assert "residual path" in diagnose(build("residual missing", CONFIG, 0).to(dtype), batch()).found


def test_a_training_step_is_listened_to() -> None:
    model = build("padding mask reversed", replace(CONFIG, dropout=0.1), 0).train()
    ids = batch()
    with watched(model, ids) as watch:
        with pytest.raises(InterpError, match="not called"):
            watch.diagnosis()
        nn.functional.cross_entropy(model(ids), torch.zeros(len(ids), dtype=torch.long)).backward()
        told = watch.diagnosis()
    assert "mass on padding" in told.found
    assert "gradients vanish or explode" in told.measured
    assert "dropout is on" in told.skipped["rows do not sum to 1"]
    assert "residual path" in told.skipped
    assert not any(point._forward_hooks for point in model.hook_dict.values())
    cut = build("gradient cut", CONFIG, 0)
    with watched(cut, ids) as watch:
        cut(ids).sum().backward()
    assert "not finite" in watch.diagnosis().measured


def test_padding_is_told_or_refused() -> None:
    ids = batch()
    model = build("correct", CONFIG, 0)
    left = ids.flip(1)
    assert diagnose(model, left).healthy, "the model's own pad_id counts on either side"
    assert diagnose(model, left, mask=left != 0).healthy
    causal = language_model()(CONFIG).eval()
    assert "mass on padding" in diagnose(causal, ids, pad_id=0).measured
    with pytest.raises(DataError, match="both mask and pad_id"):
        diagnose(model, ids, pad_id=0, mask=ids != 0)
    with pytest.raises(DataError, match="the mask has shape"):
        diagnose(model, ids, mask=torch.ones(2, 2, dtype=torch.bool))
    with pytest.raises(DataError, match="nothing but padding"):
        diagnose(model, torch.zeros(2, 5, dtype=torch.long))


def test_what_cannot_be_looked_at_is_not_called_passed() -> None:
    own = OwnModel().eval()
    found = diagnose(own, tokens(1, 2))
    assert found.skipped["attention to the future"] == "nothing says that the model is causal"
    assert found.skipped["mass on padding"] == "no token of this batch is padding"
    assert "attention to the future" in diagnose(own, tokens(3, 5), causal=True).measured
    verdicts = dict(zip(*[found.to_frame()[column] for column in ("check", "verdict")], strict=True))
    assert verdicts["mass on padding"] == "not applicable" and len(verdicts) == len(CHECKS)
    assert "residual path" in diagnose(zoo("attn-attn"), tokens(), residual=True).found, "it has none, by design"
    single = diagnose(zoo("gpt2"), tokens(1, 1))
    assert single.healthy and "attention is uniform" in single.skipped


@pytest.mark.usefixtures("unchecked")
def test_mistakes_are_told() -> None:
    model = build("correct", CONFIG, 0)
    with pytest.raises(InterpError, match="Did you mean 'dead units'"):
        diagnose(model, batch()).finding("dead unit")
    with pytest.raises(InterpError, match="Return a tensor without axes"):
        diagnose(model, batch(), loss=lambda logits: logits)
    with pytest.raises(ModelError):
        diagnose(nn.Linear(2, 2), batch())  # type: ignore[arg-type]
    broken = build("correct", CONFIG, 0)
    broken.unembed.bias.data.fill_(torch.nan)
    told = diagnose(broken, batch())
    assert told.finding("not finite").where == "logits"
    assert "<b>" in told._repr_html_() and "not finite" in str(told)


def test_checks_state_limit_and_reason() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS) == 15
    assert all(check.rule and check.reason for check in CHECKS)


def test_hugging_face_classifiers_are_diagnosed_through_hook_points() -> None:
    import transformers as hf

    from experiments.debug_encoder.train import with_sites

    torch.manual_seed(0)
    shape = {"vocab_size": 53, "dim": 24, "n_layers": 2, "n_heads": 4, "hidden_dim": 40, "max_position_embeddings": 24}
    model = hf.DistilBertForSequenceClassification(
        hf.DistilBertConfig(**shape, pad_token_id=0, attn_implementation="eager")
    ).eval()
    found = diagnose(with_sites(model, 0), batch(), pad_id=0)
    assert found.healthy, str(found)
    assert float(found.measured["mass on padding"].values.max()) == 0
    unmasked = with_sites(model, 52)  # a wrong padding id: nothing is hidden
    assert "mass on padding" in diagnose(unmasked, batch(), pad_id=0).found
    model.distilbert.transformer.layer[1].ffn.dropout.train()
    assert "dropout on in eval" in diagnose(with_sites(model, 0), batch(), pad_id=0).found


def test_an_encoder_is_an_ordinary_model_for_the_other_probes() -> None:
    model = Encoder(CONFIG).eval()
    assert interp.attention_patterns(model, batch()).values.shape == (2, 2, 17, 17)
