"""Sites found by watching: in classifiers of several families they hold what their names say, and bugs are seen through them."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from interp.errors import ModelError
from interp.models import PadAware, find_sites, hooked
from interp.probes.health import diagnose
from interp.sites import Site
from tests.models.zoo import read

N_IDS, LENGTH = 53, 18
SHAPE = {"vocab_size": N_IDS, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40}
EAGER = {"max_position_embeddings": 24, "attn_implementation": "eager"}
ENDS = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}


def classifier(kind: str) -> Any:
    import transformers as hf

    configs: dict[str, Any] = {
        "Bert": hf.BertConfig(**SHAPE, **EAGER),
        "Roberta": hf.RobertaConfig(**SHAPE, **EAGER, pad_token_id=0),
        "DistilBert": hf.DistilBertConfig(
            vocab_size=N_IDS,
            dim=24,
            n_layers=2,
            n_heads=4,
            hidden_dim=40,
            max_position_embeddings=24,
            attn_implementation="eager",
        ),
        "GPT2": hf.GPT2Config(
            vocab_size=N_IDS, n_positions=24, n_embd=24, n_layer=2, n_head=4, n_inner=40, attn_implementation="eager", **ENDS
        ),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return getattr(hf, f"{kind}ForSequenceClassification")(configs[kind]).eval()


def tokens() -> Tensor:
    rows = torch.randint(1, N_IDS, (12, LENGTH), generator=torch.Generator().manual_seed(0))
    rows[::2, 11:] = 0
    return rows


@pytest.mark.parametrize("kind", ["Bert", "Roberta", "DistilBert", "GPT2"])
def test_the_sites_are_what_their_names_say(kind: str) -> None:
    visible = PadAware(classifier(kind), 0)
    model = hooked(visible, find_sites(visible, tokens()[:2]))
    names = ("resid_pre", "resid_post", "pattern", "z", "attn_out", "mlp_post", "mlp_out", "q", "k")
    sites = {(name, layer): Site(name, layer) for name in names for layer in (0, 1)}
    found = read(model, *sites.values(), ids=tokens()[1:5:2])
    kept = {key: found[site] for key, site in sites.items()}
    for layer in (0, 1):
        at = {name: kept[name, layer].float() for name in names}
        scores = torch.einsum("bqhe,bkhe->bhqk", at["q"], at["k"]) / 6**0.5
        if kind == "GPT2":
            scores = scores.masked_fill(torch.ones(LENGTH, LENGTH).triu(1).bool(), -torch.inf)
            torch.testing.assert_close(at["resid_pre"] + at["attn_out"] + at["mlp_out"], at["resid_post"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(scores.softmax(-1), at["pattern"], rtol=1e-4, atol=1e-5)
        assert at["z"].shape == (2, LENGTH, 4, 6)
        assert at["mlp_post"].shape == (2, LENGTH, 40)
    assert torch.equal(kept["resid_post", 0], kept["resid_pre", 1])
    named = {id(part): name for name, part in visible.named_modules()}
    assert not any(part._forward_hooks for part in visible.modules()), named
    diagnosis = diagnose(model, tokens(), pad_id=0)
    assert diagnosis.healthy, str(diagnosis)
    assert {"mass on padding", "residual path", "rows do not sum to 1", "dead units"}.isdisjoint(diagnosis.skipped)
    if kind != "GPT2":  # which never looks at what stands behind
        assert (
            "mass on padding"
            in diagnose(hooked(PadAware(classifier(kind), 52), find_sites(visible, tokens()[:2])), tokens(), pad_id=0).found
        )


class WithoutResidual(nn.Module):
    """BERT's attention output with the sum left out."""

    def __init__(self, right: Any):
        super().__init__()
        self.dense, self.LayerNorm = right.dense, right.LayerNorm

    def forward(self, hidden_states: Tensor, input_tensor: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(hidden_states))


def test_a_residual_left_out_of_bert_is_found() -> None:
    broken = classifier("Bert")
    broken.bert.encoder.layer[1].attention.output = WithoutResidual(broken.bert.encoder.layer[1].attention.output)
    visible = PadAware(broken, 0)
    diagnosis = diagnose(hooked(visible, find_sites(visible, tokens()[:2])), tokens(), pad_id=0)
    assert "residual path" in diagnosis.found, str(diagnosis)
    assert "1" in diagnosis.finding("residual path").where  # type: ignore[union-attr]


def test_what_cannot_be_made_out_says_why() -> None:
    import transformers as hf

    sdpa = hf.BertForSequenceClassification(hf.BertConfig(**SHAPE, max_position_embeddings=24, attn_implementation="sdpa"))
    with pytest.raises(ModelError, match="returns attention weights .*eager.*interp.hooked"):
        find_sites(PadAware(sdpa, 0), tokens())
    with pytest.raises(ModelError, match="it has no config, so how many layers to look for is not known"):
        find_sites(nn.Sequential(nn.Embedding(N_IDS, 4), nn.Linear(4, 2)), tokens())
    with pytest.raises(ModelError, match="on 30 tokens: it fails"):
        find_sites(PadAware(classifier("Bert"), 0), torch.ones(2, 30, dtype=torch.long))


def test_a_module_that_does_not_say_how_many_layers_it_has() -> None:
    with pytest.raises(
        ModelError, match="a Sequential: it has no config, so how many layers to look for is not known. Name them"
    ):
        find_sites(nn.Sequential(nn.Embedding(N_IDS, 8)), tokens()[:2])
    module = nn.Sequential(nn.Embedding(N_IDS, 8))
    module.config = type("OwnConfig", (), {"num_hidden_layers": 3})()  # type: ignore[assignment]
    with pytest.raises(ModelError, match="no list of modules has the 3 entries"):
        find_sites(module, tokens()[:2])
