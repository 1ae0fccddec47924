"""What the tests of paths, edges and circuits share: prompts for the hand-wired circuit, and a head in plain weights."""

import torch
from torch import Tensor

from interp import metrics
from interp.models import AttnAttn
from interp.models.constructed import induction_circuit

D_VOCAB, D_MODEL, N_HEADS, POS = 23, 12, 3, 7


def circuit_prompts() -> tuple[AttnAttn, Tensor, Tensor, Tensor, metrics.Metric]:
    """The hand-wired circuit on BOS r r[:6]: clean, with another answer in the first copy, with another token before the answer.

    Without the match the induction head attends to all 19 keys alike, one of them the answer. The metric sets it against a token
    in neither prompt.
    """
    r = 1 + torch.randperm(30, generator=torch.Generator().manual_seed(0))[:12]
    clean = torch.cat([torch.tensor([0]), r, r[:6]])[None]
    unused, never = [token for token in range(1, 31) if token not in r][:2]
    other_answer, other_prefix = clean.clone(), clean.clone()
    other_answer[0, 7], other_prefix[0, 6] = unused, unused
    return induction_circuit().model, clean, other_answer, other_prefix, metrics.logit_diff(int(clean[0, 7]), never)


def toy(residual: bool) -> AttnAttn:
    torch.manual_seed(3)
    return AttnAttn(d_vocab=D_VOCAB, d_model=D_MODEL, n_heads=N_HEADS, residual=residual).double().eval()


def attended(model: AttnAttn, layer: int, head: int, inputs: dict[str, Tensor]) -> Tensor:
    """What a head adds to the stream, from plain weights, with its own input for query, key and value."""
    attn = model.blocks[layer].attn
    q, k, v = (inputs[name] @ weights[head] for name, weights in zip("qkv", attn.weights, strict=True))
    scores = q @ k.transpose(-1, -2) / (D_MODEL // N_HEADS) ** 0.5
    future = torch.ones(POS, POS, dtype=torch.bool).triu(1)
    return scores.masked_fill(future, -torch.inf).softmax(-1) @ v @ attn.W_O[head]
