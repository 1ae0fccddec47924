"""`overview`: what there is to know about one model, measured and put on a page."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jaxtyping import Int
from torch import Tensor, nn

from interp.errors import DataError
from interp.pages import sections
from interp.pages.answers import headline, verdicts
from interp.pages.measuring import Asked, Guesses, measured
from interp.pages.reading import as_rows, example_of, fitting_period, spelled
from interp.probes.attention import DEFAULT_PERIOD
from interp.provenance import command_line, provenance_of
from interp.report import Page, Prose, Section
from interp.result import Result
from interp.sites import HookedModel, check_model

KEPT_OUT = ("patterns", "kernel maps")  # large, and on the page itself


def overview(
    model: HookedModel,
    tokens_or_text: Int[Tensor, "..."] | str | None = None,
    *,
    period: int | None = None,
    seed: int = 0,
    name: str = "",
    command: str = "",
    batch_size: int = 8,
    progress: bool = True,
) -> Page:
    """A page about `model`: verdicts, every head's attention and scores, what heads are worth, patching, tokens, sites.

    Scores, ablation and patching are measured on random tokens that repeat after `period` (default: 25, or what fits the
    model's context four times; give less for a model trained on shorter sequences), drawn by `seed`. `tokens_or_text` is what
    is shown token by token: ids [pos] or [batch pos], or a text (default: a passage that repeats a sentence, or for a model
    without a tokenizer a repeat); its first sequence, at most 64 tokens. `name` and `command` are shown as the model's name
    and as what makes the page again. What the model refuses (no tokenizer, attention that looks ahead, a site that cannot be
    written) is said where it would have stood. `interp.report.write_page(page, folder)` writes it; the same model gives the same
    bytes.

    Raises `ModelError` for what is no model, `DataError` for tokens or a text that cannot be run (without any: for a model in
    which no repeat has room). Cost: about (heads + 40) forward passes over 8 sequences, and the patching of 32 pairs.
    """
    check_model(model)
    period = _period(model) if period is None else period
    given = as_rows(tokens_or_text) if isinstance(tokens_or_text, Tensor) else tokens_or_text
    example, told = example_of(model, given, period, seed)
    found = measured(Asked(model, example, period, seed, batch_size), progress)
    shown, cards = spelled(model, example[0]), verdicts(found)
    d_vocab = getattr(getattr(model, "cfg", None), "d_vocab", None)
    return Page(
        title=name or type(model).__name__,
        question=headline(cards),
        sections=[
            Section("Answers", cards, lead="Each card names what was predicted, and what would have shown it false."),
            sections.scores_section(found, shown, told),
            sections.maps_section(found, shown, told),
            sections.worth_section(found),
            sections.patching_section(found),
            sections.tokens_section(found, shown, told, d_vocab if isinstance(d_vocab, int) and d_vocab > 1 else None),
            sections.learning_section(found),
            sections.keys_section(found),
            sections.sites_section(found),
            Section("How this was measured", [Prose(METHOD)]),
        ],
        results=_results(found),
        command=command or command_line(),
        provenance=replace(provenance_of(_module(model), example, 0.0), seed=seed),
        facts=_facts(model, period, seed, told),
    )


def _period(model: HookedModel) -> int:
    try:
        return fitting_period(model)
    except DataError:
        return DEFAULT_PERIOD  # each reading on repeats then says for itself why there are none


METHOD = """
Induction is the mean attention from each token of the second copy to the token that followed it in the first; prefix matching
counts every earlier copy. Null: the model reads the same tokens in random order, and attention is scored at the same places.

Ablation replaces a head's output by its mean over all sequences and positions; the loss is that of the second copy of a repeat,
without its first token. Patching is exact: every cell is a run of its own. Standard errors are over sequences or pairs.

Smeared keys are measured causally: exchange an earlier token and see how far the key moves, exchange the key's own token and
see how far it moves then; the share is the first over the sum of both.
"""


def _results(found: Mapping[str, Any]) -> dict[str, Result]:
    results = {name: reading.probabilities if isinstance(reading, Guesses) else reading for name, reading in found.items()}
    return {name: one for name, one in results.items() if isinstance(one, Result) and name not in KEPT_OUT}


def _facts(model: Any, period: int, seed: int, told: str) -> dict[str, str]:
    """What a reader wants to know first; what the model does not say is left out."""
    config = getattr(model, "cfg", None)
    sizes = {"layers": "n_layers", "heads per layer": "n_heads", "width": "d_model", "vocabulary": "d_vocab", "context": "n_ctx"}
    known = {fact: getattr(config, name, None) for fact, name in sizes.items()}
    facts = {"model": type(model).__name__} | {fact: f"{value:,}" for fact, value in known.items() if isinstance(value, int)}
    n_weights = sum(weight.numel() for weight in model.parameters())
    return facts | {"parameters": f"{n_weights:,}", "repeats": f"{period} random tokens, seed {seed}", "shown": told}


def _module(model: Any) -> nn.Module:
    return model
