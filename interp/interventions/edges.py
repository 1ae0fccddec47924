"""Edges: who writes to the residual stream, who reads it, and which of the two comes first.

Senders are the input of the first block, the heads and the MLPs. Receivers are the query, key and value of each head, each
with an input of its own, the MLPs, and the logits. `wiring` finds both by running the model, and refuses one whose residual
stream is not the sum of what is called senders here.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import ModelError, SiteError, nearest
from interp.interventions.modes import Capture, capture
from interp.models.writable import TRIAL_LENGTH, near
from interp.running import Intervention, measure
from interp.sites import OUTPUT, HookedModel, Site, check_model, check_site, layers_with

Tokens = Int[Tensor, "pair pos"]
INPUT = Site("resid_pre", 0)
READS = ("q", "k", "v")  # what a head makes of the stream
_HEAD, _READ, _MLP = re.compile(r"L(\d+)H(\d+)"), re.compile(r"L(\d+)H(\d+)\.([qkv])"), re.compile(r"MLP(\d+)")


@dataclass(frozen=True)
class Edge:
    """A direct connection: what `sender` writes, as far as `receiver` reads it.

    `Edge.of("L0H1", "L1H0.k")` means `Edge(Site("z", 0, head=1), Site("k", 1, head=0))`.
    """

    sender: Site
    receiver: Site

    @classmethod
    def of(cls, sender: str, receiver: str) -> "Edge":
        """The edge between two named parts: "input", "L0H1", "MLP0" to "L1H0.k", "MLP1", "logits"."""
        return cls(site_of(sender), site_of(receiver))

    def __str__(self) -> str:
        return f"{name_of(self.sender)} -> {name_of(self.receiver)}"


def name_of(site: Site) -> str:
    """The short name of a sender or receiver: "input", "L0H1", "MLP0", "L1H0.k", "logits"; any other site as it is written."""
    if site == INPUT:
        return "input"
    if site == OUTPUT:
        return "logits"
    if site.kind == "z" and site.head is not None and site.position is None:
        return f"L{site.layer}H{site.head}"
    if site.kind in READS and site.head is not None and site.position is None:
        return f"L{site.layer}H{site.head}.{site.kind}"
    return f"MLP{site.layer}" if site == Site("mlp_out", site.layer if site.kind == "mlp_out" else 0) else str(site)


def site_of(name: str) -> Site:
    """The site that a short name stands for. Raises `SiteError` for any other name."""
    if name in ("input", "logits"):
        return INPUT if name == "input" else OUTPUT
    if match := _HEAD.fullmatch(name):
        return Site("z", int(match[1]), head=int(match[2]))
    if match := _READ.fullmatch(name):
        return Site(match[3], int(match[1]), head=int(match[2]))
    if match := _MLP.fullmatch(name):
        return Site("mlp_out", int(match[1]))
    raise SiteError(f"sender or receiver {name!r}", "it is none", "Write input, L0H1, MLP0, L1H0.q, L1H0.k, L1H0.v or logits")


@dataclass(frozen=True)
class Wiring:
    """What writes to and reads from a model's residual stream.

    `heads[layer]` are the numbers of query, key and value heads (grouped keys are fewer); `parallel` the layers whose MLP reads
    what their attention reads. Without `residual` each layer's attention is all that the next one sees.
    """

    heads: dict[int, tuple[int, int, int]]
    mlps: tuple[int, ...]
    parallel: frozenset[int]
    residual: bool
    output_weights: dict[int, Float[Tensor, "head d_head d_model"]]

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers, in order."""
        return tuple(self.heads)

    @cached_property
    def senders(self) -> tuple[Site, ...]:
        """Everything that writes, in the order of the computation."""
        found = [INPUT]
        for layer, (n_heads, _, _) in self.heads.items():
            found += [Site("z", layer, head=head) for head in range(n_heads)]
            found += [Site("mlp_out", layer)] if layer in self.mlps else []
        return tuple(found)

    @cached_property
    def receivers(self) -> tuple[Site, ...]:
        """Everything that reads, in the order of the computation."""
        found = []
        for layer, counts in self.heads.items():
            found += [Site(kind, layer, head=head) for kind, n in zip(READS, counts, strict=True) for head in range(n)]
            found += [Site("mlp_out", layer)] if layer in self.mlps else []
        return (*found, OUTPUT)

    @cached_property
    def edges(self) -> tuple[Edge, ...]:
        """Every edge, receiver by receiver."""
        return tuple(Edge(sender, receiver) for receiver in self.receivers for sender in self.upstream(receiver))

    def upstream(self, receiver: Site) -> tuple[Site, ...]:
        """The senders that `receiver` reads directly, in order."""
        place = self._reads_at(receiver)
        found = tuple(sender for sender in self.senders if self._writes_at(sender) < place)
        if self.residual:
            return found
        last = max(self._writes_at(sender) for sender in found)
        return tuple(sender for sender in found if self._writes_at(sender) == last)

    def check(self, edges: Sequence[Edge]) -> None:
        """Raise `SiteError` for an edge that the model does not have."""
        known = set(self.edges)
        for edge in edges:
            if edge not in known:
                hint = nearest(str(edge), [str(other) for other in known])
                raise SiteError(f"edge {edge}", f"it is not among this model's {len(known)} edges", f"{hint}See wiring(…).edges")

    def written(self, sender_layer: int, z: Float[Tensor, "*rows pos head d_head"]) -> Float[Tensor, "head *rows pos d_model"]:
        """What each head of a layer adds to the stream (without the bias, which no run changes)."""
        weights = self.output_weights[sender_layer].to(z)
        return einsum(z, weights, "... pos head d_head, head d_head d_model -> head ... pos d_model")

    def _writes_at(self, sender: Site) -> int:
        if sender == INPUT:
            return -1
        assert sender.layer is not None
        return 2 * sender.layer + (sender.kind == "mlp_out")

    def _reads_at(self, receiver: Site) -> int:
        if receiver == OUTPUT:
            return 2 * max(self.layers) + 2
        assert receiver.layer is not None
        after_attention = receiver.kind == "mlp_out" and receiver.layer not in self.parallel
        return 2 * receiver.layer + after_attention


