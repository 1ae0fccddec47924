"""What heads are wired to do, read from the weights: copying (OV), matching through another head (QK trace), composition.

Weights are taken as the residual stream meets them: a layer norm's gain, and for LayerNorm its subtraction of the mean, is folded
into the matrix that reads behind it, as TransformerLens' processing does; biases, MLPs and later layers are left out. Matrices
act on row vectors, as in TransformerLens: token t is W_E[t], and a head's OV circuit maps it to W_E[t] W_V W_O W_U.
Nothing of size d_vocab × d_vocab is ever formed: A B and B A have the same non-zero eigenvalues, so d_head × d_head is enough.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from einops import einsum, repeat
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens import FactoredMatrix
from transformer_lens.utilities import composition_scores as composition_of

from interp.errors import ConfigError, ModelError, ResultError, kind_of
from interp.models.toys import ConvAttn, Toy
from interp.probes.attention import previous_token_scores
from interp.probes.repeats import ordinary_ids
from interp.provenance import provenance_of
from interp.result import Result, mean_over_examples
from interp.sites import check_no_name

FORMS = ("eigenvalue", "logit raise")
Square = Float[Tensor, "d_model d_model"]


@dataclass(frozen=True)
class HeadWeights:
    """The weights of all heads, each [layer head d_model d_head] (W_O transposed in its last two), in float64 on the CPU.

    Keys and values shared by a group of heads are repeated for each of them. `W_E` [d_vocab d_model], `W_U` [d_model d_vocab].
    """

    W_E: Float[Tensor, "d_vocab d_model"]
    W_U: Float[Tensor, "d_model d_vocab"]
    W_Q: Float[Tensor, "layer head d_model d_head"]
    W_K: Float[Tensor, "layer head d_model d_head"]
    W_V: Float[Tensor, "layer head d_model d_head"]
    W_O: Float[Tensor, "layer head d_head d_model"]


def head_weights(model: Any) -> HeadWeights:
    """The weights of `model`'s heads with norms folded in.

    Raises `ModelError` when they cannot be found, when they hold NaN or infinite numbers, or when no residual stream leads from
    embedding to heads to logits: the products of weights that circuits are read from then mean nothing.
    """
    check_no_name(model)
    if isinstance(model, Toy) and not model.config.residual and (len(model.blocks) > 1 or isinstance(model, ConvAttn)):
        raise ModelError(
            f"reading the heads' weights of {kind_of(model)}",
            "it has no residual stream, so its heads do not read the embedding, or do not write to the logits",
            "Measure what they do instead, for example with head_scores",
        )
    if getattr(getattr(model, "config", None), "norm", None) == "post":
        raise ModelError(
            f"reading the heads' weights of {kind_of(model)}",
            "norms act on its residual stream between the layers, so heads do not read the sum of what is written",
            "Measure what they do instead, for example with head_scores",
        )
    layers = _attentions(model)
    try:
        norms = [getattr(block, "ln1", None) for block in model.blocks]
        n_heads = layers[0].W_O.shape[0]
        read = {
            name: torch.stack(
                [_behind(norm, _per_head(getattr(attn, name), n_heads), model) for attn, norm in zip(layers, norms, strict=True)]
            )
            for name in ("W_Q", "W_K", "W_V")
        }
        written = torch.stack([attn.W_O.detach().cpu().double() for attn in layers])
        embed = _embedding(model.embed).detach().cpu().double()
        unembed = _behind(getattr(model, "ln_final", None), _unembedding(model.unembed).detach().cpu().double(), model)
    except (AttributeError, TypeError, IndexError) as error:
        raise _no_weights(model, f"they are not where TransformerLens has them ({error})") from error
    if embed.shape[0] != unembed.shape[1]:
        sizes = f"it reads {embed.shape[0]} tokens and writes {unembed.shape[1]}"
        raise ModelError("copying by eigenvalues", sizes, "Use a model whose output vocabulary is its input vocabulary")
    for name, tensor in {**read, "W_O": written, "W_E": embed, "W_U": unembed}.items():
        if not bool(tensor.isfinite().all()):
            told = f"{int((~tensor.isfinite()).sum())} numbers of {name} (norms folded in) are NaN or infinite"
            raise ModelError(f"reading the heads' weights of {kind_of(model)}", told, "Look at its weights")
    return HeadWeights(embed, unembed, **read, W_O=written)


def _attentions(model: Any) -> list[Any]:
    """The attention of each layer. Raises `ModelError` where weights are missing, as in a module hooked from outside."""
    blocks = getattr(model, "blocks", None)
    found = [getattr(block, "attn", None) for block in blocks] if isinstance(blocks, Iterable) else []
    if not found or not all(hasattr(attn, "W_O") for attn in found):
        raise _no_weights(model, "they are not where TransformerLens has them: there is no blocks[layer].attn.W_O")
    return found


def _no_weights(model: Any, truth: str) -> ModelError:
    return ModelError(
        f"reading the heads' weights of {kind_of(model)}",
        truth,
        "Give a model with embed, unembed and blocks[layer].attn with W_Q, W_K, W_V, W_O, as interp.load_model opens one, "
        "or measure what the heads do instead, for example with head_scores",
    )


def copying_scores(model: Any, *, n_samples: int = 10, sample_size: int = 25, n_null: int = 50, seed: int = 0) -> Result:
    """How much each head's OV circuit copies: axes (form, layer, head), forms "eigenvalue" and "logit raise".

    * eigenvalue: Σλ / Σ|λ| over the eigenvalues of W_E W_V W_O W_U, in [−1, 1]: 1 when every direction raises itself, −1 when
      each lowers itself (Elhage et al. 2021, copying matrices).
    * logit raise: attending to a token of a sample of distinct random tokens, the head changes their logits; minus the mean, only
      raises kept, the attended token's share of the total raise, averaged over tokens. In [0, 1]; the paper rescales it
      linearly (Olsson et al. 2022, copying head evaluator), left out so that chance, 1 / sample_size, stays visible.

    Computed for the token embedding alone (no positions, MLPs or biases). NaN for a head that writes nothing to the logits.
    `stderr` is over samples (eigenvalue: exact, NaN). `baseline` is the mean over `n_null` random heads of the same shape in this
    model; `copying_null` has their spread. Cost: one product over the vocabulary, then d_head³ per head.
    """
    weights = head_weights(model)
    through = weights.W_U @ weights.W_E  # d_model d_model: W_U W_E
    eigen = _eigen_scores(weights.W_V, weights.W_O, through)
    samples = _samples(model, n_samples, sample_size, seed)
    raises = _raise_scores(weights, samples)
    raised, raised_error = mean_over_examples(raises)
    error = torch.full_like(eigen, torch.nan)
    null = _null_draws(weights, through, samples, n_null, seed).mean(0)
    return Result(
        name="copying",
        values=torch.stack([eigen, raised]),
        stderr=torch.stack([error, error if raised_error is None else raised_error]),
        axes=("form", "layer", "head"),
        labels={"form": FORMS},
        baseline=null[:, None, None].expand(2, *eigen.shape),
        count=n_samples,
        unit="score",
        description="how much a head raises the logit of what it attends to; 1 copies, chance is the baseline",
        provenance=provenance_of(model, torch.empty(0), 0.0),
    )


def copying_null(model: Any, *, n_draws: int = 200, n_samples: int = 10, sample_size: int = 25, seed: int = 0) -> Result:
    """What random heads would score: axes (form, statistic) with the mean, standard deviation and 95 % quantile of `n_draws`.

    Each draw has Gaussian W_V and W_O of the model's shape, with the model's own embedding and unembedding.
    """
    weights = head_weights(model)
    through = weights.W_U @ weights.W_E
    draws = _null_draws(weights, through, _samples(model, n_samples, sample_size, seed), n_draws, seed)
    return Result(
        name="copying_null",
        values=torch.stack([draws.mean(0), draws.std(0), draws.quantile(0.95, dim=0)], dim=1),
        axes=("form", "statistic"),
        labels={"form": FORMS, "statistic": ("mean", "sd", "q95")},
        count=n_draws,
        unit="score",
        description="copying scores of random heads in this model",
        provenance=provenance_of(model, torch.empty(0), 0.0),
    )


def qk_trace_scores(model: Any, previous: Result | None = None, *, n_null: int = 50, seed: int = 0) -> Result:
    """How well each head's query matches tokens *through* earlier previous-token heads: axes (form, layer, head).

    M = Σ_e p(e) W_E W_Q W_Kᵀ (W_V^e W_O^e)ᵀ W_Eᵀ over heads e of earlier layers, p(e) their previous-token score (`previous`, or
    measured on random repeats). "trace" is tr M in the model's own scale (Olsson et al. 2022, QK eigenvalues of induction heads),
    "eigenvalue" the same divided by Σ|λ|, in [−1, 1]: 1 when each token looks for its own successor. NaN in the first
    layer. `baseline`: the mean of `n_null` heads with random W_Q and W_K. Raises `ResultError` when `previous` is not of this
    model's layers and heads.
    """
    weights = head_weights(model)
    n_layers, n_heads, _, d_head = weights.W_Q.shape
    previous = previous_token_scores(model) if previous is None else previous
    if previous.axes != ("layer", "head") or tuple(previous.values.shape) != (n_layers, n_heads):
        given = f"axes {previous.axes} of shape {tuple(previous.values.shape)}"
        told = f"the result {previous.name!r} has {given}, and this model has {n_layers} layers of {n_heads} heads"
        raise ResultError("QK traces through previous-token heads", told, "Give previous_token_scores of the same model")
    weight = previous.values.double().cpu()
    gram = weights.W_E.T @ weights.W_E
    values = torch.full((2, n_layers, n_heads), torch.nan, dtype=torch.float64)
    null = torch.full_like(values, torch.nan)
    generator = torch.Generator().manual_seed(seed)
    for layer in range(1, n_layers):
        earlier = einsum(
            weight[:layer], weights.W_V[:layer], weights.W_O[:layer], "layer head, layer head m d, layer head d n -> n m"
        )
        middle = earlier @ gram  # (W_V W_O)ᵀ W_Eᵀ W_E
        values[:, layer] = _trace_forms(weights.W_K[layer].mT @ middle @ weights.W_Q[layer])
        random = torch.randn(2, n_null, *weights.W_Q.shape[2:], generator=generator, dtype=torch.float64)
        null[:, layer] = _trace_forms(random[0].mT @ middle @ random[1]).nanmean(-1, keepdim=True)
    null[0] = 0.0  # the scale of a trace is that of the weights; a random one is 0 on average
    return Result(
        name="qk_trace",
        values=values,
        axes=("form", "layer", "head"),
        labels={"form": ("trace", "eigenvalue")},
        baseline=null,
        unit="score",
        description="match of each token's query with keys that hold the same token through previous-token heads; higher matches",
        provenance=provenance_of(model, torch.empty(0), 0.0),
    )


def composition_scores(model: Any, kind: Literal["Q", "K", "V"] = "K", *, n_null: int = 50, seed: int = 0) -> Result:
    """How much each head reads what each earlier head writes: axes (layer, head, into_layer, into_head), NaN if not later.

    ‖L R‖ / (‖L‖ ‖R‖) in Frobenius norms, by TransformerLens' `composition_scores`; L is the earlier head's W_V W_O, R the later
    one's W_Q W_Kᵀ ("Q"), its transpose ("K") or W_V W_O ("V") (Elhage et al. 2021). `baseline`: the mean of `n_null` pairs of
    random heads of this shape; it is not 0: random heads of width d_head share directions too.
    """
    if kind not in ("Q", "K", "V"):
        raise ConfigError(f"composition of kind {kind!r}", "the kinds are Q, K and V", "Choose one of them")
    weights = head_weights(model)
    left, right = FactoredMatrix(weights.W_V, weights.W_O), _reader(weights, kind)
    values = composition_of(left, right, broadcast_dims=True)
    layers = torch.arange(values.shape[0])
    later = layers[None, :] > layers[:, None]
    generator = torch.Generator().manual_seed(seed)
    a, c = (torch.randn(n_null, *weights.W_V.shape[2:], generator=generator, dtype=torch.float64) for _ in range(2))
    b, d = (torch.randn(n_null, *weights.W_O.shape[2:], generator=generator, dtype=torch.float64) for _ in range(2))
    chance = composition_of(FactoredMatrix(a, b), FactoredMatrix(c, d), broadcast_dims=False).mean()
    return Result(
        name=f"composition_{kind}",
        values=values.masked_fill(~later[:, None, :, None], torch.nan),
        axes=("layer", "head", "into_layer", "into_head"),
        baseline=float(chance),
        unit="share of norm",
        description=f"{kind}-composition of each earlier head with each later one; chance is the baseline",
        provenance=provenance_of(model, torch.empty(0), 0.0),
    )


def _reader(weights: HeadWeights, kind: str) -> FactoredMatrix:
    if kind == "V":
        return FactoredMatrix(weights.W_V, weights.W_O)
    first, second = (weights.W_Q, weights.W_K) if kind == "Q" else (weights.W_K, weights.W_Q)
    return FactoredMatrix(first, second.mT)


def _trace_forms(product: Float[Tensor, "head d_head d_head"]) -> Float[Tensor, "form head"]:
    values = torch.linalg.eigvals(product)
    return torch.stack([values.real.sum(-1), values.real.sum(-1) / values.abs().sum(-1)])


def _eigen_scores(v: Tensor, o: Tensor, through: Square) -> Tensor:
    values = torch.linalg.eigvals(o @ through @ v)
    return values.real.sum(-1) / values.abs().sum(-1)  # 0 / 0 = NaN: the head writes nothing to the logits


def _raise_scores(weights: HeadWeights, samples: Tensor) -> Float[Tensor, "sample layer head"]:
    return torch.stack([_share_raised(weights.W_E[ids], weights.W_V, weights.W_O, weights.W_U[:, ids]) for ids in samples])


def _share_raised(embedded: Tensor, v: Tensor, o: Tensor, unembed: Tensor) -> Tensor:
    logits = embedded @ v @ (o @ unembed)  # attended token, token
    raised = (logits - logits.mean(-1, keepdim=True)).relu()
    shares = raised.diagonal(dim1=-2, dim2=-1) / raised.sum(-1)
    return shares.nanmean(-1)


def _null_draws(weights: HeadWeights, through: Square, samples: Tensor, n_draws: int, seed: int) -> Float[Tensor, "draw form"]:
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(n_draws, *weights.W_V.shape[2:], generator=generator, dtype=torch.float64)
    o = torch.randn(n_draws, *weights.W_O.shape[2:], generator=generator, dtype=torch.float64)
    raises = [_share_raised(weights.W_E[ids], v, o, weights.W_U[:, ids]) for ids in samples]
    return torch.stack([_eigen_scores(v, o, through), torch.stack(raises).mean(0)], dim=1)


def _samples(model: Any, n_samples: int, size: int, seed: int) -> Tensor:
    ids = ordinary_ids(model)
    if not 2 <= size <= len(ids) or n_samples < 1:
        truth = f"there are {len(ids)} ordinary ones, and a sample has at least two"
        raise ConfigError(f"{n_samples} samples of {size} tokens", truth, "Choose another n_samples or sample_size")
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([ids[torch.randperm(len(ids), generator=generator)[:size]] for _ in range(n_samples)])


def _per_head(weight: Tensor, n_heads: int) -> Tensor:
    """[head d_model d_head] in float64; weights shared by a group are repeated for each of its heads."""
    weight = weight.detach().cpu().double()
    return repeat(weight, "group d_model d_head -> (group member) d_model d_head", member=n_heads // weight.shape[0])


def _behind(norm: Any, weight: Tensor, model: Any) -> Tensor:
    """A reading matrix [… d_model x] with the gain and centring of the norm before it folded in."""
    if norm is None:
        return weight
    kind = str(getattr(model.cfg, "normalization_type", None))
    gain = getattr(norm, "w", None)
    if isinstance(gain, Tensor):
        offset = 1.0 if getattr(model.cfg, "rmsnorm_uses_offset", False) else 0.0
        weight = (gain.detach().cpu().double() + offset).unsqueeze(-1) * weight
    return weight - weight.mean(-2, keepdim=True) if kind.startswith("LN") else weight


def _embedding(embed: Any) -> Tensor:
    return embed.weight if isinstance(embed, nn.Embedding) else embed.W_E


def _unembedding(unembed: Any) -> Tensor:
    return unembed.weight.T if isinstance(unembed, nn.Linear) else unembed.W_U
