"""Copying, QK trace and composition against full matrices over the vocabulary, on models of every kind."""

import math

import pytest
import torch
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module
from transformers import LlamaConfig, LlamaForCausalLM

import interp
from interp.errors import ConfigError, ModelError, ResultError
from interp.models import AttnAttn, ConvAttn, Transformer
from interp.models.constructed import induction_circuit
from interp.probes import composition_scores, copying_null, copying_scores, head_scores, head_weights, qk_trace_scores

D_VOCAB, D_MODEL, D_HEAD, N_HEADS, N_LAYERS = 37, 16, 6, 4, 3


def toy() -> AttnAttn:
    torch.manual_seed(0)
    return AttnAttn(
        d_vocab=D_VOCAB, d_model=D_MODEL, d_head=D_HEAD, n_heads=N_HEADS, n_layers=N_LAYERS, residual=True, output_projection=True
    )


def llama(groups: int = 2) -> TransformerBridge:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=D_VOCAB,
        hidden_size=24,
        intermediate_size=30,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=groups,
        head_dim=10,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        attn_implementation="eager",
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.input_layernorm.weight.uniform_(0.5, 2)
        model.model.norm.weight.uniform_(0.5, 2)
    return build_bridge_from_module(model, "LlamaForCausalLM", hf_config=config, model_name="t")


def gpt() -> TransformerBridge:
    torch.manual_seed(0)
    config = TransformerBridgeConfig(
        n_layers=2, d_model=20, n_heads=4, d_head=5, d_vocab=D_VOCAB, n_ctx=110, act_fn="gelu", d_mlp=30, normalization_type="LN"
    )
    return TransformerBridge.boot_native(config).eval()


def full(model: AttnAttn, layer: int, head: int) -> torch.Tensor:
    attn = model.blocks[layer].attn
    ov = attn.W_V[head].double() @ attn.W_O[head].double()
    return (model.embed.weight.double() @ ov @ model.unembed.weight.double().T).detach()


def test_eigenvalues_equal_those_of_the_whole_vocabulary_matrix() -> None:
    model = toy()
    found = copying_scores(model).values[0]
    for layer in range(N_LAYERS):
        for head in range(N_HEADS):
            values = torch.linalg.eigvals(full(model, layer, head))
            assert float(found[layer, head]) == pytest.approx(float(values.sum().real / values.abs().sum()), abs=1e-6)


def test_logit_raise_equals_loops_over_tokens() -> None:
    model = toy()
    found = copying_scores(model, n_samples=1, sample_size=D_VOCAB - 1).values[1]  # the sample: all tokens but BOS
    matrix = full(model, 1, 2)[1:, 1:]
    shares = []
    for t, row in enumerate(matrix.tolist()):
        raised = [max(0.0, value - sum(row) / len(row)) for value in row]
        shares.append(raised[t] / sum(raised))
    assert float(found[1, 2]) == pytest.approx(sum(shares) / len(shares), abs=1e-6)


def test_copying_and_its_opposite() -> None:
    made = induction_circuit()
    assert torch.equal(copying_scores(made.model).values[:, 1, 0], torch.ones(2, dtype=torch.float64))
    with torch.no_grad():
        made.model.blocks[1].attn.W_O[0] *= -1
    against = copying_scores(made.model)
    assert float(against.values[0, 1, 0]) == -1
    assert float(against.values[1, 1, 0]) == 0
    assert against.values[:, 0].isnan().all(), "a head that writes nothing to the logits has no score"


def test_random_heads_lie_within_the_null() -> None:
    model = toy()
    null, scores = copying_null(model).values, copying_scores(model)
    assert null[0, 0].abs() < 0.15
    assert null[1, 0] == pytest.approx(1 / 25, abs=0.02)
    within = (scores.values - null[:, 0, None, None]).abs() < 4 * null[:, 1, None, None]
    assert within.all()
    assert scores.stderr is not None
    assert scores.stderr[0].isnan().all()
    assert (scores.stderr[1] > 0).all()


def test_grouped_values_are_repeated_and_norms_folded() -> None:
    model = llama()
    weights = head_weights(model)
    assert weights.W_V.shape == (2, 6, 24, 10)
    hf = model.original_model.model
    value = hf.layers[1].self_attn.v_proj.weight.T * hf.layers[1].input_layernorm.weight[:, None]
    for head in range(6):
        group = head // 3
        torch.testing.assert_close(weights.W_V[1, head], value[:, 10 * group : 10 * (group + 1)].double())
    unembed = model.original_model.lm_head.weight.T * hf.norm.weight[:, None]
    torch.testing.assert_close(weights.W_U, unembed.double())
    assert copying_scores(model).values.shape == (2, 2, 6)
    assert interp.key_smear(model).values.shape == (2, 6)
    assert torch.equal(interp.key_smear(model).values[0], torch.zeros(6, dtype=torch.float64)), "rotation must not move keys"


