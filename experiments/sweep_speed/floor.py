"""The fewest floating-point operations that an exact sweep needs, in closed form; matrix products only, attention counted dense.

Per token a block takes (8 + mlp) d² + 4 S d: four projections, the MLP (mlp = 16 at four times the width, 0 without one), and
scores and mixing over S keys. What is saved against one full pass per cell: blocks before the patch; positions before the patch, or
before the prompts differ; in the last block all but keys, values and the position read; all logits but the two that are read.
The metric is a logit difference at the last position.
"""

from dataclasses import dataclass

READ_IDS = 2


@dataclass(frozen=True)
class Shape:
    """What the count depends on."""

    n_layers: int
    d_model: int
    n_heads: int
    d_vocab: int
    n_tokens: int
    mlp: int  # FLOPs of the MLP per token, in d_model²

    @property
    def block(self) -> int:
        """One whole block, per token."""
        return (8 + self.mlp) * self.d_model**2 + 4 * self.n_tokens * self.d_model

    def last_block(self, tokens: int) -> int:
        """The last block: keys and values of `tokens` positions, everything else at one."""
        return (4 * tokens + 4 + self.mlp) * self.d_model**2 + 4 * self.n_tokens * self.d_model

    @property
    def read(self) -> int:
        """The logits that the metric reads."""
        return 2 * self.d_model * READ_IDS


def heads_floor(shape: Shape, shared: int = 0) -> int:
    """Every head's z patched at all positions, when the prompts share their first `shared` tokens."""
    total, d_head = 0, shape.d_model // shape.n_heads
    for layer in range(shape.n_layers):
        last = layer == shape.n_layers - 1
        tokens = 1 if last else shape.n_tokens - shared
        total += 2 * tokens * d_head * shape.d_model + shape.mlp * tokens * shape.d_model**2 + shape.read
        if not last:
            total += (shape.n_layers - 2 - layer) * tokens * shape.block + shape.last_block(tokens)
    return shape.n_heads * total


def positions_floor(shape: Shape, shared: int = 0, every: int = 1) -> int:
    """resid_pre patched at each layer and every `every`-th position; those before `shared` cannot differ and cost nothing."""
    total = 0
    for layer in range(shape.n_layers):
        for place in range(0, shape.n_tokens, every):
            if place >= shared:
                tokens = shape.n_tokens - place
                total += (shape.n_layers - 1 - layer) * tokens * shape.block + shape.last_block(tokens) + shape.read
    return total


def two_runs(shape: Shape) -> int:
    """The run that is read and the run that is patched, each unembedded at the last position."""
    return 2 * (shape.n_layers * shape.n_tokens * shape.block + 2 * shape.d_model * shape.d_vocab)


def loop_count(shape: Shape, cells: int) -> int:
    """One full pass, with all logits, for each cell."""
    a_pass = shape.n_tokens * (shape.n_layers * shape.block + 2 * shape.d_model * shape.d_vocab)
    return cells * a_pass
