"""Smeared keys, measured causally: how much of a head's key comes from the token before it.

Olsson et al. 2022 (Argument 2) mix each key with the one before, k_j ← σ(α) k_j + (1 − σ(α)) k_{j−1}. Here nothing is
assumed about how a model does it: a token is exchanged, and what is measured is how far the key moves.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from einops import repeat
from jaxtyping import Int
from torch import Tensor

from interp.errors import DataError, ModelError
from interp.probes.repeats import ordinary_ids
from interp.result import Result, mean_over_examples
from interp.running import Probe, Readings, run
from interp.sites import HookedModel, Site, sites_of


@dataclass(frozen=True)
class KeySmear(Probe):
    """Reads batches laid out by `exchanged_tokens`: for each example four rows, two exchanges at two places."""

    position: int
    n_heads: int | None = None  # keys shared by groups of heads are repeated, to line up with the other scores
    name: ClassVar[str] = "key_smear"

    def sites(self, model: HookedModel) -> Sequence[Site]:
        return sites_of(model, "k")

    def read(self, activation: Tensor, site: Site, prepared: Any) -> Tensor:
        keys = activation[:, self.position]
        n_heads, n_groups = self.n_heads or keys.shape[1], keys.shape[1]
        if n_heads % n_groups:
            told = f"it has {n_groups} of them per layer and the model's cfg.n_heads is {n_heads}"
            raise ModelError(f"keys at {site}, shared by groups of heads", told, "Set cfg.n_heads to the number of query heads")
        members = n_heads // n_groups
        return repeat(keys, "batch group d_head -> batch (group member) d_head", member=members)

    def result(self, readings: Readings) -> Result:
        shares = torch.stack([_share(keys) for keys in readings.values()], dim=1)
        mean, stderr = mean_over_examples(shares)
        return Result(
            name=self.name,
            values=mean,
            stderr=stderr,
            axes=("layer", "head"),
            labels={"layer": tuple(str(site.layer) for site in readings)},
            baseline=0.0,
            count=len(shares),
            unit="share of the key",
            description="share of the key owed to the earlier token: how far the key moves when that token is exchanged, "
            "over that plus how far it moves when the current one is",
        )


def key_smear(
    model: HookedModel,
    *,
    offset: int = -1,
    n_examples: int = 64,
    length: int = 16,
    seed: int = 0,
    vocabulary: Sequence[int] | None = None,
    batch_size: int | None = None,
) -> Result:
    """Share of each head's key owed to the previous token (or to the one at `offset`), axes (layer, head), in [0, 1].

    For random contexts and a random pair of tokens u, v, the key at one position is read with u and with v as the previous
    token (distance p) and with u and with v as the current one (distance c), the other held fixed; the share is p / (p + c),
    its mean and standard error over examples. It equals 1 − σ(α) on a smeared-key model whose keys are otherwise linear in
    the token embedding, and 0 when the key does not depend on the previous token; NaN when it depends on neither. In deeper
    layers it shows what previous-token heads feed into keys. Rows begin with BOS where the model's tokenizer has one. Keys are
    read before any rotation; one shared by a group of heads counts for each of them. `offset=-2` is the wrong-lag control.
    `vocabulary` restricts the token ids used.
    Raises `DataError` for an offset that is not negative or does not fit. Cost: one forward pass on 4 × `n_examples` rows.
    """
    if not -length < offset < 0 or n_examples < 1:
        raise DataError(
            f"key_smear(offset={offset}, length={length}, n_examples={n_examples})",
            "no earlier token is there",
            "Use 0 > offset > -length",
        )
    ids = ordinary_ids(model) if vocabulary is None else torch.tensor(sorted(set(vocabulary)))
    tokens, position = exchanged_tokens(ids, n_examples, length, offset, seed)
    bos = getattr(getattr(model, "tokenizer", None), "bos_token_id", None)
    if bos is not None:
        tokens, position = torch.cat([torch.full_like(tokens[:, :1], bos), tokens], dim=1), position + 1
    n_heads = getattr(getattr(model, "cfg", None), "n_heads", None)
    result = run(model, tokens, [KeySmear(position, n_heads)], batch_size=batch_size)[KeySmear.name]
    return result.with_provenance(replace(result.provenance, seed=seed))


def exchanged_tokens(
    ids: Int[Tensor, " id"], n_examples: int, length: int, offset: int, seed: int
) -> tuple[Int[Tensor, "row pos"], int]:
    """Rows in groups of four, and the position of the key to read (the last).

    In rows 0 and 1 of a group the token at `offset` from the key is u, then v, and the key's own token is w; in rows 2 and 3
    the key's own token is u, then v, and the one at `offset` is w. All other tokens are equal within the group.
    """
    if len(ids) < length + 2:
        raise DataError(
            f"key_smear on {len(ids)} token ids",
            f"{length + 2} distinct ones are needed",
            "Give a larger vocabulary or a smaller length",
        )
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.stack([ids[torch.randperm(len(ids), generator=generator)[: length + 2]] for _ in range(n_examples)])
    context, u, v = drawn[:, :length], drawn[:, length], drawn[:, length + 1]
    position = length - 1
    rows = context.unsqueeze(1).repeat(1, 4, 1)
    w = context[:, position]
    for row, (earlier, current) in enumerate([(u, w), (v, w), (w, u), (w, v)]):
        rows[:, row, position + offset], rows[:, row, position] = earlier, current
    return rows.flatten(0, 1), position


def _share(keys: Tensor) -> Tensor:
    groups = keys.to(torch.float64).unflatten(0, (-1, 4))  # example, row, head, d_head
    moved_earlier = (groups[:, 1] - groups[:, 0]).norm(dim=-1)
    moved_current = (groups[:, 3] - groups[:, 2]).norm(dim=-1)
    return moved_earlier / (moved_earlier + moved_current)  # 0 / 0: a key that never moves has no share
