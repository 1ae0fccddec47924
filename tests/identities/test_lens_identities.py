"""What must hold for direct logit attribution and the lens on any weights, and what must be refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import interp
from interp.errors import ConfigError, DataError, ModelError
from interp.metrics import accuracy, kl_from_run, logit_diff, loss, metric_values, prob
from interp.metrics.weighted import logit, weighted_prob
from interp.models import AttnAttn, ConvAttn, Recurrent, StateSpace, Transformer
from interp.probes.direct import direct_logit_attribution
from interp.probes.lens import logit_lens, logit_lens_tokens
from tests.models.zoo import D_HEAD, Edits, own_model, tokens, toy

ANSWERS, WRONG = torch.tensor([3, 4, 5]), torch.tensor([7, 8, 9])
METRIC = logit_diff(ANSWERS, WRONG, position=torch.tensor([-1, 5, 2]))
MAKERS: dict[str, Callable[[], Any]] = {
    "attn": lambda: toy(AttnAttn, residual=True, positions=True),
    "conv": lambda: toy(ConvAttn),
    "transformer": lambda: toy(Transformer, n_layers=2, d_head=D_HEAD + 1, positions="learned"),
    "rms": lambda: toy(Transformer, n_layers=2, norm_kind="rms", bias=False, tied=True),
    "recurrent": lambda: Recurrent(d_vocab=53, d_model=24, n_layers=2).eval(),
    "state space": lambda: StateSpace(d_vocab=53, d_model=24, n_layers=2).eval(),
    "own": own_model,
}
MODELS = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@MODELS
def test_parts_sum_to_the_models_own_number(make: Callable[[], Any], dtype: torch.dtype) -> None:
    model = make().to(dtype)
    bound = {torch.float32: 1e-5, torch.float64: 1e-13, torch.bfloat16: 0.2}[dtype]
    for metric in (METRIC, logit(ANSWERS, position=3)):
        want = float(metric_values(model, tokens(), metric).values.double().mean())
        for by in ("component", "layer"):
            parts = direct_logit_attribution(model, tokens(), metric, by=by)
            assert float(parts.values.sum()) == pytest.approx(want, abs=bound)


@MODELS
def test_ways_of_grouping_agree_and_batches_do_not_matter(make: Callable[[], Any]) -> None:
    model = make()
    parts = direct_logit_attribution(model, tokens(), METRIC)
    again = direct_logit_attribution(model, tokens(), METRIC, batch_size=2)
    torch.testing.assert_close(parts.values, again.values, atol=1e-6, rtol=0)
    torch.testing.assert_close(parts.stderr, again.stderr, atol=1e-6, rtol=0)
    rows = dict(zip(parts.labels["component"], parts.values.tolist(), strict=True))
    if not any("H0" in name for name in rows):
        with pytest.raises(ModelError, match="by head"):
            direct_logit_attribution(model, tokens(), METRIC, by="head")
        return
    grid = direct_logit_attribution(model, tokens(), METRIC, by="head")
    for row, layer in enumerate(grid.labels["layer"]):
        for head in range(grid.values.shape[1]):
            assert grid.values[row, head].item() == rows[f"L{layer}H{head}"]


@MODELS
def test_the_last_row_of_the_lens_is_the_model(make: Callable[[], Any]) -> None:
    model = make()
    weights = torch.tensor([[1.0, -1.0], [0.5, 2.0], [0.0, 1.0]])
    metrics = (METRIC, prob(ANSWERS), loss(), kl_from_run(model, tokens(seed=1)), weighted_prob(torch.tensor([3, 9]), weights))
    for metric in (*metrics, lambda logits, tokens: logits.std(-1).mean(-1)):
        lens = logit_lens(model, tokens(), metric, batch_size=2)
        want = metric_values(model, tokens(), metric).values.double().mean()
        assert lens.values[-1].item() == pytest.approx(float(want), abs=1e-5)
        assert lens.stderr is not None
        assert lens.values.shape == (len(lens.labels["layer"]),)


def test_the_lens_at_places_is_the_lens_at_each() -> None:
    model = toy(AttnAttn, residual=True)
    grid = logit_lens(model, tokens(), prob(ANSWERS), places=[0, 4, -1])
    for column, place in enumerate((0, 4, -1)):
        one = logit_lens(model, tokens(), prob(ANSWERS, position=place))
        torch.testing.assert_close(grid.values[:, column], one.values)
    assert grid.labels["pos"] == ("0", "4", "-1")
    for metric in (loss(), kl_from_run(model, tokens()), accuracy()):
        with pytest.raises(DataError, match="one position"):
            logit_lens(model, tokens(), metric, places=[1])


def test_the_first_row_of_the_lens_is_a_model_without_layers() -> None:
    model = toy(AttnAttn, residual=True)
    first = logit_lens(model, tokens(), loss()).values[0].item()
    for block in model.blocks:
        block.attn.W_V.data.zero_()
    assert metric_values(model, tokens(), loss()).values.mean().item() == pytest.approx(first, abs=1e-6)


def test_one_example_has_no_error() -> None:
    parts = direct_logit_attribution(toy(AttnAttn), tokens(batch=1), logit_diff(3, 5))
    assert parts.stderr is None
    assert parts.count == 1


class Capped(nn.Module):
    """An unembedding that does more than multiply: a soft cap, or a scale."""

    def __init__(self, linear: nn.Linear, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.linear, self.function = linear, function
        self.W_U, self.b_U = linear.weight.T, linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.linear(x))


@pytest.mark.parametrize("function", [lambda logits: 5 * torch.tanh(logits / 5), lambda logits: 1.01 * logits])
def test_anything_behind_the_unembedding_is_refused(function: Callable[[Tensor], Tensor]) -> None:
    model = own_model()
    model.unembed = Capped(model.unembed, function)
    with pytest.raises(ModelError, match="not the final norm and unembedding"):
        direct_logit_attribution(model, tokens(), METRIC)
    for measure in (lambda: logit_lens(model, tokens(), loss()), lambda: logit_lens_tokens(model, tokens())):
        with pytest.raises(ModelError, match="not the final norm and the unembedding"):
            measure()


def test_a_declared_soft_cap_is_named() -> None:
    model = own_model()
    model.cfg.output_logits_soft_cap = 30.0
    with pytest.raises(ModelError, match="caps its logits softly at 30"):
        direct_logit_attribution(model, tokens(), METRIC)


def test_norms_that_are_not_known_are_refused() -> None:
    model = own_model()
    model.ln_final = nn.GroupNorm(1, 24)
    with pytest.raises(ModelError, match="GroupNorm"):
        logit_lens(model, tokens(), loss())
    model.ln_final = nn.LayerNorm(24)  # there, but not used by the forward pass
    with pytest.raises(ModelError, match="something else in between"):
        logit_lens(model, tokens(), loss())
    del model.ln_final
    model.cfg.normalization_type = "LN"
    with pytest.raises(ModelError, match="no ln_final"):
        logit_lens(model, tokens(), loss())
    del model.unembed
    model.cfg.normalization_type = None
    with pytest.raises(ModelError, match="no unembedding"):
        logit_lens(model, tokens(), loss())


def test_torch_norms_are_read() -> None:
    for norm in (nn.LayerNorm(24), nn.RMSNorm(24), nn.RMSNorm(24, eps=1e-3)):
        model = own_model()
        with torch.no_grad():
            for parameter in norm.parameters():
                parameter.add_(0.3 * torch.randn(24, generator=torch.Generator().manual_seed(0)))
        model.ln_final, unembed = norm, model.unembed
        model.unembed = Normed(norm, unembed)
        want = metric_values(model, tokens(), METRIC).values.double().mean()
        parts = direct_logit_attribution(model, tokens(), METRIC)
        assert float(parts.values.sum()) == pytest.approx(float(want), abs=1e-5)


class Normed(nn.Module):
    """A norm in front of an unembedding, whose weights show as TransformerLens' do."""

    def __init__(self, norm: nn.Module, linear: nn.Linear):
        super().__init__()
        self.norm, self.linear = norm, linear
        self.W_U, self.b_U = linear.weight.T, linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.norm(x))