def test_layer_norms_are_folded() -> None:
    model = gpt()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "ln" in name:
                parameter.uniform_(0.5, 2)
    weights, block = head_weights(model), model.blocks[1]
    x = torch.randn(3, 20, dtype=torch.float64)
    by_hand = ((x - x.mean(-1, keepdim=True)) * block.ln1.w.double()) @ block.attn.W_V[2].double()
    torch.testing.assert_close(x @ weights.W_V[1, 2], by_hand.detach())
    assert copying_scores(model).values.isfinite().all()


def test_scores_of_models_of_other_kinds() -> None:
    for model, n_heads in ((llama(), 6), (gpt(), 4)):
        scores = head_scores(model)
        assert scores.values.shape == (7, 2, n_heads)
        assert (scores.values - scores.baseline)[:6].abs().max() < 0.1, "random weights: near a uniform head"
        assert (scores.values - scores.baseline)[6].max() <= 1e-6, "no head is more spread out than a uniform one"
        assert not torch.equal(scores.values, scores.baseline)


@pytest.mark.parametrize("kind", ["Q", "K", "V"])
def test_composition_equals_whole_matrices(kind: str) -> None:
    model = toy()
    found = composition_scores(model, kind)
    w = head_weights(model)
    for earlier, head, later, into in [(0, 1, 1, 3), (0, 2, 2, 0), (1, 0, 2, 2)]:
        left = w.W_V[earlier, head] @ w.W_O[earlier, head]
        qk = w.W_Q[later, into] @ w.W_K[later, into].T
        right = {"Q": qk, "K": qk.T, "V": w.W_V[later, into] @ w.W_O[later, into]}[kind]
        expected = (left @ right).norm() / left.norm() / right.norm()
        assert float(found.values[earlier, head, later, into]) == pytest.approx(float(expected), abs=1e-6)
    assert found.values[1, :, 1].isnan().all()
    assert found.values[2, :, 0].isnan().all()
    assert isinstance(found.baseline, float)
    assert found.values.nanmean() == pytest.approx(found.baseline, abs=0.08)


def test_qk_trace_equals_the_whole_matrix() -> None:
    model = toy()
    previous = interp.previous_token_scores(model)
    found = qk_trace_scores(model, previous)
    w, layer, head = head_weights(model), 2, 1
    earlier = sum(
        previous.values[e, h] * w.W_V[e, h] @ w.W_O[e, h] for e in range(layer) for h in range(N_HEADS)
    )  # fmt: skip
    matrix = w.W_E @ w.W_Q[layer, head] @ w.W_K[layer, head].T @ earlier.T @ w.W_E.T
    values = torch.linalg.eigvals(matrix)
    assert float(found.values[0, layer, head]) == pytest.approx(float(matrix.trace()), rel=1e-9)
    assert float(found.values[1, layer, head]) == pytest.approx(float(matrix.trace() / values.abs().sum()), abs=1e-6)
    assert found.values[:, 0].isnan().all()


def test_previous_token_scores_of_another_model_are_refused() -> None:
    torch.manual_seed(1)
    for other in (
        AttnAttn(d_vocab=D_VOCAB, d_model=D_MODEL, n_heads=1, n_layers=N_LAYERS),  # one head would stand for all of them
        AttnAttn(d_vocab=D_VOCAB, d_model=D_MODEL, n_heads=N_HEADS, n_layers=2),
    ):
        with pytest.raises(ResultError, match=r"'previous_token' has axes .* this model has 3 layers of 4 heads"):
            qk_trace_scores(toy(), interp.previous_token_scores(other))
    with pytest.raises(ResultError, match="this model has 3 layers of 4 heads"):
        qk_trace_scores(toy(), head_scores(toy()))


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_named(number: float) -> None:
    model = toy()
    with torch.no_grad():
        next(parameter for name, parameter in model.named_parameters() if "blocks.1" in name)[0] = number
    for measure in (composition_scores, copying_scores, qk_trace_scores):
        with pytest.raises(ModelError, match=r"numbers of W_. \(norms folded in\) are NaN or infinite"):
            measure(model)


def test_what_is_refused() -> None:
    with pytest.raises(ModelError, match="not where TransformerLens has them"):
        copying_scores(_NoWeights())
    with pytest.raises(ConfigError, match="sample_size"):
        copying_scores(toy(), sample_size=D_VOCAB)
    with pytest.raises(ConfigError, match="n_samples"):
        copying_scores(toy(), n_samples=0)
    assert math.isfinite(copying_scores(toy(), n_samples=1).values.sum())


def test_circuits_without_a_residual_stream_are_refused() -> None:
    """What a head then reads is not the embedding, or what it writes is not what the unembedding reads."""
    for model in (ConvAttn(d_vocab=D_VOCAB, d_model=8), AttnAttn(d_vocab=D_VOCAB, d_model=8)):
        with pytest.raises(ModelError, match="no residual stream"):
            copying_scores(model)
    head_weights(AttnAttn(d_vocab=D_VOCAB, d_model=8, n_layers=1))
    with pytest.raises(ModelError, match="norms act on its residual stream"):
        copying_scores(Transformer(d_vocab=D_VOCAB, d_model=8, norm="post"))


class _NoWeights:
    hook_dict: dict = {}

    def hooks(self, fwd_hooks: list, bwd_hooks: list = [], reset_hooks_end: bool = True) -> None: ...  # noqa: B006

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens
