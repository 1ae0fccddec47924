"""Registered architectures: named by a configuration, saved and opened, probed; and the worked examples that change one thing."""

import json
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

import interp
from experiments.worked_examples.model_relu_after_first import ReluAfterFirst
from experiments.worked_examples.model_scaled_scores import ScaledScores
from experiments.worked_examples.model_scaled_when_seen import ScaledWhenSeen
from experiments.worked_examples.model_squared_activation import SquaredActivation
from interp.config import as_dict, build, describe_fields, override, setting, settings
from interp.errors import ConfigError, ModelError, RunFolderError, SiteError
from interp.models import (
    ARCHITECTURES,
    ConvAttnConfig,
    ModelConfig,
    Recurrent,
    RecurrentConfig,
    StateSpace,
    Transformer,
    TransformerConfig,
    architecture,
    build_model,
    load_model,
)
from interp.models.saved import save_model
from interp.sites import OUTPUT, Site
from tests.models.zoo import Edits, read

SHAPE: dict[str, Any] = {"d_vocab": 31, "d_model": 24, "n_layers": 2, "n_ctx": 53}
BUILT_IN = ("conv_attn", "attn_attn", "smeared_key_attn", "transformer", "recurrent", "state_space")


def tokens(seed: int = 0) -> Tensor:
    return torch.randint(1, 31, (3, 9), generator=torch.Generator().manual_seed(seed))


@settings
class Run:
    model: ModelConfig = setting(ConvAttnConfig(), "architecture")


def test_every_kind_is_registered_and_explained() -> None:
    assert set(BUILT_IN) <= set(ARCHITECTURES)
    for config in ARCHITECTURES.classes:
        assert [name for name, _, text in describe_fields(config()) if not text and name != "kind"] == []


