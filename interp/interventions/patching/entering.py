"""How a patch enters the residual stream: at which layer, and what the stream then is."""

import torch
from einops import einsum, rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor

from interp.interventions.patching.cells import Batch, Cell, Grid
from interp.models.pieces import BlockPieces, ModelPieces
from interp.sites import Site

Stream = Float[Tensor, "row pos d_model"]
Entry = tuple[int, int]  # a layer, and 0 before its attention or 1 before its MLP


class Entering:
    """The streams of new rows: the untouched run's, changed as a cell says."""

    def __init__(self, batch: Batch, grid: Grid, pieces: ModelPieces):
        self.batch, self.grid, self.pieces = batch, grid, pieces
        self.at, self.sources, self.length = batch.base.at, batch.sources, batch.base.tokens.shape[1]
        self._keys: dict[int, Tensor] = {}

    def entry(self, cell: Cell) -> Entry:
        """Where the rows of a cell begin."""
        layer, kind = cell.layers[0] or 0, self.grid.kind
        if kind in ("resid_pre", "conv"):
            return layer, 0
        block = self.pieces.blocks[layer]
        at_once = kind in ("resid_post", "mlp_out") or block.parallel or not block.has_mlp
        return (layer + 1, 0) if at_once else (layer, 1)

    def stream(self, layer: int | None, cells: Tensor, pairs: Tensor, start: int) -> Stream:
        """The residual stream of new rows, from `start` on."""
        kind, site = self.grid.kind, Site(self.grid.kind, layer)
        if kind == "resid_mid":
            block, at = self.pieces.blocks[layer or 0], self.at
            here = block.joined(at[Site("resid_pre", layer)], at[Site("attn_out", layer)])[pairs, start:]
            return torch.where(self._mask(cells, pairs, start, site), self.sources[site][pairs, start:], here)
        if kind in ("resid_pre", "resid_post"):
            return torch.where(
                self._mask(cells, pairs, start, site), self.sources[site][pairs, start:], self.at[site][pairs, start:]
            )
        if kind in ("attn_out", "mlp_out", "conv"):
            change = (self.sources[site] - self.at[site])[pairs, start:]
            change = change * self._mask(cells, pairs, start, site)
        else:
            change = self._head_change(layer or 0, cells, pairs, start, site)
        return self._stream_before(layer, kind)[pairs, start:] + change

    def _stream_before(self, layer: int | None, kind: str) -> Stream:
        """The untouched stream that a change of this kind is added to."""
        if kind == "conv":
            return self.at[Site("resid_pre", 0)]
        assert layer is not None
        block, at = self.pieces.blocks[layer], self.at
        if kind == "mlp_out" or block.parallel or not block.has_mlp:
            following = Site("resid_pre", layer + 1)
            return at[following] if following in at else at[Site("resid_post", layer)]
        return block.joined(at[Site("resid_pre", layer)], at[Site("attn_out", layer)])

    def _head_change(self, layer: int, cells: Tensor, pairs: Tensor, start: int, site: Site) -> Stream:
        """The change of attn_out when z, q, k, v or the pattern of some heads is patched."""
        block = self.pieces.blocks[layer]
        heads = self._single_heads(cells)
        if self.grid.kind == "z":
            before, after = self.at[site][pairs, start:], self.sources[site][pairs, start:]
            change = (after - before) * self._mask(cells, pairs, start, site)
        else:
            change = self._patched_z(layer, cells, pairs, start, site) - self.at[Site("z", layer)][pairs, start:]
        if heads is not None:
            own = change.gather(2, repeat(heads, "row -> row pos 1 d_head", pos=change.shape[1], d_head=change.shape[3]))[:, :, 0]
            return einsum(own, block.W_O[heads], "row pos d_head, row d_head d_model -> row pos d_model")
        return einsum(change, block.W_O, "row pos head d_head, head d_head d_model -> row pos d_model")

    def _single_heads(self, cells: Tensor) -> Tensor | None:
        """The head of each row, when z of no other head can change."""
        if self.grid.kind not in ("z", "q", "pattern"):
            return None
        masks = [self.grid.cells[cell].heads for cell in cells.tolist()]
        if any(mask is None or int(mask.sum()) != 1 for mask in masks):
            return None
        return torch.tensor([int(mask.nonzero()) for mask in masks if mask is not None], device=self.batch.base.logits.device)

    def _patched_z(self, layer: int, cells: Tensor, pairs: Tensor, start: int, site: Site) -> Tensor:
        """z of every head from `start` on, with q, k, v or the pattern patched."""
        block, at, kind = self.pieces.blocks[layer], self.at, self.grid.kind
        n_heads = at[Site("z", layer)].shape[2]
        everywhere = 0 if kind in ("k", "v") else start
        before, after = (
            part[pairs][:, :, start:] if kind == "pattern" else part[pairs, everywhere:]
            for part in (at[site], self.sources[site])
        )
        patched = torch.where(self._mask(cells, pairs, everywhere, site), after, before)
        values = _for_each_head(patched if kind == "v" else at[Site("v", layer)][pairs], n_heads)
        if kind == "pattern":
            pattern = patched
        elif kind == "v":
            pattern = at[Site("pattern", layer)][pairs][:, :, start:]
        else:
            pattern = self._pattern(block, layer, pairs, start, patched)
        return einsum(pattern, values, "row head query key, row key head d_head -> row query head d_head")

    def _pattern(self, block: BlockPieces, layer: int, pairs: Tensor, start: int, patched: Tensor) -> Tensor:
        """The pattern of the queries from `start` on, with patched queries (from there on) or keys (all)."""
        of_keys = self.grid.kind == "k"
        q = self.at[Site("q", layer)][pairs, start:] if of_keys else patched
        q = block.rotated(q.flatten(0, 1), torch.arange(start, self.length).repeat(len(q)).to(q.device)).unflatten(0, q.shape[:2])
        if of_keys:
            k = block.rotated(patched.flatten(0, 1), torch.arange(self.length).repeat(len(q)).to(q.device))
            k = k.unflatten(0, patched.shape[:2])
        else:
            k = self.base_keys(layer)[pairs]
        scores = einsum(q, _for_each_head(k, q.shape[2]), "row query head d_head, row key head d_head -> row head query key")
        seen = no_later(torch.arange(start, self.length)[None], self.length).to(scores.device)
        return (scores * block.scale).masked_fill(~seen, -torch.inf).softmax(-1)

    def _mask(self, cells: Tensor, pairs: Tensor, start: int, site: Site) -> Tensor:
        """True where each row is patched, from `start` on; broadcasts to [row …]."""
        axes = site.axes
        shape = {"head": 1, "pos": 1, "query": 1}
        chosen = [self.grid.cells[cell] for cell in cells.tolist()]
        mask = torch.ones(len(cells), *[shape.get(axis, 1) for axis in axes[1:]], dtype=torch.bool)
        if chosen[0].heads is not None:
            heads = torch.stack([cell.heads for cell in chosen if cell.heads is not None])
            mask = mask & heads.reshape(len(cells), *[-1 if axis == "head" else 1 for axis in axes[1:]])
        if chosen[0].places is not None:
            rows = self.batch.rows[pairs].tolist()
            places = torch.stack(
                [cell.places[row, start:] for cell, row in zip(chosen, rows, strict=True) if cell.places is not None]
            )
            mask = mask & places.reshape(len(cells), *[-1 if axis in ("pos", "query") else 1 for axis in axes[1:]])
        return mask.to(self.batch.base.logits.device)

    def base_keys(self, layer: int) -> Tensor:
        """The untouched run's keys as they meet the queries."""
        if layer not in self._keys:
            keys = self.at[Site("k", layer)]
            places = torch.arange(self.length, device=keys.device).repeat(len(keys))
            self._keys[layer] = self.pieces.blocks[layer].rotated(keys.flatten(0, 1), places).unflatten(0, keys.shape[:2])
        return self._keys[layer]


def no_later(asked: Int[Tensor, "row query"], length: int) -> Tensor:
    """True where a key is not after its query: [query key] when all rows ask alike, else [row 1 query key]."""
    seen = torch.arange(length) <= asked[..., None]
    alike = len(asked) <= 1 or bool((asked == asked[:1]).all())
    return seen[0] if alike else rearrange(seen, "row query key -> row 1 query key")


def _for_each_head(x: Float[Tensor, "row pos group d_head"], n_heads: int) -> Float[Tensor, "row pos head d_head"]:
    """Keys or values shared by a group of heads, repeated for each of them."""
    return repeat(x, "row pos group d_head -> row pos (group each) d_head", each=n_heads // x.shape[2])
