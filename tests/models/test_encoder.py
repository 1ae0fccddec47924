"""The encoder: its attention against a slow loop, padding that is never seen, hook points that work."""

import math

import pytest
import torch
from torch import nn

import interp
from interp import Site
from interp.errors import ConfigError, DataError, ModelError
from interp.models import Output, hooked
from interp.models.encoder import Encoder, EncoderConfig, PadAware, PaddedAttention, padding_mask
from tests.models.zoo import Edits, read, tokens


def encoder(**changes: object) -> Encoder:
    torch.manual_seed(0)
    return Encoder(**{"d_vocab": 53, "d_model": 24, "n_heads": 3, "n_ctx": 20, "n_classes": 5, **changes}).eval()


def test_attention_equals_a_slow_loop() -> None:
    torch.manual_seed(1)
    attention = PaddedAttention(12, 3).double()
    for bias in (attention.b_Q, attention.b_K, attention.b_V, attention.b_O):
        nn.init.normal_(bias)
    attention.requires_grad_(False)
    x, real = torch.randn(2, 5, 12, dtype=torch.float64), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]).bool()
    context, weights = attention(x, real)
    assert context.shape == (2, 5, 12) and weights.shape == (2, 3, 5, 5)
    for b in range(2):
        for i in range(5):
            out = attention.b_O.clone()
            for h in range(3):
                q, keys = x[b, i] @ attention.W_Q[h] + attention.b_Q[h], [j for j in range(5) if real[b, j]]
                scores = [float(q @ (x[b, j] @ attention.W_K[h] + attention.b_K[h])) / math.sqrt(4) for j in keys]
                total = sum(map(math.exp, scores))
                for j, score in zip(keys, scores, strict=True):
                    share = math.exp(score) / total
                    assert float(weights[b, h, i, j]) == pytest.approx(share, rel=1e-9)
                    out = out + share * (x[b, j] @ attention.W_V[h] + attention.b_V[h]) @ attention.W_O[h]
            torch.testing.assert_close(context[b, i], out)
    assert not weights[1, :, :, 3:].any()


def test_the_mask_hides_keys_and_not_queries() -> None:
    scores, real = torch.zeros(1, 2, 3, 3), torch.tensor([[True, False, True]])
    assert padding_mask(scores, real, -1e9)[0, :, 0].tolist() == [[0, -1e9, 0]] * 2
    assert padding_mask(scores, ~real, -torch.inf).isinf().sum() == 2 * 3 * 2


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("mask", ["-inf", "-1e9"])
def test_logits_do_not_depend_on_padding(norm: str, mask: str) -> None:
    model, ids = encoder(norm=norm, mask=mask), tokens(3, 7)
    wide = nn.functional.pad(ids, (0, 6), value=0)
    torch.testing.assert_close(model(wide), model(ids))
    model.embed.weight.data[0] = 1e4  # whatever padding is embedded as
    torch.testing.assert_close(model(wide), model(ids))


def test_both_fills_give_the_same_logits() -> None:
    ids = tokens(3, 9)
    ids[0, 4:] = 0
    assert torch.equal(encoder(mask="-inf")(ids), encoder(mask="-1e9")(ids))


def test_every_site_can_be_read_and_written() -> None:
    model, ids = encoder(), tokens(3, 9)
    assert model(ids).shape == (3, 5)
    wanted = {
        "resid_pre",
        "resid_mid",
        "resid_post",
        "attn_out",
        "mlp_out",
        "q",
        "k",
        "v",
        "attn_scores",
        "pattern",
        "z",
        "mlp_post",
    }
    for kind in wanted:
        changed = read(model, Site("logits"), edits=[Edits(lambda x: x * 1.5, Site(kind, 0))], ids=ids)[Site("logits")]
        assert not torch.equal(changed, model(ids)), kind


def test_the_stream_is_the_sum_of_its_parts() -> None:
    model, ids = encoder(), tokens(2, 6)
    sites = [Site(kind, layer) for layer in range(2) for kind in ("attn_out", "mlp_out")]
    found = read(model, Site("resid_pre", 0), Site("resid_post", 1), *sites, ids=ids)
    total = found[Site("resid_pre", 0)] + sum(found[site] for site in sites)
    torch.testing.assert_close(found[Site("resid_post", 1)], total)


def test_heads_can_be_ablated() -> None:
    model, ids = encoder(), tokens(2, 6)
    with interp.ablated(model, heads=[(0, 1)], mode="zero"):
        without = model(ids)
    model.blocks[0].attn.W_O.data[1] = 0
    torch.testing.assert_close(model(ids), without)


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="not a multiple"):
        EncoderConfig(d_model=10, n_heads=3)
    with pytest.raises(ConfigError, match="outside the vocabulary"):
        EncoderConfig(d_vocab=5, pad_id=5)
    with pytest.raises(ConfigError, match="d_modl"):
        Encoder(d_modl=10)
    with pytest.raises(ModelError, match="both a config"):
        Encoder(EncoderConfig(), d_model=8)
    with pytest.raises(DataError, match="nothing but padding"):
        encoder()(torch.zeros(1, 4, dtype=torch.long))


def test_dropout_acts_in_training_alone() -> None:
    model, ids = encoder(dropout=0.5), tokens(2, 6)
    assert torch.equal(model(ids), model(ids))
    model.train()
    assert not torch.equal(model(ids), model(ids))


def test_a_module_is_given_the_mask_of_its_padding() -> None:
    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.config = nn.Embedding(9, 4), None

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            return self.embed(input_ids).sum((1, 2), keepdim=True)[:, 0] * attention_mask.sum(1, keepdim=True)

    ids = torch.tensor([[3, 2, 7, 7]])
    model = hooked(PadAware(Module(), 7), {"embed": Output("module.embed")})
    torch.testing.assert_close(model(ids)[0, 0], 2 * model.wrapped.module.embed(ids).sum())
