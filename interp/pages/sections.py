"""The sections of an overview, from what was measured. What was refused is said where it would have stood."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd
import torch

from interp.models import AuditResult
from interp.pages.heads import DRAWN, LEAST_SHARE, Head, ablated_heads, at_head, name_of, null_of, score_of, sets_of, strongest
from interp.pages.measuring import Found, Refused, gap_in_words
from interp.report import (
    AttentionMaps,
    Block,
    Figure,
    Grid,
    HeadAtlas,
    NextTokens,
    Prose,
    Section,
    StackedTokens,
    Table,
    TokenRow,
    filter_distributions,
    kernel_maps,
)
from interp.result import Result

LOWEST_FIRST = ("entropy",)
MOST_MAPS, MOST_ROWS = 3, 3


def scores_section(found: Found, tokens: Sequence[str], told: str) -> Section:
    """Every head: the atlas with the scores, and the strongest heads of each score beside baseline and null."""
    scores, patterns = found["scores"], found["patterns"]
    blocks: list[Block] = []
    if isinstance(patterns, Refused):
        blocks.append(_refusal("The attention of each head", patterns))
    else:
        of_heads = {} if isinstance(scores, Refused) else {name: score_of(scores, name) for name in scores.labels_of("score")}
        caption = f"Attention on {told}. Choose a head in the map of scores, or among the thumbnails."
        blocks.append(HeadAtlas(patterns, tokens, caption, scores=of_heads or None))
    if isinstance(scores, Refused):
        return Section("Every head", [*blocks, _refusal("Scores", scores)])
    if isinstance(found["null"], Refused):
        blocks.append(_refusal("The null of the scores", found["null"]))
    caption = (
        "The strongest heads of each score (of entropy the most focused). A uniform head gets the baseline. The null is the "
        "score on the same tokens in random order; of the scores of positions (previous, current, first), on shuffled keys."
    )
    blocks.append(Table(_strongest(scores, found["null"]), caption))
    lead = (
        f"Read on {scores.count} sequences of random tokens, said four times over. Scores are shares of attention; "
        "entropy is in nats, low means focused."
    )
    return Section("Every head", blocks, lead=lead)


def maps_section(found: Found, tokens: Sequence[str], told: str) -> Section:
    """At most three heads that matter, large."""
    patterns = found["patterns"]
    if isinstance(patterns, Refused):
        return Section("The heads that matter", [_refusal("Attention maps", patterns)])
    chosen = heads_that_matter(found)
    if not chosen:
        return Section("The heads that matter", [Prose("None can be named: neither scores nor ablation could be had.")])
    rows, columns = patterns.labels_of("layer"), patterns.labels_of("head")
    maps = [patterns.at(layer=rows.index(str(layer)), head=columns.index(str(head))) for layer, head in chosen]
    panel = replace(
        maps[0],
        values=torch.stack([one.values for one in maps]),
        axes=("head", "query", "key"),
        labels={"head": tuple(name_of(head) for head in chosen)},
    )
    why = "; ".join(f"{name_of(head)}: {reason}" for head, reason in chosen.items())
    return Section(
        "The heads that matter",
        [AttentionMaps([(", ".join(map(name_of, chosen)), panel)], tokens, f"Attention on {told}. {why}.")],
    )


def heads_that_matter(found: Found) -> dict[Head, str]:
    """At most three heads, each with why: the strongest for induction and for the previous token, and the costliest to lose."""
    candidates: list[tuple[Result, str, str, float]] = []
    scores, ablation = found["scores"], found["ablation"]
    if not isinstance(scores, Refused):
        named = {"induction": -1.0, "previous_token": LEAST_SHARE, "current_token": LEAST_SHARE}
        known = [name for name in named if name in scores.labels_of("score")]
        candidates += [(score_of(scores, name), f"the highest {name} score", ".2f", named[name]) for name in known]
    if not isinstance(ablation, Refused):
        candidates.insert(2, (ablation, "the costliest to lose, in nats", "+.2f", -math.inf))
    chosen: dict[Head, str] = {}
    for result, why, form, least in candidates:
        for head in strongest(result, 1):
            if at_head(result, head) >= least:
                told = f"{why} ({at_head(result, head):{form}})"
                chosen[head] = f"{chosen[head]}, {told}" if head in chosen else told
    return dict(list(chosen.items())[:MOST_MAPS])


def worth_section(found: Found) -> Section:
    """The ablation sweep, and the induction heads beside random ones."""
    blocks: list[Block] = []
    ablation, cause = found["ablation"], found["cause"]
    if isinstance(ablation, Refused):
        blocks.append(_refusal("Ablating each head", ablation))
    else:
        blocks.append(Grid(ablation, "What the loss on the second copy rises by when one head is replaced by its mean, in nats."))
    if isinstance(cause, Refused):
        blocks.append(_refusal("Ablating the induction heads together", cause))
    else:
        blocks.append(
            Grid(
                cause,
                f"{ablated_heads(cause)} together, and {_others(cause)}: what each copy's loss rises by, in nats.",
            )
        )
    lead = "A head is worth what the model loses without it. Heads that stand in for each other look worthless one by one."
    return Section("What each head is worth", blocks, lead=lead)


def _others(cause: Result) -> str:
    """The sets of other heads, in words."""
    if cause.labels_of("set")[-1].startswith(DRAWN):
        return "random draws of as many others"
    size = len(next(iter(sets_of(cause).values())))
    return "every other head" if size == 1 else f"every set of {size} others"


def patching_section(found: Found) -> Section:
    """Both patching grids."""
    captions = {
        "patched heads": "A head's output, at all positions, taken from the clean run: how much of the answer comes back.",
        "patched positions": "The residual stream at one place, before each layer, taken from the clean run.",
    }
    blocks = [_or_refusal(found[name], name.capitalize(), partial(Grid, caption=text)) for name, text in captions.items()]
    lead = (
        "Pairs of prompts that differ in the token to be copied. Recovery is 0 where nothing comes along and 1 where all of the "
        "difference between the answers does."
    )
    gap = found["answer gap"]
    if not isinstance(gap, Refused):
        lead += f" That difference, clean minus corrupted, is {gap_in_words(gap)} over {gap.count} pairs."
    return Section("Where the answer is made", blocks, lead=lead)


def tokens_section(found: Found, tokens: Sequence[str], told: str, d_vocab: int | None) -> Section:
    """Loss and induction on the same text, and the next-token predictions."""
    blocks: list[Block] = []
    rows: list[TokenRow] = []
    losses, following = found["token losses"], found["following"]
    if isinstance(losses, Refused):
        blocks.append(_refusal("The loss of each token", losses))
    else:
        loss = losses.at(sequence=0)
        most = math.log(d_vocab) if d_vocab else max(1.0, float(loss.values.nan_to_num(0).max()))
        rows.append(TokenRow("loss", loss, 0, most))
    if isinstance(following, Refused):
        blocks.append(_refusal("Induction token by token", following))
    else:
        rows.append(TokenRow(following.name, following, 0, 1))
    if rows:
        end = "; the scale of the loss ends where a model guesses blindly" if d_vocab else ""
        blocks.insert(0, StackedTokens(tokens, rows, f"{told.capitalize()}{end}."))
    guesses = found["next tokens"]
    caption = f"What it expects next at each place of {told}."
    blocks.append(_or_refusal(guesses, "Next tokens", lambda one: NextTokens(tokens, one.texts, one.probabilities, caption)))
    return Section("Token by token", blocks)


def learning_section(found: Found) -> Section:
    """What the context is worth."""
    blocks = [
        _or_refusal(found["repeat loss"], "Loss on a repeat", lambda one: Table(one.to_frame(), one.description + ", in nats.")),
        _or_refusal(
            found["in-context learning"], "In-context learning", lambda one: Table(one.to_frame(), one.description + ", in nats.")
        ),
    ]
    return Section("What the context is worth", blocks, lead="Random tokens: only what was read before can help.")


def keys_section(found: Found) -> Section:
    """Smeared keys, and the kernel where there is a convolution."""
    caption = "Share of each key owed to the token before it."
    blocks = [
        _or_refusal(found["smear"], "Smeared keys", lambda one: _shares(one, caption)),
        _or_refusal(found["smear control"], "Their control", lambda one: _shares(one, "The control: the token two before it.")),
    ]
    stats, maps, norms = (found[name] for name in ("kernel statistics", "kernel maps", "filter norms"))
    if isinstance(stats, Refused):
        return Section("Keys and kernels", [*blocks, _refusal("Kernels", stats)])
    frame = stats.to_frame().pivot_table(index=["kernel", "tap"], columns="statistic", values="value", sort=False).reset_index()
    blocks.append(
        Table(frame, "Weights of the convolution by tap; the effective kernel is the one used, masked taps are zero in it.")
    )
    blocks.append(
        _or_refusal(maps, "Kernel maps", lambda one: Figure(kernel_maps(one), "Kernel matrices per tap.", "Effective kernel."))
    )
    if not isinstance(norms, Refused):
        alt = "Distribution of filter norms per tap."
        blocks.append(Figure(filter_distributions(norms), alt, "How strongly each filter reads each tap."))
    return Section("Keys and kernels", blocks)


def sites_section(found: Found) -> Section:
    """What can be read and written."""
    lead = "Each site was tried: an edit where “writable” says no would be dropped, or reach only part of the model."
    return Section(
        "What can be read and changed",
        [_or_refusal(found["audit"], "The audit", lambda one: Table(_grouped(one), "Sites."))],
        lead=lead,
    )


def _strongest(scores: Result, null: Any) -> pd.DataFrame:
    records = []
    for name in scores.labels_of("score"):
        score = score_of(scores, name)
        frame = score.to_frame()
        for head in strongest(score, MOST_ROWS, largest=name not in LOWEST_FIRST):
            row = frame[(frame["layer"] == head[0]) & (frame["head"] == head[1])].iloc[0]
            record = {"score": name, "head": name_of(head), "value": row["value"], "stderr": row.get("stderr", math.nan)}
            record["baseline"] = row["baseline"]
            if not isinstance(null, Refused):
                record |= {f"null {statistic}": at_head(null_of(null, name, statistic), head) for statistic in ("mean", "q95")}
            records.append(record)
    return pd.DataFrame(records)


def _shares(result: Result, caption: str) -> Grid:
    return Grid(result, caption, min_value=0, max_value=1)


def _grouped(found: AuditResult) -> pd.DataFrame:
    """One row per kind of site and finding, its layers together."""
    frame = found.to_frame()
    keys = ["kind", "exists", "fires", "readable", "writable", "note"]
    layers = frame.groupby(keys, sort=False)["layer"].agg(
        lambda column: ", ".join(str(layer) for layer in column if layer is not None)
    )
    return layers.rename("layers").reset_index()[["kind", "layers", *keys[1:]]]


def _or_refusal(reading: Any, what: str, block: Callable[[Any], Block]) -> Block:
    return _refusal(what, reading) if isinstance(reading, Refused) else block(reading)


def _refusal(what: str, refused: Refused) -> Prose:
    return Prose(f"{what}: not shown, because {refused.reason}.")
