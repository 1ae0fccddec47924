"""Continuing a text: greedily, by sampling, or by beam search, with any hooked model.

Each step runs the whole sequence and keeps nothing between steps, so that interventions (`with ablated(…)`, `edited`) and hooks
act on every step as they act in `run`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import index
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from interp.errors import ConfigError, DataError, ModelError
from interp.models.calling import check_tokens, device_of, eval_mode, logits_of
from interp.seeds import seed_for
from interp.sites import HookedModel, check_model

LogProbs = Float[Tensor, "row d_vocab"]


@dataclass(frozen=True, eq=False)
class Generated:
    """Continuations of one or more prompts, a row each; a prompt's own rows follow each other.

    `tokens` are prompt and continuation; a row that stopped early repeats the token it stopped at. `log_probs` are those of the
    new tokens under the model itself (in nats; before temperature, top-k and top-p), NaN after the stop. `texts` spell prompt and
    continuation without special tokens; empty for a model without a tokenizer.
    """

    tokens: Int[Tensor, "row pos"]
    log_probs: Float[Tensor, "row new"]
    texts: tuple[str, ...] = ()

    @property
    def new_tokens(self) -> Int[Tensor, "row new"]:
        """The continuations alone."""
        return self.tokens[:, self.tokens.shape[1] - self.log_probs.shape[1] :]

    @property
    def lengths(self) -> Int[Tensor, " row"]:
        """How many tokens each row was continued by, the one it stopped at included."""
        return (~self.log_probs.isnan()).sum(-1)

    def __str__(self) -> str:
        return "\n".join(self.texts or (" ".join(map(str, row)) for row in self.tokens.tolist()))


@dataclass(frozen=True)
class _How:
    """How the next token is chosen. `temperature` None: the likeliest."""

    temperature: float | None
    top_k: int | None
    top_p: float | None

    def distribution(self, log_probs: LogProbs) -> LogProbs:
        """Probabilities after temperature, then top-k, then top-p."""
        assert self.temperature is not None
        logits = log_probs.double() / self.temperature
        if self.top_k is not None:
            kept = logits.topk(self.top_k, dim=-1)
            logits = torch.full_like(logits, -torch.inf).scatter(-1, kept.indices, kept.values)
        probs = logits.softmax(-1)
        if self.top_p is None:
            return probs
        ordered, order = probs.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(-1) - ordered
        kept_probs = ordered * (before < self.top_p)
        return torch.zeros_like(probs).scatter(-1, order, kept_probs / kept_probs.sum(-1, keepdim=True))

    def choose(self, log_probs: LogProbs, uniform: Float[Tensor, " row"]) -> Int[Tensor, " row"]:
        """The next token of each row; `uniform` are draws from [0, 1), turned into tokens by the cumulative distribution."""
        if self.temperature is None:
            return log_probs.argmax(-1)
        cumulative = self.distribution(log_probs).cpu().cumsum(-1)
        total = cumulative[:, -1:]
        target = torch.minimum(uniform[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
        return (cumulative <= target).sum(-1).to(log_probs.device)


def generate(
    model: HookedModel,
    prompt: str | Sequence[str] | Tensor,
    *,
    max_new_tokens: int = 20,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    beams: int | None = None,
    length_penalty: float | None = None,
    n_samples: int = 1,
    seed: int | None = None,
    stop: int | Sequence[int] | None = None,
    progress: bool = True,
) -> Generated:
    """Continue `prompt` (a text, several, or ids [pos] or [batch pos]; all of equal length in tokens) with `model`.

    * By default the likeliest token each time (greedy; of equally likely ones the first).
    * With `temperature`, `top_k` or `top_p`: drawn from softmax(logits / temperature) (temperature 1 unless given), among the
      `top_k` likeliest and then the fewest of those that reach probability `top_p` together (nucleus; Holtzman et al. 2020).
      `n_samples` continuations per prompt. Draws depend on `seed` (default 0), the prompt's number and the sample's alone.
    * With `beams`: beam search for the continuation whose log-probability / length^length_penalty is largest (`length_penalty`
      1 unless given: the mean log-probability per token; 0: the sum). The best `n_samples` ≤ `beams` per prompt, best first.

    A row ends after a token of `stop` (default: the tokenizer's EOS, if there is one; `()`: never). Prompt and continuation must
    fit the model's context, so that what comes back can be run. The model is run in eval mode, without gradients.
    Raises `ConfigError` for settings that are out of range or would do nothing, `DataError` for prompts that cannot be used,
    `ModelError` for bidirectional models and logits that are NaN. Cost: a forward pass over the whole sequence per new token.
    """
    check_model(model)
    prompts = _prompts(model, prompt)
    max_new_tokens = _whole("max_new_tokens", max_new_tokens)
    how = check_options(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        beams=beams,
        n_samples=n_samples,
        seed=seed,
        length_penalty=length_penalty,
    )
    _check_room(model, prompts.shape[1], max_new_tokens)
    stops = _stops(model, stop)
    with torch.no_grad(), eval_mode(model), tqdm(desc="generating", unit="token", disable=not progress) as bar:
        if beams is None:
            draws = _draws(len(prompts), n_samples, max_new_tokens, 0 if seed is None else seed)
            rows = prompts.repeat_interleave(n_samples, dim=0)
            tokens, log_probs = _step_by_step(model, rows, how, draws, stops=stops, bar=bar)
        else:
            penalty = 1.0 if length_penalty is None else length_penalty
            search = _Beams(model, beams, penalty, max_new_tokens, stops, bar)
            tokens, log_probs = _stack([found for row in prompts for found in search.run(row)[:n_samples]])
    tokenizer = getattr(model, "tokenizer", None)
    texts = () if tokenizer is None else tuple(tokenizer.decode(row, skip_special_tokens=True) for row in tokens.tolist())
    return Generated(tokens, log_probs, texts)


def _step_by_step(
    model: HookedModel, rows: Tensor, how: _How, draws: Tensor, *, stops: Tensor, bar: Any
) -> tuple[Tensor, Tensor]:
    bar.reset(total=draws.shape[1])
    done = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
    kept: list[Tensor] = []
    for uniform in draws.T:
        log_probs = _next(model, rows)
        chosen = torch.where(done, rows[:, -1], how.choose(_possible(log_probs, how), uniform))
        kept.append(log_probs.gather(1, chosen[:, None])[:, 0].masked_fill(done, torch.nan))
        rows = torch.cat([rows, chosen[:, None]], dim=1)
        done = done | torch.isin(chosen, stops)
        bar.update()
        if bool(done.all()):
            break
    return rows, torch.stack(kept, dim=1)


def _possible(log_probs: LogProbs, how: _How) -> LogProbs:
    if how.top_k is not None and how.top_k > log_probs.shape[1]:
        n = log_probs.shape[1]
        raise ConfigError(f"top_k {how.top_k}", f"the model chooses among {n} tokens", f"Give at most {n}, or leave it out")
    return log_probs


@dataclass(frozen=True)
class _Hypothesis:
    """A continuation in a beam search: the whole sequence and the log-probability of each new token."""

    tokens: Int[Tensor, " pos"]
    log_probs: Float[Tensor, " new"]

    def score(self, penalty: float) -> float:
        return float(self.log_probs.sum()) / len(self.log_probs) ** penalty


@dataclass(frozen=True)
class _Beams:
    """A beam search. Each step keeps the `beams` likeliest unfinished continuations; finished ones compete by their score."""

    model: HookedModel
    beams: int
    penalty: float
    max_new_tokens: int
    stops: Int[Tensor, " stop"]
    bar: Any

    def run(self, prompt: Int[Tensor, " pos"]) -> list[_Hypothesis]:
        """Up to `beams` continuations of one prompt, best first."""
        live = [_Hypothesis(prompt, torch.zeros(0, dtype=torch.float64, device=prompt.device))]
        finished: list[_Hypothesis] = []
        self.bar.reset(total=self.max_new_tokens)
        for _ in range(self.max_new_tokens):
            live, ended = self._extend(live)
            finished = self._best(finished + ended)
            self.bar.update()
            if not live or self._decided(live, finished):
                break
        return self._best(finished + live)

    def _extend(self, live: list[_Hypothesis]) -> tuple[list[_Hypothesis], list[_Hypothesis]]:
        log_probs = _next(self.model, torch.stack([one.tokens for one in live])).double()
        totals = torch.stack([one.log_probs.sum() for one in live])[:, None] + log_probs
        n_candidates = min(
            (len(self.stops) + 1) * self.beams, totals.numel()
        )  # enough to go on with though all stops be among them
        best = totals.flatten().topk(n_candidates)
        going: list[_Hypothesis] = []
        ended: list[_Hypothesis] = []
        for total, place in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            row, token = divmod(place, log_probs.shape[1])
            if total == -torch.inf:
                break
            one = live[row]
            longer = _Hypothesis(
                torch.cat([one.tokens, one.tokens.new_tensor([token])]), torch.cat([one.log_probs, log_probs[row, token][None]])
            )
            (ended if token in self.stops else going).append(longer)
        return going[: self.beams], ended

    def _best(self, hypotheses: list[_Hypothesis]) -> list[_Hypothesis]:
        return sorted(hypotheses, key=lambda one: -one.score(self.penalty))[: self.beams]

    def _decided(self, live: list[_Hypothesis], finished: list[_Hypothesis]) -> bool:
        """Whether no live continuation can beat the worst of `beams` finished ones, even if it loses no more probability."""
        if len(finished) < self.beams:
            return False
        most = max(float(one.log_probs.sum()) for one in live)
        length = self.max_new_tokens if self.penalty >= 0 else len(live[0].log_probs)
        return most / length**self.penalty <= finished[-1].score(self.penalty)


def _stack(found: list[_Hypothesis]) -> tuple[Tensor, Tensor]:
    """Rows of equal length: shorter ones repeat their last token, with log-probability NaN."""
    longest = max(len(one.tokens) for one in found)
    tokens = [torch.cat([one.tokens, one.tokens[-1:].expand(longest - len(one.tokens))]) for one in found]
    log_probs = [torch.nn.functional.pad(one.log_probs, (0, longest - len(one.tokens)), value=torch.nan) for one in found]
    return torch.stack(tokens), torch.stack(log_probs)


def _next(model: HookedModel, rows: Int[Tensor, "row pos"]) -> LogProbs:
    """Log-probabilities of the token after each row, in float32 at least."""
    logits = logits_of(model, rows)[:, -1]
    log_probs = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
    if bool(log_probs.isnan().any()):
        name = type(model).__name__
        raise ModelError(f"generating with a {name}", "its logits hold NaN", "Look at its weights and at the interventions")
    return log_probs


def _draws(n_prompts: int, n_samples: int, n: int, seed: int) -> Float[Tensor, "row new"]:
    """Uniform numbers, a stream per row: what a row draws does not depend on the rows beside it."""
    seeds = [seed_for("generate", seed, prompt, sample) for prompt in range(n_prompts) for sample in range(n_samples)]
    streams = [torch.Generator().manual_seed(one) for one in seeds]
    return torch.stack([torch.rand(n, generator=stream, dtype=torch.float64) for stream in streams])


def _prompts(model: HookedModel, prompt: Any) -> Int[Tensor, "batch pos"]:
    if isinstance(prompt, str) or (isinstance(prompt, list | tuple) and prompt and all(isinstance(p, str) for p in prompt)):
        if getattr(model, "tokenizer", None) is None or not hasattr(model, "to_tokens"):
            raise DataError("continuing a text", "this model has no tokenizer", "Give token ids, or set model.tokenizer")
        texts = [prompt] if isinstance(prompt, str) else prompt
        rows = [cast(Any, model).to_tokens(text) for text in texts]
        lengths = [row.shape[1] for row in rows]
        if len(set(lengths)) > 1:
            truth = f"they have {', '.join(map(str, lengths))} tokens"
            raise DataError("continuing several texts at once", truth, "Give prompts of equal length, or one at a time")
        prompt = torch.cat(rows)
    if isinstance(prompt, Tensor) and prompt.ndim == 1:
        prompt = prompt[None]
    check_tokens(model, prompt)
    return prompt.long().to(device_of(model))


def check_options(
    *, temperature: Any, top_k: Any, top_p: Any, beams: Any, n_samples: Any, seed: Any, length_penalty: Any = None
) -> _How:
    """How tokens are chosen. Raises `ConfigError` for what `generate` refuses of these, whatever the model and the prompt."""
    how = _how(temperature, top_k, top_p)
    _check_options(how, beams, length_penalty, n_samples, seed)
    return how


def _how(temperature: Any, top_k: Any, top_p: Any) -> _How:
    if temperature is not None and not 0 < temperature < float("inf"):
        raise ConfigError(f"temperature {temperature}", "it divides the logits", "Give a positive number; without it, greedy")
    if top_p is not None and not 0 < top_p <= 1:
        raise ConfigError(f"top_p {top_p}", "it is a probability", "Give a number above 0, at most 1")
    if top_k is not None:
        top_k = _whole("top_k", top_k)
    drawn = (temperature, top_k, top_p) != (None, None, None)
    return _How(1.0 if drawn and temperature is None else temperature, top_k, top_p)


def _check_options(how: _How, beams: Any, length_penalty: Any, n_samples: Any, seed: Any) -> None:
    drawn = how.temperature is not None
    n_samples = _whole("n_samples", n_samples)
    if beams is not None and drawn:
        raise ConfigError(
            "generating with beams", "beam search draws nothing", "Leave temperature, top_k and top_p out, or beams"
        )
    if length_penalty is not None and (beams is None or not math.isfinite(length_penalty)):
        raise ConfigError(
            f"length_penalty {length_penalty}", "it ranks the continuations of a beam search", "Give a number, and beams="
        )
    if not drawn and seed is not None:
        raise ConfigError(f"seed {seed}", "nothing is drawn", "Give temperature=1 to sample, or leave the seed out")
    if beams is None and not drawn and n_samples > 1:
        raise ConfigError(f"n_samples {n_samples}", "greedy continuations are all the same", "Give temperature=1, or beams")
    if beams is not None and n_samples > _whole("beams", beams):
        raise ConfigError(f"n_samples {n_samples}", f"{beams} beams give no more than {beams}", "Give more beams")


def _check_room(model: HookedModel, length: int, max_new_tokens: int) -> None:
    config = getattr(model, "cfg", None)
    if getattr(config, "attention_dir", "causal") == "bidirectional":
        name = type(model).__name__
        raise ModelError(f"generating with a {name}", "its positions see later ones", "Use a model that predicts the next token")
    n_ctx = getattr(config, "n_ctx", None)
    if isinstance(n_ctx, int) and 0 < n_ctx < length + max_new_tokens:
        room = n_ctx - length
        raise DataError(
            f"continuing {length} tokens by {max_new_tokens}",
            f"the model's context is {n_ctx}",
            f"Give max_new_tokens={room} or less, or a shorter prompt" if room else "Give a shorter prompt",
        )


def _stops(model: HookedModel, stop: Any) -> Int[Tensor, " stop"]:
    if stop is None:
        eos = getattr(getattr(model, "tokenizer", None), "eos_token_id", None)
        stop = () if eos is None else (eos,)
    ids = [stop] if isinstance(stop, int) else list(stop) if isinstance(stop, Sequence) else [stop]
    d_vocab = getattr(getattr(model, "cfg", None), "d_vocab", None)
    if not all(isinstance(one, int) and one >= 0 and (not isinstance(d_vocab, int) or one < d_vocab) for one in ids):
        raise ConfigError(f"stop {stop!r}", "it names token ids of the model's vocabulary", "Give an id, or several")
    return torch.tensor(ids, dtype=torch.long, device=device_of(model))


def _whole(name: str, value: Any) -> int:
    try:
        number = index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ConfigError(f"{name} {value!r}", "it is a whole number", "Give 1 or more")
    return number
