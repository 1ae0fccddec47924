"""The general way: one forward pass of the model itself, whose batch grows by the cells of a layer when the pass gets there.

Row 0 … n − 1 are the untouched pairs; each cell adds n rows, copied from those at the residual stream of the first layer that it
patches, so nothing before is computed twice. The model's own forward pass supplies masks and positions. Where it does not
bear rows that appear midway, all rows are there from the start. The untouched rows must come out as in the model's own run.
"""

from collections.abc import Iterator, Mapping

import torch
from einops import repeat
from torch import Tensor

from interp.interventions.patching.cells import Batch, Cell, Grid, tolerance
from interp.metrics.base import at_least_float32
from interp.models.calling import Hook, eval_mode, hooks_on, logits_of
from interp.models.pieces import NotTakenApart
from interp.models.writable import check_writable, resid_mid_route
from interp.sites import Site, layers_with


class Growing:
    """One batch of pairs, ready to run cells on."""

    def __init__(self, batch: Batch, grid: Grid, grow: bool):
        """`grow`: whether rows are added midway (or are there from the start)."""
        self.model, self.grid, self.base, self.sources = batch.model, grid, batch.base, batch.sources
        self.metric, self.rows = batch.metric, batch.rows
        model, base = batch.model, batch.base
        sites = list(dict.fromkeys(Site(grid.kind, layer) for cell in grid.cells for layer in cell.layers))
        check_writable(model, sites, base.tokens)
        self.grow = grow and bool(layers_with(model, "resid_pre"))
        self.through_attn_out = {
            site.layer for site in sites if site.kind == "resid_mid" and resid_mid_route(model, site, base.tokens) == "attn_out"
        }

    def run(self, rows_at_once: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Batches of (cell, pair, value). Raises `NotTakenApart` when the untouched rows do not come out as they should."""
        n_pairs = len(self.rows)
        order = sorted(range(len(self.grid.cells)), key=lambda index: self._first_layer(self.grid.cells[index]))
        for part in torch.tensor(order).split(max(1, rows_at_once // n_pairs)):
            yield self._pass(part)

    def cost_of_a_row(self) -> int:
        """Bytes that one row may need: its full logits, and a few activations."""
        tokens, config = self.base.tokens.shape[1], getattr(self.model, "cfg", None)
        width = getattr(config, "d_vocab", 0) or 0, getattr(config, "d_model", 0) or 256
        return tokens * (3 * width[0] + 24 * width[1]) * self.base.logits.element_size()

    def _first_layer(self, cell: Cell) -> int:
        layers = [layer or 0 for layer in cell.layers]
        return min(layers) if self.grow else 0

    def _pass(self, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n_pairs, numbers = len(self.rows), cells.tolist()
        place = {cell: slice((1 + index) * n_pairs, (2 + index) * n_pairs) for index, cell in enumerate(numbers)}
        tokens = self.base.tokens if self.grow else self.base.tokens.repeat(1 + len(numbers), 1)
        hooks: dict[str, list[Hook]] = {}
        if self.grow:
            for layer in layers_with(self.model, "resid_pre"):
                new = [cell for cell in numbers if self._first_layer(self.grid.cells[cell]) == layer]
                if new:
                    hooks.setdefault(Site("resid_pre", layer).hook_name, []).append(_grown(n_pairs, len(new)))
        for layer in dict.fromkeys(layer for cell in numbers for layer in self.grid.cells[cell].layers):
            self._patch_at(layer, [cell for cell in numbers if layer in self.grid.cells[cell].layers], place, hooks)
        with torch.no_grad(), eval_mode(self.model), hooks_on(self.model, {name: _chain(found) for name, found in hooks.items()}):
            logits = logits_of(self.model, tokens)
        if len(logits) != n_pairs * (1 + len(numbers)):
            raise NotTakenApart("it does not carry rows added midway to the end")
        return self._scored(logits, cells)

    def _patch_at(self, layer: int | None, cells: list[int], place: Mapping[int, slice], hooks: dict[str, list[Hook]]) -> None:
        site = Site(self.grid.kind, layer)
        masks = {
            cell: self.grid.cells[cell].mask(self.rows, self.sources[site], site.axes).to(self.sources[site].device)
            for cell in cells
        }

        def patch(activation: Tensor) -> Tensor:
            if len(activation) < max(place[cell].stop for cell in cells):
                raise NotTakenApart(f"what flows at {site} has no row for each example")
            edited = activation.clone()
            for cell in cells:
                mine = place[cell]
                edited[mine] = torch.where(masks[cell], self.sources[site].to(edited), edited[mine])
            return edited

        if layer not in self.through_attn_out:
            hooks.setdefault(site.hook_name, []).append(patch)
            return
        before: list[Tensor] = []

        def keep(resid_pre: Tensor) -> None:
            before[:] = [resid_pre]

        def late(attn_out: Tensor) -> Tensor:
            return attn_out + (patch(before[0] + attn_out) - (before[0] + attn_out))

        hooks.setdefault(Site("resid_pre", layer).hook_name, []).append(keep)
        hooks.setdefault(Site("attn_out", layer).hook_name, []).append(late)

    def _scored(self, logits: Tensor, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n_pairs = len(self.rows)
        pairs = torch.arange(n_pairs).repeat(1 + len(cells))
        read = self.metric.reads.select(pairs).pick(logits)
        largest = float(self.base.logits.abs().max())
        error = float((read[:n_pairs] - self.base.logits).abs().max())
        if not error <= tolerance(read.dtype) * (largest + 1e-6):
            raise NotTakenApart(f"its untouched rows come out differently beside others (off by {error:.1e} in {largest:.1e})")
        metric = self.metric.select(pairs[n_pairs:])
        tokens = self.base.tokens[pairs[n_pairs:]].to(read.device)
        values = metric.score(at_least_float32(read[n_pairs:]), tokens).to(torch.float64)
        return repeat(cells, "cell -> (cell pair)", pair=n_pairs), pairs[n_pairs:], values


def _grown(n_pairs: int, n_cells: int) -> Hook:
    return lambda stream: torch.cat([stream, stream[:n_pairs].repeat(n_cells, *[1] * (stream.ndim - 1))])


def _chain(functions: list[Hook]) -> Hook:
    def hook(activation: Tensor) -> Tensor:
        for function in functions:
            changed = function(activation)
            activation = activation if changed is None else changed
        return activation

    return hook