def test_parts_that_do_not_add_up_are_refused() -> None:
    model = toy(Transformer, norm="post", n_layers=2)
    with pytest.raises(ModelError, match="does not add up to the last residual stream"):
        direct_logit_attribution(model, tokens(), METRIC)
    assert logit_lens(model, tokens(), loss()).values.isfinite().all(), "the lens needs no parts"
    steered = toy(AttnAttn, residual=True)
    with (
        interp.edited(steered, [Edits(lambda x: x + 1, interp.Site("resid_pre", 1))]),
        pytest.raises(ModelError, match="last residual stream"),
    ):
        direct_logit_attribution(steered, tokens(), METRIC)


def test_heads_that_do_not_make_their_layer_are_refused_and_layers_still_work() -> None:
    model = own_model()
    with interp.edited(model, [Edits(lambda x: 2 * x, interp.Site("attn_out", 1))]):
        with pytest.raises(ModelError, match="heads of layer 1 do not add up"):
            direct_logit_attribution(model, tokens(), METRIC)
        parts = direct_logit_attribution(model, tokens(), METRIC, by="layer")
    assert "L1 attn" in parts.labels["component"]
    model.blocks[0].attn = Wrapped(model.blocks[0].attn)
    with pytest.raises(ModelError, match="layer 0 of a OwnModel into heads"):
        direct_logit_attribution(model, tokens(), METRIC)


class Wrapped(nn.Module):
    """Attention whose weights are not where they are looked for."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def test_what_is_asked_for_must_make_sense(unchecked: None) -> None:
    model = toy(AttnAttn)
    with pytest.raises(ConfigError, match="Did you mean 'head'"):
        direct_logit_attribution(model, tokens(), METRIC, by="heads")  # type: ignore[arg-type]
    for metric in (prob(ANSWERS), loss(), lambda logits, tokens: logits[:, -1, 0]):
        with pytest.raises(ConfigError, match="sum over parts"):
            direct_logit_attribution(model, tokens(), metric)
    with pytest.raises(DataError, match="3 entries"):
        direct_logit_attribution(model, tokens(batch=2), METRIC)
    with pytest.raises(DataError, match="the model has 53"):
        direct_logit_attribution(model, tokens(), logit_diff(3, 53))
    with pytest.raises(DataError, match="position"):
        direct_logit_attribution(model, tokens(), logit_diff(3, 5, position=99))
    with pytest.raises(DataError, match="likeliest"):
        logit_lens_tokens(model, tokens(), k=54)
    with pytest.raises(DataError, match="at no places"):
        logit_lens(model, tokens(), METRIC, places=[])


def test_nan_weights_are_an_error_not_a_number() -> None:
    model = toy(AttnAttn)
    model.unembed.weight.data[0, 0] = torch.nan
    with pytest.raises(ModelError, match="NaN"):
        logit_lens(model, tokens(), loss())
    model.blocks[1].attn.W_V.data.fill_(torch.nan)
    with pytest.raises(ModelError):
        direct_logit_attribution(model, tokens(), METRIC)


def test_the_model_is_left_as_it_was() -> None:
    model = toy(AttnAttn).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    logit_lens(model, tokens(), loss())
    direct_logit_attribution(model, tokens(), METRIC)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(point.fwd_hooks for point in model.hook_dict.values())