@pytest.mark.parametrize("kind", [*BUILT_IN, "relu_after_first", "squared_activation", "scaled_scores", "scaled_when_seen"])
def test_named_by_a_config_built_saved_and_opened(kind: str, tmp_path: Path) -> None:
    config = build(Run, {"model": {"kind": kind, **SHAPE}}).model
    model, again = build_model(config, seed=5), build_model(config, seed=5)
    other = build_model(config, seed=6)
    before = torch.random.get_rng_state()
    assert type(model).__name__.lower() == kind.replace("_", "") and not model.training
    assert torch.equal(model(tokens()), again(tokens())) and not torch.equal(model(tokens()), other(tokens()))
    save_model(model, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model"] == as_dict(config)
    opened: Any = load_model(tmp_path)
    assert type(opened) is type(model) and opened.config == config
    assert torch.equal(opened(tokens()), model(tokens()))
    assert torch.equal(before, torch.random.get_rng_state())
    assert interp.perplexity(opened, tokens()).values.isfinite().all()


def test_tied_weights_are_saved_once_and_stay_tied(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    model = build_model(TransformerConfig(**SHAPE, tied=True))
    save_model(model, tmp_path)
    assert not [name for name in load_file(tmp_path / "model.safetensors") if name.startswith("unembed.weight")]
    opened: Any = load_model(tmp_path)
    assert opened.unembed.weight is opened.embed.weight
    assert torch.equal(opened(tokens()), model(tokens()))


def test_an_architecture_of_a_notebook(tmp_path: Path) -> None:
    def cell() -> type[Transformer]:
        @settings
        class NotebookConfig(TransformerConfig):
            kind: Literal["of_a_notebook"] = "of_a_notebook"  # type: ignore[assignment]

        @architecture
        class Notebook(Transformer):
            config_class = NotebookConfig

            def mix(self, x: Tensor) -> Tensor:
                return 2 * super().mix(x)

        return Notebook

    try:
        cell()
        kind = cell()  # the cell is run twice
        model = build_model(override(Run(model=kind.config_class(**SHAPE)), ["model.n_heads=2"]).model)
        assert type(model) is kind and model.config.n_heads == 2
        save_model(model, tmp_path)
        assert torch.equal(load_model(tmp_path)(tokens()), model(tokens()))
    finally:
        ARCHITECTURES._classes.pop("of_a_notebook", None)
    with pytest.raises(RunFolderError, match="of kind 'of_a_notebook', and the kinds are .*transformer.*Import the module"):
        load_model(tmp_path)


def test_registering_needs_a_settings_class_of_its_own() -> None:
    with pytest.raises(ConfigError, match=r"Thief.* TransformerConfig are those of Transformer.* kind of its own"):

        @architecture
        class Thief(Transformer):
            pass

    @settings
    class SameKindConfig(TransformerConfig):
        """Says nothing of a kind."""

    with pytest.raises(ConfigError, match="TransformerConfig has this kind already"):

        @architecture
        class SameKind(Transformer):
            config_class = SameKindConfig

    assert TransformerConfig.model_class is Transformer and ARCHITECTURES["transformer"] is TransformerConfig
    with pytest.raises(ModelError, match="given a SameKindConfig"):
        build_model(SameKindConfig(**SHAPE))
    with pytest.raises(ConfigError, match="no architecture of kind 'transfomer'. Did you mean 'transformer'"):
        build(Run, {"model": {"kind": "transfomer"}})


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (TransformerConfig, {"n_heads": 3}, "d_model 64 is not a multiple of n_heads 3"),
        (TransformerConfig, {"positions": "rotary", "d_head": 5}, "heads have 5: make that even"),
        (
            TransformerConfig,
            {"positions": "rotary", "d_head": 10, "rotary_share": 0.5},
            "0.5 of 10 entries is not a whole number of pairs: take a multiple of 0.2",
        ),
        (TransformerConfig, {"positions": "rotary", "d_head": 10, "rotary_share": 0.05}, "is not a whole number of pairs"),
        (TransformerConfig, {"rotary_share": 0.5}, "rotary_share acts only on rotary positions"),
        (TransformerConfig, {"positions": "sinusoidal", "d_model": 25, "d_head": 5}, "d_model 25 is odd"),
        (TransformerConfig, {"mlp": False, "gated": True}, "act only on a feed-forward layer"),
        (TransformerConfig, {"mlp": False, "d_mlp": 7}, "act only on a feed-forward layer"),
        (TransformerConfig, {"norm": "none", "norm_kind": "rms"}, "norm_kind acts only where there are norms"),
        (TransformerConfig, {"dropout": 1.0}, "dropout.*less than 1"),
        (TransformerConfig, {"positons": "none"}, "Did you mean 'positions'"),
        (RecurrentConfig, {"positions": "rotary"}, "positions.*'learned', 'sinusoidal' or 'none'"),
        (RecurrentConfig, {"cell": "rnn"}, "cell.*'gru' or 'lstm'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(config: type, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**options)


@pytest.mark.parametrize(("kind", "state"), [(Recurrent, "rnn"), (StateSpace, "ssm")])
def test_probes_without_attention_run_and_the_others_say_why_not(kind: type, state: str) -> None:
    torch.manual_seed(0)
    model = kind(**(SHAPE | {"n_ctx": 101}), d_state=10).eval()
    ids = interp.repeated_tokens(model, n_sequences=3, period=7)
    assert interp.repeat_loss(model, ids, 7).values.isfinite().all()
    assert interp.in_context_learning(model, ids, early=3, late=12, window=3).values.isfinite().all()
    assert interp.residual_embeddings(model, ids).values.shape == (3, 3, 15, 24)
    site = Site(f"blocks.0.{state}.hook_state")
    clean, edited = (read(model, OUTPUT, site, edits=edits, ids=ids) for edits in ([], [Edits(torch.zeros_like, site)]))
    assert not torch.allclose(clean[OUTPUT], edited[OUTPUT], atol=1e-3) and not edited[site].any()
    for probe in (interp.head_scores, interp.key_smear):
        with pytest.raises(SiteError, match=r"has no '(pattern|k|q)'.*Kinds here: embed, resid_pre"):
            probe(model)
    with pytest.raises(SiteError, match="has no 'z'"), interp.ablated(model, heads=[(0, 1)]):
        pass


def same_weights(kind: type[Transformer], **options: Any) -> tuple[Any, Any]:
    """A plain transformer and one of `kind` with its weights."""
    plain = build_model(TransformerConfig(**SHAPE), seed=1)
    changed = build_model(kind.config_class(**SHAPE, **options))
    changed.load_state_dict(plain.state_dict())
    return plain, changed


def test_a_relu_after_the_first_layer() -> None:
    plain, changed = same_weights(ReluAfterFirst)
    first, second = Site("resid_post", 0), Site("resid_pre", 1)
    found = read(changed, first, second, ids=tokens())
    assert torch.equal(found[first], read(plain, first, ids=tokens())[first].relu())
    assert torch.equal(found[second], found[first])
    by_hand = plain.run_with_hooks(tokens(), fwd_hooks=[("blocks.0.hook_resid_post", lambda x, hook: x.relu())])
    assert torch.equal(changed(tokens()), by_hand)
    post = build_model(ReluAfterFirst.config_class(**SHAPE, norm="post"))
    assert read(post, first, ids=tokens())[first].min() == 0, "after a norm too"


def test_squared_activations() -> None:
    plain, changed = same_weights(SquaredActivation)
    before, after = Site("mlp_pre", 0), Site("mlp_post", 0)
    found = read(changed, before, after, ids=tokens())
    assert torch.equal(found[after], nn.functional.gelu(found[before]).square())
    assert torch.equal(found[before], read(plain, before, ids=tokens())[before])


def test_scaled_scores() -> None:
    plain, changed = same_weights(ScaledScores, factor=3.0)
    scores = [Site("attn_scores", layer) for layer in range(2)]
    seen = read(changed, scores[0], ids=tokens())[scores[0]].tril()
    torch.testing.assert_close(seen, 3 * read(plain, scores[0], ids=tokens())[scores[0]].tril())
    by_hand = plain.run_with_hooks(tokens(), fwd_hooks=[(site.hook_name, lambda x, hook: 3 * x) for site in scores])
    torch.testing.assert_close(changed(tokens()), by_hand)
    assert not torch.allclose(changed(tokens()), plain(tokens()))


def test_scores_scaled_when_a_token_is_there() -> None:
    plain, always = same_weights(ScaledScores, factor=3.0)
    _, sometimes = same_weights(ScaledWhenSeen, factor=3.0, token=0)
    with_it, without = tokens(), tokens()
    with_it[1, 4] = 0
    assert torch.equal(sometimes(with_it), always(with_it)) and not torch.allclose(sometimes(with_it), plain(with_it))
    assert torch.equal(sometimes(without), plain(without)), "and the next batch is as if nothing had been"
    assert torch.equal(read(sometimes, OUTPUT, ids=with_it)[OUTPUT], always(with_it))


@pytest.mark.parametrize("kind", [ReluAfterFirst, SquaredActivation, ScaledScores, ScaledWhenSeen])
def test_the_worked_examples_learn_and_every_parameter_has_a_gradient(kind: type[Transformer]) -> None:
    model = build_model(kind.config_class(**SHAPE)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss = nn.functional.cross_entropy(model(tokens()[:, :-1]).flatten(0, 1), tokens()[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    assert losses[-1] < losses[0] / 2
    assert all(parameter.grad is not None for parameter in model.parameters())
