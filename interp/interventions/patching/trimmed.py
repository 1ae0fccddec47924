"""The fast way: each cell restarts at the layer it patches, on the positions it can change, with all cells in one batch.

A row is one cell on one pair. It enters the residual stream where its patch does, as the patched run's own stream plus the change
(of a head: its change of z through W_O), at the first position that can differ, and runs on from there beside all rows
that entered before; the keys and values of earlier positions are the untouched run's. In the last block only the positions that
the metric reads are computed, and only what it reads is unembedded. Rows that cannot differ are not run.
An untouched row rides along and must come out as the model's own run did; otherwise nothing is returned.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.interventions.patching.cells import Batch, Cell, Grid, tolerance
from interp.interventions.patching.entering import Entering, Entry, Stream, no_later
from interp.metrics.base import at_least_float32
from interp.models.parts import smear_keys
from interp.models.pieces import BlockPieces, NotTakenApart, before_smearing, rotation_sites, take_apart
from interp.sites import HookedModel, Site, layers_with

WORTH_A_START = 4096  # entries of the residual stream at one position: with so many in a group, its overhead does not show
TOKENS_AT_ONCE = 512  # in an MLP
UNTOUCHED = -1  # the cell number of the rows that check


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows that start at the same position."""

    cell: Int[Tensor, " row"]
    pair: Int[Tensor, " row"]
    x: Stream  # from that position on; after the last block's attention, at the positions read

    def with_stream(self, x: Stream) -> "Rows":
        return Rows(self.cell, self.pair, x)

    def and_more(self, more: "Rows") -> "Rows":
        return Rows(*(torch.cat(parts) for parts in zip(vars(self).values(), vars(more).values(), strict=True)))


Groups = dict[int, Rows]  # by start


@dataclass(frozen=True, eq=False)
class Attended:
    """Queries, keys and values [token head d_head] of the rows of one group."""

    q: Tensor
    k: Tensor
    v: Tensor


def sites_needed(model: HookedModel, kind: str) -> list[Site]:
    """What has to be read in the run that is patched. Raises `NotTakenApart` when the model lacks some of it."""
    layers = layers_with(model, "resid_pre")
    if not layers:
        raise NotTakenApart("it has no resid_pre")
    always = ["resid_pre", "attn_out", "k", "v"]
    inside = {"q": ["z"], "k": ["z", "q"], "v": ["z", "pattern"], "pattern": ["z"]}
    kinds = dict.fromkeys([*always, *inside.get(kind, []), *([kind] if kind != "conv" else [])])
    sites = [Site(name, layer) for name in kinds for layer in layers] + [Site("resid_post", layers[-1])]
    sites += [Site("conv")] if kind == "conv" else []
    points = model.hook_dict  # asked once: a bridge puts it together anew each time
    sites += [site for layer in layers if (site := before_smearing(layer)).hook_name in points]
    missing = sorted({site.kind for site in sites if site.hook_name not in points})
    if missing:
        raise NotTakenApart(f"it has no {', '.join(missing)}")
    return list(dict.fromkeys([*sites, *rotation_sites(model)]))


