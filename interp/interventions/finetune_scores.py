"""How well an edit holds, how far it spreads and what it breaks: the measures of CounterFact and zsRE (Meng et al. 2022)."""

import json
import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from interp.errors import DataError
from interp.interventions.finetune import Batch, called, check_batch, target_log_probs
from interp.interventions.finetune_requests import EditRequest, TokenRequest, encoder_of, with_target
from interp.models.calling import eval_mode
from interp.provenance import provenance_of
from interp.result import Result
from interp.sites import HookedModel

Prompt = str | Sequence[int]
PARTS = ("efficacy", "paraphrase", "neighbourhood")
MEASURES = tuple(f"{part}{kind}" for part in PARTS for kind in ("", " difference", " accuracy"))


@dataclass(frozen=True)
class EditCase:
    """An edit and the prompts that judge it, all of text, or all of token ids.

    `new` shall follow `prompt` and `paraphrases`, instead of `true`; behind each of `neighbours`, prompts about other things,
    its own answer shall stand as before. `true` None: not known, so the answers cannot be compared.
    """

    prompt: Prompt
    new: Prompt
    true: Prompt | None = None
    paraphrases: tuple[Prompt, ...] = ()
    neighbours: tuple[tuple[Prompt, Prompt], ...] = ()
    request: EditRequest | TokenRequest | None = None  # what `constrained_finetune` is asked


def edit_scores(model: Any, cases: Sequence[EditCase], *, tokenizer: Any = None, batch_size: int = 64) -> Result:
    """The model's answers on each case: axes (case, measure). Call it before an edit and while it is on.

    For efficacy (the prompt itself), paraphrase and neighbourhood (means over a case's prompts):

    * the name alone: share of prompts where the wanted answer is likelier than the other, by mean log-probability per token.
      Wanted is `new`, and in the neighbourhood the prompt's own answer (the other is then `new`);
    * "… difference": mean of p(wanted) − p(other), p being the exponential of that mean;
    * "… accuracy": share of prompts where every token of the wanted answer is the likeliest, given those before it.

    NaN where a case has no such prompt or no `true`. Raises `DataError` for cases that cannot be used. Cost: a forward pass over
    every prompt with each of its two answers.
    """
    if not cases:
        raise DataError("scores of an edit", "there are no cases", "Give at least one")
    asked = [_questions(case) for case in cases]
    pairs = [pair for case in asked for part in case for question in part for pair in question if pair[1] is not None]
    encode = encoder_of(model, tokenizer) if any(isinstance(prompt, str) for prompt, _ in pairs) else None
    requests = [_request(encode, *pair) for pair in pairs]
    found = iter(zip(*_answers(called(model), requests, batch_size), strict=True))
    values = torch.tensor([[number for part in case for number in _part(part, found)] for case in asked], dtype=torch.float64)
    tokens = torch.tensor([token for one in requests for token in (*one.prompt, *one.target)])
    return Result(
        name="edit_scores",
        values=values,
        axes=("case", "measure"),
        labels={"measure": MEASURES},
        count=len(cases),
        description="shares and probabilities; larger is better: the new answer where it was asked for, the old one elsewhere",
    ).with_provenance(provenance_of(model, tokens, 0.0))


def overall_score(efficacy: float | int, paraphrase: float | int, neighbourhood: float | int) -> float:
    """The harmonic mean of the three shares: 0 as soon as one is 0 (the field's score S)."""
    shares = (efficacy, paraphrase, neighbourhood)
    return 0.0 if min(shares) <= 0 else len(shares) / sum(1 / share for share in shares)


def ngram_entropy(sequence: Sequence[Hashable]) -> float:
    """Fluency of a text, given as words or token ids: ⅓ of its bigrams' entropy and ⅔ of its trigrams', in bits.

    A text that repeats itself has little; 0 for one n-gram over and over. NaN below three items.
    """
    if len(sequence) < 3:
        return math.nan
    return _entropy(sequence, 2) / 3 + 2 * _entropy(sequence, 3) / 3


