"""Key smear and kernel statistics on models whose answer is set by hand."""

import math

import pytest
import torch

import interp
from interp.errors import DataError, ModelError
from interp.models import AttnAttn, ConvAttn, SmearedKeyAttn
from interp.probes import KeySmear
from interp.sites import Site

D_VOCAB, D_MODEL = 41, 12


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_a_set_share_is_recovered(share: float) -> None:
    model = SmearedKeyAttn(d_vocab=D_VOCAB, d_model=D_MODEL, n_heads=2)
    with torch.no_grad():
        model.blocks[0].attn.alpha[0] = torch.logit(torch.tensor(1 - share))  # ±inf at the ends is exact
        model.blocks[0].attn.alpha[1] = 1.5
    smear = interp.key_smear(model)
    other = 1 - 1 / (1 + math.exp(-1.5))
    torch.testing.assert_close(smear.values, torch.tensor([[share, other]], dtype=torch.float64), atol=1e-6, rtol=0)
    assert smear.stderr is not None
    assert smear.stderr.max() < 1e-6, "every example of a linear key gives the same share"


def test_a_plain_model_has_no_smear() -> None:
    smear = interp.key_smear(AttnAttn(d_vocab=D_VOCAB, d_model=D_MODEL))
    assert smear.values[0].item() == 0.0, "the first layer's key sees its own token only"


def test_wrong_lag_and_masked_tap_controls_fail() -> None:
    smeared = SmearedKeyAttn(d_vocab=D_VOCAB, d_model=D_MODEL)
    assert interp.key_smear(smeared).item() == pytest.approx(0.5, abs=1e-6)
    assert interp.key_smear(smeared, offset=-2).item() == 0.0
    assert interp.key_smear(ConvAttn(d_vocab=D_VOCAB, d_model=D_MODEL, masked_taps=(-1,))).item() == 0.0
    wide = ConvAttn(d_vocab=D_VOCAB, d_model=D_MODEL, kernel=5, masked_taps=(-1,))
    assert interp.key_smear(wide).item() == 0.0
    assert interp.key_smear(wide, offset=-2).item() > 0.2


def test_a_convolution_with_a_set_mixture() -> None:
    model = ConvAttn(d_vocab=D_VOCAB, d_model=D_MODEL)
    with torch.no_grad():
        model.conv.conv.weight[:, :, 0] = 0.3 * torch.eye(D_MODEL)
        model.conv.conv.weight[:, :, 1] = 0.7 * torch.eye(D_MODEL)
    assert interp.key_smear(model).item() == pytest.approx(0.3, abs=1e-6)


def test_a_key_that_never_moves_has_no_share() -> None:
    model = ConvAttn(d_vocab=D_VOCAB, d_model=D_MODEL, masked_taps=(-1, 0))
    smear = interp.key_smear(model)
    assert smear.values.isnan().all()
    assert len(smear.top()) == 0


def test_kernel_statistics_by_hand() -> None:
    model = ConvAttn(d_vocab=D_VOCAB, d_model=D_MODEL)
    weights = torch.arange(D_MODEL * D_MODEL, dtype=torch.float32).reshape(D_MODEL, D_MODEL)
    with torch.no_grad():
        model.conv.conv.weight[:, :, 0] = weights
        model.conv.conv.weight[:, :, 1] = -weights
        model.conv.conv.weight[:, :, 2] = 5.0
    stats = interp.kernel_stats(model)
    assert stats.axes == ("kernel", "tap", "statistic")
    assert stats.labels_of("tap") == ("previous", "current", "next")
    largest = D_MODEL * D_MODEL - 1
    expected = [
        [largest, 0, 0.75 * largest, 0.9 * largest, largest / 2],
        [0, -largest, -0.25 * largest, -0.1 * largest, largest / 2],
        [5, 5, 5, 5, 5],
    ]
    torch.testing.assert_close(stats.values[0], torch.tensor(expected, dtype=torch.float64), atol=1e-4, rtol=0)
    assert stats.values[1, 2].abs().max() == 0, "the effective kernel does not read the next position"
    torch.testing.assert_close(stats.values[1, :2], stats.values[0, :2])


def test_kernel_statistics_of_other_modules() -> None:
    same = torch.nn.Sequential(torch.nn.Conv1d(3, 5, 4, padding="same"))
    assert interp.kernel_stats(same).labels_of("tap") == ("previous", "current", "next", "+2")
    two = torch.nn.ModuleDict({"a": torch.nn.Conv1d(3, 5, 1), "b": torch.nn.Conv1d(3, 5, 2)})
    with pytest.raises(ModelError, match=r"2 convolutions \(a, b\)"):
        interp.kernel_stats(two)
    assert interp.kernel_stats(two, module="b").values.shape == (2, 2, 5)
    with pytest.raises(ModelError, match="0 convolutions"):
        interp.kernel_stats(AttnAttn(d_vocab=D_VOCAB, d_model=D_MODEL))


def test_impossible_requests() -> None:
    model = SmearedKeyAttn(d_vocab=D_VOCAB, d_model=D_MODEL)
    with pytest.raises(DataError, match="offset"):
        interp.key_smear(model, offset=0)
    with pytest.raises(DataError, match="distinct"):
        interp.key_smear(model, vocabulary=range(5))


def test_a_number_of_heads_that_the_keys_do_not_divide_is_refused() -> None:
    model = AttnAttn(d_vocab=D_VOCAB, d_model=D_MODEL, n_heads=2)
    assert KeySmear(3, n_heads=4).read(torch.randn(4, 5, 2, 6), Site("k", 0), None).shape == (4, 4, 6)
    for wrong in (3, 1):  # not a multiple; fewer queries than keys
        with pytest.raises(ModelError, match=f"it has 2 of them per layer and the model's cfg.n_heads is {wrong}"):
            interp.run(model, torch.zeros(4, 6, dtype=torch.long), [KeySmear(3, n_heads=wrong)])
