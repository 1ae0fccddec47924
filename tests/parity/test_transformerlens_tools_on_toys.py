"""TransformerLens' own tools work on the toys, and give what the same thing done by hand gives."""

import pytest
import torch
from transformer_lens import ActivationCache, patching
from transformer_lens.head_detector import detect_head

import interp
from interp.models import AttnAttn, ConvAttn, SmearedKeyAttn, Toy

D_VOCAB, D_MODEL, POS = 31, 18, 7
TOYS = [
    ConvAttn(d_vocab=D_VOCAB, d_model=D_MODEL),
    ConvAttn(d_vocab=D_VOCAB, d_model=D_MODEL, n_heads=3, residual=True, kernel=5),
    AttnAttn(d_vocab=D_VOCAB, d_model=D_MODEL, n_heads=2, positions=True),
    SmearedKeyAttn(d_vocab=D_VOCAB, d_model=D_MODEL, n_heads=3, residual=True),
]


def metric(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, -1, 3].sum() - logits[:, -1, 5].sum()


@pytest.fixture(params=TOYS, ids=lambda toy: type(toy).__name__)
def toy(request: pytest.FixtureRequest) -> Toy:
    return request.param.eval()


def tokens(seed: int) -> torch.Tensor:
    return torch.randint(0, D_VOCAB, (2, POS), generator=torch.Generator().manual_seed(seed))


def test_run_with_cache_gives_an_activation_cache(toy: Toy) -> None:
    logits, cache = toy.run_with_cache(tokens(0))
    assert isinstance(cache, ActivationCache)
    assert torch.equal(logits, toy(tokens(0)))
    assert cache["pattern", 0].shape == (2, toy.cfg.n_heads, POS, POS)
    torch.testing.assert_close(cache["pattern", 0].sum(-1), torch.ones(2, toy.cfg.n_heads, POS))
    _, single = toy.run_with_cache(tokens(0)[:1], remove_batch_dim=True)
    assert single["q", 0].shape == (POS, toy.cfg.n_heads, toy.cfg.d_head)
    _, plain = toy.run_with_cache(tokens(0), return_cache_object=False)
    assert isinstance(plain, dict)


def test_heads_written_through_w_o_sum_to_the_layer(toy: Toy) -> None:
    _, cache = toy.run_with_cache(tokens(0))
    per_head = torch.einsum("bphe,hed->bphd", cache["z", 0], toy.blocks[0].attn.W_O)
    torch.testing.assert_close(per_head.sum(2), cache["attn_out", 0])


def test_patching_equals_a_hook_by_hand(toy: Toy) -> None:
    _, clean = toy.run_with_cache(tokens(0))
    found = patching.get_act_patch_resid_pre(toy, tokens(1), clean, metric)
    heads = patching.get_act_patch_attn_head_out_all_pos(toy, tokens(1), clean, metric)
    for layer in range(toy.cfg.n_layers):

        def patch(x: torch.Tensor, hook: object, layer: int = layer) -> torch.Tensor:
            return torch.cat([x[:, :3], clean["resid_pre", layer][:, 3:4], x[:, 4:]], dim=1)

        by_hand = toy.run_with_hooks(tokens(1), fwd_hooks=[(f"blocks.{layer}.hook_resid_pre", patch)])
        assert found[layer, 3].item() == pytest.approx(metric(by_hand).item(), abs=1e-5)
    assert heads.shape == (toy.cfg.n_layers, toy.cfg.n_heads)


def test_the_head_detector_runs(toy: Toy) -> None:
    repeats = interp.repeated_tokens(toy, n_sequences=1, period=6)
    assert detect_head(toy, repeats, "induction_head").shape == (toy.cfg.n_layers, toy.cfg.n_heads)


def test_the_convolution_has_a_hook_and_a_site() -> None:
    toy = TOYS[0]
    zeroed = toy.run_with_hooks(tokens(0), fwd_hooks=[("hook_conv", lambda x, hook: torch.zeros_like(x))])
    torch.testing.assert_close(
        zeroed, toy.unembed.bias.expand(2, POS, D_VOCAB), msg="without residual nothing else reaches the output"
    )
    assert interp.audit(toy)[interp.Site("conv")].writable