def read_edit_cases(path: str | Path, limit: int | None = None) -> list[EditCase]:
    """The first `limit` cases of a JSON file in the format of CounterFact or of zsRE. Raises `DataError` for anything else.

    zsRE has no true answer to compare with: its shares and differences for efficacy and paraphrase are NaN, its accuracies count.
    """
    asked = f"edit cases in {Path(path).name!r}"
    try:
        records = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(asked, f"it cannot be read ({error})", "Give a JSON file") from None
    if not isinstance(records, list) or not records:
        raise DataError(asked, f"it holds a {type(records).__name__}", "Give a list of records, at least one")
    cases = []
    for number, record in enumerate(records[:limit]):
        try:
            cases.append(_counterfact(record) if "requested_rewrite" in record else _zsre(record))
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            told = f"record {number} is neither CounterFact's nor zsRE's ({type(error).__name__}: {error})"
            raise DataError(asked, told, "Give requested_rewrite, or src, subject, answers, rephrase, loc, loc_ans") from None
    return cases


def _counterfact(record: Mapping[str, Any]) -> EditCase:
    rewrite = record["requested_rewrite"]
    request = EditRequest(rewrite["prompt"], rewrite["subject"], rewrite["target_new"]["str"])
    true = rewrite["target_true"]["str"]
    return EditCase(
        prompt=request.text,
        new=request.target_new,
        true=true,
        paraphrases=tuple(record["paraphrase_prompts"]),
        neighbours=tuple((prompt, true) for prompt in record["neighborhood_prompts"]),
        request=request,
    )


def _zsre(record: Mapping[str, Any]) -> EditCase:
    request = EditRequest(record["src"].replace(record["subject"], "{}", 1), record["subject"], record["answers"][0])
    return EditCase(
        prompt=request.text,
        new=request.target_new,
        paraphrases=(record["rephrase"],),
        neighbours=((f"{record['loc']}?", record["loc_ans"]),),
        request=request,
    )


Pair = tuple[Prompt, Prompt | None]
Question = tuple[Pair, Pair]  # the prompt with the wanted answer, and with the other


def _questions(case: EditCase) -> tuple[list[Question], list[Question], list[Question]]:
    def asked(prompts: Sequence[Prompt]) -> list[Question]:
        return [((prompt, case.new), (prompt, case.true)) for prompt in prompts]

    neighbours: list[Question] = [((prompt, answer), (prompt, case.new)) for prompt, answer in case.neighbours]
    return asked([case.prompt]), asked(case.paraphrases), neighbours


def _request(encode: Any, prompt: Prompt, target: Prompt | None) -> TokenRequest:
    if isinstance(prompt, str) and isinstance(target, str):
        return with_target(encode, prompt, target)
    if isinstance(prompt, str) or target is None or isinstance(target, str):
        raise DataError(f"a case with prompt {prompt!r} and answer {target!r}", "one is text, one ids", "Give both alike")
    return TokenRequest(tuple(prompt), tuple(target))


def _answers(model: HookedModel, requests: Sequence[TokenRequest], batch_size: int) -> tuple[list[float], list[bool]]:
    """Mean log-probability per token of each target, and whether every token is the likeliest."""
    means: list[float] = []
    likeliest: list[bool] = []
    with torch.no_grad(), eval_mode(model):
        for start in range(0, len(requests), batch_size):
            batch = Batch.of(requests[start : start + batch_size], "teacher_forced")
            check_batch(model, batch)
            log_probs, first = target_log_probs(model, batch)
            n_tokens = batch.counts.sum(-1)
            means += (log_probs.cpu().double().sum(-1) / n_tokens).tolist()
            likeliest += (first.cpu() | ~batch.counts).all(-1).tolist()
    return means, likeliest


def _part(questions: Sequence[Question], found: Any) -> tuple[float, float, float]:
    """Share, difference and accuracy over the questions of one part; takes from `found` what it reads."""
    shares, differences, right = [], [], []
    for _, (_, other) in questions:
        mean, likeliest = next(found)
        right.append(float(likeliest))
        if other is not None:
            against, _ = next(found)
            shares.append(float(mean > against))
            differences.append(math.exp(mean) - math.exp(against))
    return _mean(shares), _mean(differences), _mean(right)


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers) if numbers else math.nan


def _entropy(sequence: Sequence[Hashable], n: int) -> float:
    counts = Counter(tuple(sequence[i : i + n]) for i in range(len(sequence) - n + 1))
    total = sum(counts.values())
    return max(0.0, -sum(count / total * math.log2(count / total) for count in counts.values()))