def wiring(model: HookedModel, tokens: Tokens) -> Wiring:
    """Find what writes to and reads from `model`'s residual stream, and check it on the first two rows of `tokens`.

    Checked: each layer's attn_out is the sum over heads of z W_O plus a constant; resid_post is resid_pre + attn_out + mlp_out
    (or, in a model of attention alone, attn_out); the next layer starts from there. Raises `ModelError` when one does not hold
    (norms after a sublayer, scaled or further branches), `SiteError` when a site is missing.
    Cost: one forward pass over two rows, and with MLPs one of a few tokens with one row per layer.
    """
    check_model(model)
    check_site(model, INPUT)
    layers, mlps = layers_with(model, "z"), layers_with(model, "mlp_out")
    if not layers or layers != layers_with(model, "resid_pre"):
        raise _unlike(model, f"its layers with heads are {layers}, those with resid_pre {layers_with(model, 'resid_pre')}")
    kinds = ("resid_pre", "q", "k", "v", "z", "attn_out", "resid_post")
    sites = [Site(kind, layer) for layer in layers for kind in kinds] + [Site("mlp_out", layer) for layer in mlps]
    seen = capture(model, tokens[:2], sites)
    weights = {layer: _output_weights(model, layer) for layer in layers}
    for layer in layers:
        _check_heads(model, layer, seen, weights[layer])
    residual = _has_residual(model, layers, mlps, seen)
    heads = {layer: tuple(seen[Site(kind, layer)].shape[2] for kind in READS) for layer in layers}
    parallel = _parallel(model, mlps, tokens) if mlps else frozenset()
    return Wiring(heads, tuple(mlps), parallel, residual, weights)  # type: ignore[arg-type]


def _output_weights(model: Any, layer: int) -> Tensor:
    try:
        weights = model.blocks[layer].attn.W_O
    except (AttributeError, IndexError, TypeError) as error:
        raise _unlike(model, f"blocks[{layer}].attn.W_O is missing ({error})") from error
    if not isinstance(weights, Tensor) or weights.ndim != 3:
        raise _unlike(model, f"blocks[{layer}].attn.W_O is not a tensor [head d_head d_model]")
    return weights.detach()


def _check_heads(model: HookedModel, layer: int, seen: dict[Site, Tensor], weights: Tensor) -> None:
    z, out = seen[Site("z", layer)], seen[Site("attn_out", layer)]
    if z.shape[2:] != weights.shape[:2] or weights.shape[2] != out.shape[-1]:
        raise _unlike(model, f"z of layer {layer} is {tuple(z.shape)} and W_O {tuple(weights.shape)}")
    sums = einsum(z, weights.to(z), "pair pos head d_head, head d_head d_model -> pair pos d_model")
    rest = out - sums
    if not near(sums + rest[:1, :1], out):
        raise _unlike(model, f"attn_out of layer {layer} is not the sum over heads of z W_O and a constant")


def _has_residual(model: HookedModel, layers: list[int], mlps: list[int], seen: dict[Site, Tensor]) -> bool:
    streams = []
    for layer, following in zip(layers, [*layers[1:], None], strict=True):
        pre, attn, post = (seen[Site(kind, layer)] for kind in ("resid_pre", "attn_out", "resid_post"))
        mlp = seen[Site("mlp_out", layer)] if layer in mlps else torch.zeros_like(attn)
        streams.append((near(pre + attn + mlp, post), layer not in mlps and near(attn, post)))
        if following is not None and not near(post, seen[Site("resid_pre", following)]):
            raise _unlike(model, f"layer {following} does not start from the resid_post of layer {layer}")
    if all(summed for summed, _ in streams):
        return True
    if all(alone for _, alone in streams):
        return False
    wrong = next(layer for layer, (summed, _) in zip(layers, streams, strict=True) if not summed)
    raise _unlike(model, f"resid_post of layer {wrong} is not resid_pre + attn_out + mlp_out")


@dataclass(frozen=True)
class _NudgeRow(Intervention):
    """Changes attn_out of the i-th site in row i + 1 alone."""

    asked: tuple[Site, ...]

    def sites(self, model: HookedModel) -> Sequence[Site]:
        return self.asked

    def edit(self, activation: Tensor, site: Site, tokens: Tensor) -> Tensor:
        row = activation[self.asked.index(site) + 1]
        noise = torch.randn(row.shape, generator=torch.Generator().manual_seed(0)).to(row)
        row += (1 + row.abs().mean()) * noise
        return activation


def _parallel(model: HookedModel, mlps: list[int], tokens: Tokens) -> frozenset[int]:
    """The layers whose MLP does not feel their attention."""
    rows = tokens[:1, :TRIAL_LENGTH].repeat(len(mlps) + 1, 1)
    probes = [Capture(Site("mlp_out", layer)) for layer in mlps]
    nudge = _NudgeRow(tuple(Site("attn_out", layer) for layer in mlps))
    found = [result.values for result in measure(model, rows, probes, [nudge]).values()]
    return frozenset(layer for i, layer in enumerate(mlps) if near(found[i][i + 1], found[i][0]))


def _unlike(model: HookedModel, truth: str) -> ModelError:
    return ModelError(
        f"edges of a {type(model).__name__}",
        f"its residual stream is not the plain sum of its heads and MLPs: {truth}",
        "Use activation_patching or path_patching, which need no such sum",
    )
