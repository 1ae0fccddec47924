"""Models wired by hand, of which every score is known on paper: what the probes are calibrated on.

Attention is described by hand too: `attends(i)` says which keys query i attends to on BOS + r + r …, in what shares. From that
plain loops work out what each score must be; nothing here uses the probes. Queries and keys match with `STRENGTH` in
the exponent, so attention to anything but the matches is about e^-60 and the numbers hold to float32.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from interp.models.toys import AttnAttn, ConvAttn, SmearedKeyAttn, Toy

PERIOD, COPIES = 25, 4  # of the repeats that `head_scores` draws by itself
LENGTH = 1 + PERIOD * COPIES
STRENGTH = 60.0  # exponent of a matching query and key
GAIN = 10.0  # logit of the token that the induction head copies
SOFT = 8.0  # the exponent where a share of the key must show in the scores

Row = Mapping[int, float]  # key -> share of attention; shares sum to 1
Attends = Callable[[int], Row]
Expected = Mapping[str, tuple[tuple[float, ...], ...]]  # measurement -> a number per layer and head


@dataclass(frozen=True)
class Constructed:
    """A model and its known answers: `expected[measurement][layer][head]`, NaN where the measurement is undefined.

    The scores are those on BOS + r repeated `COPIES` times, r of `PERIOD` distinct tokens. `about` says what it shows, and
    `control` what must *not* be seen in it.
    """

    name: str
    model: Toy
    expected: Expected
    about: str
    control: bool = False


def induction_circuit(d_vocab: int = 31) -> Constructed:
    """Two layers of two heads, wired by hand: the smallest transformer that does induction.

    The residual stream has a block per content: token, previous token, output, position. L0H0 attends to the position before and
    copies its token into "previous token"; L0H1 is all zero, so it attends equally to everything and writes nothing; L1H0 asks
    for keys whose *previous* token is the current one (K-composition with L0H0) and copies their token to the output; L1H1
    attends equally to all copies of the current token, itself included, and writes nothing. Loss on later copies:
    ln(1 + (d_vocab − 1) e^−10) per token.
    """
    tok, prev, out = (slice(k * d_vocab, (k + 1) * d_vocab) for k in range(3))
    pos = slice(3 * d_vocab, 3 * d_vocab + LENGTH + 2)
    d_head = max(d_vocab, LENGTH + 3)
    model = AttnAttn(
        d_vocab=d_vocab,
        d_model=pos.stop,
        n_heads=2,
        d_head=d_head,
        n_ctx=LENGTH + 2,
        residual=True,
        positions=True,
        output_projection=True,
    )
    with torch.no_grad():
        _clear(model)
        model.embed.weight[:, tok] = torch.eye(d_vocab)
        model.pos_embed.weight[:, pos] = torch.eye(LENGTH + 2)
        first, second = model.blocks[0].attn, model.blocks[1].attn
        _match_previous_position(first, 0, pos)
        _copy(first, 0, tok, prev)
        _match(second, 0, tok, prev)
        _copy(second, 0, tok, out)
        _match(second, 1, tok, tok)
        model.unembed.weight[:, out] = GAIN * torch.eye(d_vocab)
    nan, root = math.nan, d_vocab**-0.5
    expected: dict[str, tuple[tuple[float, ...], ...]] = {
        **expected_scores([[_previous, _everything], [_followers, _copies]]),
        "key_smear": ((nan, nan), (1.0, 0.0)),  # L0: keys of positions or of nothing
        "copying (eigenvalue)": ((nan, nan), (1.0, nan)),
        "copying (logit raise)": ((nan, nan), (1.0, nan)),
        "qk_trace": ((nan, nan), (1.0, nan)),
        "composition K from L0H0": ((nan, nan), (root, 0.0)),
        "in_context_learning": ((_learning(d_vocab),),),
        "repeat_loss (second copy)": ((math.log(1 + (d_vocab - 1) * math.exp(-GAIN)),),),
        "token_losses (second copy)": ((math.log(1 + (d_vocab - 1) * math.exp(-GAIN)),),),
        "perplexity (smallest)": ((1 + (d_vocab - 1) * math.exp(-GAIN),),),
    }
    return Constructed("induction_circuit", model.eval(), expected, "previous-token, nothing, induction and duplicate heads")


def smeared_induction(share: float = 0.75, d_vocab: int = 29) -> Constructed:
    """One layer, one head: queries and keys of token identity, each key `share` of the previous token's (Olsson et al. 2022).

    Row i attends to what followed each earlier copy with exponent share · SOFT, to the copies and itself with (1 − share) · SOFT,
    and to everything else with 0; so induction needs a share above one half. `key_smear` is `share` exactly; σ(α) is 1 − share.
    """
    d_model = 2 * d_vocab + 3
    model = SmearedKeyAttn(
        d_vocab=d_vocab, d_model=d_model, n_heads=1, d_head=d_vocab + 1, n_ctx=LENGTH + 1, output_projection=True
    )
    tok, out = slice(0, d_vocab), slice(d_vocab, 2 * d_vocab)
    with torch.no_grad():
        _clear(model)
        model.embed.weight[:, tok] = torch.eye(d_vocab)
        attention: Any = model.blocks[0].attn
        _match(attention, 0, tok, tok, SOFT)
        _copy(attention, 0, tok, out)
        attention.alpha.fill_(float(torch.logit(torch.tensor(1 - share, dtype=torch.float64))))
        model.unembed.weight[:, out] = GAIN * torch.eye(d_vocab)
    expected = {**expected_scores([[_softly(share, 1 - share)]]), "key_smear": ((share,),)}
    about = "keys that hold a share of the previous token" if share else "without smear, one layer cannot do induction"
    return Constructed(f"smeared_induction({share:g})", model.eval(), expected, about, control=share == 0)


def conv_mixture(previous: float = 0.6, current: float = 0.2, d_vocab: int = 33) -> Constructed:
    """A causal convolution that builds keys `previous` · token before + `current` · token itself; queries are the token.

    The kernel keeps the token in one block of channels and writes the mixture into another. `key_smear` is previous /
    (previous + current); the scores are those of keys with these two exponents (times SOFT).
    """
    model = _conv_model(d_vocab, {-1: previous, 0: current}, width=3)
    share = previous / (previous + current)
    expected = {
        **expected_scores([[_softly(previous, current)]]),
        "key_smear": ((share,),),
        "key_smear (lag 2)": ((0.0,),),
        "kernel_stats (largest, by tap)": ((previous, 1.0, 0.0),),
    }
    return Constructed(f"conv_mixture({previous:g}, {current:g})", model, expected, "a convolution with these two taps")


def wrong_lag_smear(earlier: float = 0.75, d_vocab: int = 35) -> Constructed:
    """A control: keys made of the token *two* before, and 1 − `earlier` of the token itself.

    Not an induction head, and no smear at lag 1; at lag 2 `key_smear` is `earlier`.
    """
    model = _conv_model(d_vocab, {-2: earlier, 0: 1 - earlier}, width=5)
    attends = _softly(earlier, 1 - earlier, lag=2)
    expected = {**expected_scores([[attends]]), "key_smear": ((0.0,),), "key_smear (lag 2)": ((earlier,),)}
    return Constructed("wrong_lag_smear", model, expected, "keys of the token two before", control=True)


def position_not_content(period: int = PERIOD, d_vocab: int = 37) -> Constructed:
    """A control: a head that attends `period` − 1 positions back, whatever the tokens are (row i < period − 1 attends to row 0).

    On repeats of that period its induction score is 1, though it knows nothing of tokens: at any other period it is 0, and
    its null on tokens in random order is 1 as well.
    """
    d_model = d_vocab + LENGTH + 2
    model = AttnAttn(
        d_vocab=d_vocab,
        n_layers=1,
        d_model=d_model,
        d_head=LENGTH + 3,
        n_ctx=LENGTH + 2,
        residual=True,
        positions=True,
        output_projection=True,
    )
    pos = slice(d_vocab, d_model)
    with torch.no_grad():
        _clear(model)
        model.embed.weight[:, :d_vocab] = torch.eye(d_vocab)
        model.pos_embed.weight[:, pos] = torch.eye(LENGTH + 2)
        _match_previous_position(model.blocks[0].attn, 0, pos, distance=period - 1)
    expected = {
        **expected_scores([[lambda i: {max(0, i - period + 1): 1.0}]]),
        "key_smear": ((math.nan,),),
        "induction at another period": ((0.0,),),
        "null of induction": ((float(period == PERIOD),),),
    }
    return Constructed(f"position_not_content({period})", model.eval(), expected, "a fixed distance, not content", control=True)


def all_constructed() -> tuple[Constructed, ...]:
    """Every constructed model that `interp.calibrate` measures: small enough for seconds on a CPU."""
    shares = tuple(smeared_induction(share) for share in (0.0, 0.5, 0.75, 1.0))
    return (induction_circuit(), *shares, conv_mixture(), wrong_lag_smear(), position_not_content())


def expected_scores(layers: list[list[Attends]]) -> dict[str, tuple[tuple[float, ...], ...]]:
    """Every attention score on the repeats, by plain loops over rows, for heads that attend as told (layer by layer)."""
    rows = range(1, LENGTH)
    later = range(PERIOD + 1, LENGTH)

    def copies(i: int) -> range:
        return range(i - PERIOD, 0, -PERIOD)  # earlier places of the same token

    def mean(head: list[Row], over: range, keys: Callable[[int], list[int]]) -> float:
        return sum(head[i].get(j, 0.0) for i in over for j in keys(i)) / len(over)

    def entropy(head: list[Row]) -> float:
        return sum(-share * math.log(share) for i in rows for share in head[i].values() if share) / len(rows)

    measures: dict[str, Callable[[list[Row]], float]] = {
        "induction": lambda head: mean(head, range(PERIOD + 1, 2 * PERIOD + 1), lambda i: [i - PERIOD + 1]),
        "prefix_matching": lambda head: mean(head, later, lambda i: [j + 1 for j in copies(i)]),
        "duplicate_token": lambda head: mean(head, later, lambda i: list(copies(i))),
        "previous_token": lambda head: mean(head, range(2, LENGTH), lambda i: [i - 1]),
        "current_token": lambda head: mean(head, rows, lambda i: [i]),
        "first_token": lambda head: mean(head, rows, lambda i: [0]),
        "entropy": entropy,
    }
    patterns = [[[attends(i) for i in range(LENGTH)] for attends in heads] for heads in layers]
    return {name: tuple(tuple(measure(head) for head in heads) for heads in patterns) for name, measure in measures.items()}


def _equally(keys: list[int]) -> Row:
    return dict.fromkeys(keys, 1 / len(keys))


def _everything(i: int) -> Row:
    return _equally(list(range(i + 1)))


def _previous(i: int) -> Row:
    return {max(0, i - 1): 1.0}


def _copies(i: int) -> Row:
    return _equally([i] if i == 0 else list(range(i, 0, -PERIOD)))


def _followers(i: int) -> Row:
    followers = [j + 1 for j in range(i - PERIOD, 0, -PERIOD)]
    return _equally(followers) if followers else _everything(i)  # nothing matches: all keys alike


def _softly(previous: float, current: float, lag: int = 1) -> Attends:
    """Attention of a head whose key j is previous · token (j − lag) + current · token j, and whose query is its token."""

    def token(j: int) -> int:
        return 0 if j == 0 else (j - 1) % PERIOD + 1

    def key(j: int) -> dict[int, float]:
        earlier = j - lag
        if earlier < 0:  # a smeared first key stays whole, a convolution reads zeros there: both only ever hold BOS
            return {token(j): current}
        return {token(j): current + previous} if token(earlier) == token(j) else {token(j): current, token(earlier): previous}

    def attends(i: int) -> Row:
        weights = {j: math.exp(SOFT * key(j).get(token(i), 0.0)) for j in range(i + 1)}
        total = sum(weights.values())
        return {j: weight / total for j, weight in weights.items()}

    return attends


def _learning(d_vocab: int) -> float:
    """Loss of token 60 (in the third copy, found by induction) minus that of token 10, given 10 different tokens before it.

    Before any repeat the head's output is the mean of the 10 tokens seen, each with logit GAIN / 10; the target has logit 0.
    """
    seen = 10
    early = math.log(seen * math.exp(GAIN / seen) + d_vocab - seen)
    return math.log(1 + (d_vocab - 1) * math.exp(-GAIN)) - early


def _conv_model(d_vocab: int, taps: Mapping[int, float], width: int) -> ConvAttn:
    d_model = 2 * d_vocab + 3
    model = ConvAttn(d_vocab=d_vocab, d_model=d_model, kernel=width, d_head=d_vocab + 1, n_ctx=LENGTH + 1, output_projection=True)
    tok, mixed = slice(0, d_vocab), slice(d_vocab, 2 * d_vocab)
    with torch.no_grad():
        _clear(model)
        model.embed.weight[:, tok] = torch.eye(d_vocab)
        kernel = model.conv.conv.weight  # filter, channel, tap
        kernel[tok, tok, model.conv.offsets.index(0)] = torch.eye(d_vocab)
        for offset, weight in taps.items():
            kernel[mixed, tok, model.conv.offsets.index(offset)] = weight * torch.eye(d_vocab)
        _match(model.blocks[0].attn, 0, tok, mixed, SOFT)
        _copy(model.blocks[0].attn, 0, tok, tok)
        model.unembed.weight[:, tok] = GAIN * torch.eye(d_vocab)
    return model.eval()


def _clear(model: Toy) -> None:
    for parameter in model.parameters():
        parameter.zero_()


def _match(attention: Any, head: int, query: slice, key: slice, strength: float = STRENGTH) -> None:
    """Make the head attend where the query's block equals the key's block."""
    n = query.stop - query.start
    attention.W_Q[head, query, :n] = strength / attention.scale * torch.eye(n)
    attention.W_K[head, key, :n] = torch.eye(n)


def _match_previous_position(attention: Any, head: int, pos: slice, distance: int = 1) -> None:
    """Make position i attend to position i − distance, or to 0 where there is none."""
    n = pos.stop - pos.start
    attention.W_Q[head, pos, :n] = STRENGTH / attention.scale * torch.eye(n)
    for i in range(n):
        attention.W_K[head, pos.start + max(0, i - distance), i] = 1.0


def _copy(attention: Any, head: int, source: slice, target: slice) -> None:
    """Make the head write the attended position's `source` block into `target`."""
    n = source.stop - source.start
    attention.W_V[head, source, :n] = torch.eye(n)
    attention.W_O[head, :n, target] = torch.eye(n)