class Trimmed:
    """One batch of pairs, ready to run cells on."""

    def __init__(self, batch: Batch, grid: Grid, shared: Int[Tensor, " pair"]):
        """`shared`: how many leading positions of each pair the source leaves as they are."""
        if any(len(cell.layers) > 1 for cell in grid.cells):
            raise NotTakenApart("its cells patch several layers at once")
        self.grid, self.base, self.metric, self.rows, self.shared = grid, batch.base, batch.metric, batch.rows, shared
        self.pieces = take_apart(batch.model, batch.base.at)
        self.entering = Entering(batch, grid, self.pieces)
        self.n_layers = len(self.pieces.blocks)
        self.length = batch.base.tokens.shape[1]
        self.reads = self._reads()

    def run(self, rows_at_once: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Batches of (cell, pair, value). Raises `NotTakenApart` when an untouched row does not come out as it should."""
        cells, pairs, starts = self._all_rows()
        idle = starts >= self.length
        yield cells[idle], pairs[idle], self.base.values[pairs[idle].to(self.base.values.device)]
        cells, pairs, starts = (each[~idle] for each in (cells, pairs, starts))
        if not len(cells):  # every patch lies where both runs are the same
            return
        starts = self._coarser(starts)
        for number, part in enumerate(torch.arange(len(cells)).split(rows_at_once)):
            yield self._run_rows(cells[part], pairs[part], starts[part], check=number == 0)

    def cost_of_a_row(self) -> int:
        """Bytes that one row may need, from the first position on."""
        width = self.base.at[Site("resid_pre", 0)].shape[-1]
        ids = self.base.logits.shape[-1] if self.base.logits.numel() else 1
        reading = self.base.logits.shape[1] * ids * 4
        return (self.length * width * 24 + reading) * self.base.logits.element_size()

    # -- which rows, from where

    def _all_rows(self) -> tuple[Tensor, Tensor, Tensor]:
        """Every (cell, pair), by the layer it enters at, and where it starts: the length for those that cannot differ."""
        n_pairs = len(self.rows)
        starts = torch.stack([self._starts(cell) for cell in self.grid.cells])  # cell pair
        order = sorted(range(len(self.grid.cells)), key=lambda index: self.entering.entry(self.grid.cells[index]))
        cells = repeat(torch.tensor(order), "cell -> (cell pair)", pair=n_pairs)
        pairs = repeat(torch.arange(n_pairs), "pair -> (cell pair)", cell=len(order))
        return cells, pairs, starts[cells, pairs]

    def _starts(self, cell: Cell) -> Int[Tensor, " pair"]:
        places = torch.arange(self.length)
        changed = places >= self.shared[:, None]
        if cell.places is not None:
            changed = changed & cell.places[self.rows]
        first = torch.where(changed, places, self.length).min(1).values
        last_read = self.length - 1 if self.reads is None else self.reads.max(-1).values
        return torch.where(first > last_read, self.length, first)

    def _coarser(self, starts: Int[Tensor, " row"]) -> Int[Tensor, " row"]:
        """Earlier starts, fewer of them, where rows are so small that each start costs more than the positions added."""
        width = self.base.at[Site("resid_pre", 0)].shape[-1]
        work = len(starts) // max(1, len(starts.unique())) * width  # entries a position
        return starts - starts % max(1, WORTH_A_START // max(1, work))

    def _reads(self) -> Tensor | None:
        """The positions read, [read] for all pairs or [pair read]; None for all."""
        positions = self.metric.reads.positions
        return None if positions is None else positions.cpu() % self.length

    # -- running them

    def _run_rows(self, cells: Tensor, pairs: Tensor, starts: Tensor, check: bool) -> tuple[Tensor, Tensor, Tensor]:
        keys = [self.entering.entry(self.grid.cells[cell]) for cell in cells.tolist()]
        by_place: dict[tuple[Entry, int, int | None], list[int]] = {}
        for index, (entry, start, cell) in enumerate(zip(keys, starts.tolist(), cells.tolist(), strict=True)):
            by_place.setdefault((entry, start, self.grid.cells[cell].layers[0]), []).append(index)
        groups: Groups = self._untouched(starts) if check else {}
        pending: dict[Entry, list[tuple[int, int | None, list[int]]]] = {}
        for (entry, start, layer), found in by_place.items():
            pending.setdefault(entry, []).append((start, layer, found))

        def enter(entry: Entry, into: Groups) -> None:
            for start, layer, found in pending.get(entry, []):
                index = torch.tensor(found)
                x = self.entering.stream(layer, cells[index], pairs[index], start)
                new = Rows(cells[index], pairs[index], self._cut(x, pairs[index], start) if entry > (self.n_layers - 1, 0) else x)
                into[start] = into[start].and_more(new) if start in into else new

        first = min(keys)[0] if not check else 0
        for layer in range(first, self.n_layers):
            enter((layer, 0), groups)
            mids = self._attend(layer, groups)
            if self.pieces.blocks[layer].parallel or not self.pieces.blocks[layer].has_mlp:
                groups = mids
                continue
            enter((layer, 1), mids)
            groups = self._through_mlp(self.pieces.blocks[layer], mids)
        enter((self.n_layers, 0), groups)
        return self._scored(groups)

    def _attend(self, layer: int, groups: Groups) -> Groups:
        """From resid_pre to resid_mid; in a parallel block to resid_post."""
        if not groups:
            return {}
        block, length = self.pieces.blocks[layer], _n_tokens(groups)
        x = _packed(groups)
        normed = block.normed(x)
        keys, values = (part.split(length) for part in block.keys_values(normed))
        kept = groups
        if layer == self.n_layers - 1:
            kept = {start: rows.with_stream(self._cut(rows.x, rows.pair, start)) for start, rows in groups.items()}
            x = _packed(kept)
            normed = block.normed(x)
        queries = block.queries(normed).split(_n_tokens(kept))
        z = [
            self._mixed(layer, start, rows, Attended(q, k, v))
            for (start, rows), q, k, v in zip(groups.items(), queries, keys, values, strict=True)
        ]
        out = block.joined(x, block.write(torch.cat(z)))
        if block.parallel and block.has_mlp:
            out = out + _in_parts(block.mlp, x)
        return _unpacked(kept, out)

    def _mixed(self, layer: int, start: int, rows: Rows, own: "Attended") -> Float[Tensor, "token head d_head"]:
        """z: attention of some rows' queries over the untouched keys before `start` and their own from there on."""
        block, n = self.pieces.blocks[layer], len(rows.cell)
        q, k, v = own.q, own.k, own.v
        places = torch.arange(start, self.length)
        asked = self._read_places(rows.pair, start) if layer == self.n_layers - 1 else places.expand(n, -1)
        k = rearrange(k, "(row pos) head d_head -> row pos head d_head", row=n)
        if block.share is not None:
            before = self.base.at[before_smearing(layer)]
            k = _smeared(k, before[rows.pair, start - 1] if start else None, block.share)
        k = block.rotated(k.flatten(0, 1), places.repeat(n).to(k.device))
        q = block.rotated(q, asked.flatten().to(q.device))
        q, k, v = (rearrange(part, "(row pos) head d_head -> row head pos d_head", row=n) for part in (q, k, v))
        if start:
            earlier = (self.entering.base_keys(layer), self.base.at[Site("v", layer)])
            k, v = (
                torch.cat([rearrange(old[:, :start], "pair pos head d_head -> pair head pos d_head")[rows.pair], new], dim=2)
                for old, new in zip(earlier, (k, v), strict=True)
            )
        whole = start == 0 and asked.shape[1] == self.length
        mask = None if whole else no_later(asked, self.length).to(q.device)
        z = nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=whole, scale=block.scale, enable_gqa=q.shape[1] != k.shape[1]
        )
        return rearrange(z, "row head pos d_head -> (row pos) head d_head")

    def _through_mlp(self, block: BlockPieces, groups: Groups) -> Groups:
        """From resid_mid to resid_post."""
        if not groups:
            return {}
        packed = _packed(groups)
        return _unpacked(groups, packed + _in_parts(block.mlp, packed))

    # -- what the metric reads

    def _read_places(self, pairs: Tensor, start: int) -> Int[Tensor, "row read"]:
        """The positions of each row that are computed at the end; those before `start` are left out or (per pair) moved there."""
        if self.reads is None:
            return torch.arange(start, self.length).expand(len(pairs), -1)
        if self.reads.ndim == 1:
            return self.reads[self.reads >= start].expand(len(pairs), -1)
        return self.reads[pairs].clamp(min=start)

    def _cut(self, x: Stream, pairs: Tensor, start: int) -> Float[Tensor, "row read d_model"]:
        """What the metric reads of a stream from `start` on."""
        places = (self._read_places(pairs, start) - start).to(x.device)
        return x.gather(1, repeat(places, "row read -> row read d_model", d_model=x.shape[-1]))

    def _scored(self, groups: Groups) -> tuple[Tensor, Tensor, Tensor]:
        found = [self._score(start, rows) for start, rows in groups.items()]
        cells, pairs, values = (torch.cat(parts) for parts in zip(*found, strict=True))
        real = cells != UNTOUCHED
        return cells[real], pairs[real], values[real.to(values.device)]

    def _score(self, start: int, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
        read = self.base.logits[rows.pair].clone()  # row read id
        new = self._logits(rows)
        where = self.reads if self.reads is not None else torch.arange(self.length)
        if where.ndim == 1:
            after = (where >= start).to(read.device)
            read[:, after] = new
        else:
            after = (where[rows.pair] >= start)[..., None].to(read.device)
            read = torch.where(after, new, read)
        self._check_untouched(start, rows, read)
        metric = self.metric.select(rows.pair)
        values = metric.score(at_least_float32(read), self.base.tokens[rows.pair].to(read.device))
        return rows.cell, rows.pair, values.to(torch.float64)

    def _logits(self, rows: Rows) -> Float[Tensor, "row read id"]:
        ids, count = self.metric.reads.ids, rows.x.shape[1]
        if ids is not None:
            ids = ids.to(rows.x.device) % self.pieces.W_U.shape[1]
            ids = ids if ids.ndim == 1 else repeat(ids[rows.pair], "row id -> (row read) id", read=count)
        logits = self.pieces.logits(rearrange(rows.x, "row read d_model -> (row read) d_model"), ids)
        return rearrange(logits, "(row read) id -> row read id", read=count).to(self.base.logits)

    # -- the rows that check

    def _untouched(self, starts: Tensor) -> Groups:
        """One untouched row from the first start, and one from the last."""
        first = self.base.at[Site("resid_pre", 0)]
        which = sorted({int(starts.min()), int(starts.max())})
        number = torch.tensor([UNTOUCHED])
        return {start: Rows(number, torch.tensor([0]), first[:1, start:].clone()) for start in which}

    def _check_untouched(self, start: int, rows: Rows, read: Tensor) -> None:
        if int(rows.cell[0]) != UNTOUCHED:
            return
        stream = self._cut(self.base.at[Site("resid_post", self.n_layers - 1)][:1, start:], torch.tensor([0]), start)
        for what, here, there in (
            ("residual stream", rows.x[:1], stream),
            ("logits", read[:1], self.base.logits[:1]),
        ):
            error, largest = float((here - there).abs().max()), float(there.abs().max())
            if not error <= tolerance(there.dtype) * (largest + 1e-6):
                raise NotTakenApart(f"taken apart, it does not give its own {what} (off by {error:.1e} in {largest:.1e})")


def shared_prefix(one: Int[Tensor, "pair pos"], other: Int[Tensor, "pair pos"]) -> Int[Tensor, " pair"]:
    """How many leading tokens each pair shares, pair by pair."""
    return (one == other).int().cumprod(1).sum(1).cpu()


def _packed(groups: Groups) -> Float[Tensor, "token d_model"]:
    return torch.cat([rearrange(rows.x, "row pos d_model -> (row pos) d_model") for rows in groups.values()])


def _unpacked(groups: Groups, packed: Float[Tensor, "token d_model"]) -> Groups:
    return {
        start: rows.with_stream(rearrange(part, "(row pos) d_model -> row pos d_model", row=len(rows.cell)))
        for (start, rows), part in zip(groups.items(), packed.split(_n_tokens(groups)), strict=True)
    }


def _in_parts(function: Callable[[Tensor], Tensor], packed: Float[Tensor, "token d_model"]) -> Float[Tensor, "token d_model"]:
    """`function` on some tokens after others: the neurons of all at once would not stay in the processor's cache."""
    size = TOKENS_AT_ONCE if packed.device.type == "cpu" else len(packed)
    return torch.cat([function(part) for part in packed.split(size)])


def _n_tokens(groups: Groups) -> list[int]:
    return [rows.x.shape[0] * rows.x.shape[1] for rows in groups.values()]


def _smeared(keys: Tensor, before: Tensor | None, share: Tensor) -> Tensor:
    if before is None:
        return smear_keys(keys, share)
    return smear_keys(torch.cat([before[:, None], keys], dim=1), share)[:, 1:]
