"""Generating: greedy, sampled and by beams, against loops by hand, brute force, frequencies and TransformerLens' own."""

import math
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import interp
from interp.errors import ConfigError, DataError, InterpError, ModelError
from interp.models import AttnAttn, Transformer
from tests.models.zoo import D_VOCAB, KINDS_OF_MODEL, TL, read, tokens, zoo

NO_BAR: dict[str, Any] = {"progress": False, "stop": ()}


def greedy_by_hand(model: Any, ids: Tensor, n: int) -> Tensor:
    for _ in range(n):
        with torch.no_grad():
            ids = torch.cat([ids, model(ids)[:, -1].argmax(-1, keepdim=True)], dim=1)
    return ids


@pytest.mark.parametrize("name", KINDS_OF_MODEL)
def test_greedy_takes_the_likeliest_on_every_kind_of_model(name: str) -> None:
    model, ids = zoo(name), tokens(pos=5)
    found = interp.generate(model, ids, max_new_tokens=6, **NO_BAR)
    assert torch.equal(found.tokens, greedy_by_hand(model, ids, 6))
    assert torch.equal(found.new_tokens, found.tokens[:, 5:]) and found.lengths.tolist() == [6, 6, 6]
    losses = interp.token_losses(model, found.tokens).values[:, 4:]
    torch.testing.assert_close(-found.log_probs.double(), losses, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "llama"] if TL >= (4, 0) else ["gpt2", "llama", "hooked-transformer"])
def test_greedy_is_what_transformer_lens_generates(name: str) -> None:
    """A HookedTransformer without its cache: with it, its logits here are not those of its own forward pass over all tokens."""
    model, ids = zoo(name), tokens(pos=5)
    options = {"use_past_kv_cache": False} if name == "hooked-transformer" else {}
    options |= {"stop_at_eos": False, "do_sample": False, "return_type": "tokens", "verbose": False}
    with torch.no_grad():
        theirs = model.generate(ids, max_new_tokens=9, **options)
    assert torch.equal(interp.generate(model, ids, max_new_tokens=9, **NO_BAR).tokens, theirs)


@pytest.mark.parametrize("name", ["gpt2", "transformer", "conv-attn"])
@pytest.mark.parametrize("choice", [{}, {"beams": 2}, {"temperature": 1.0, "seed": 3}])
def test_interventions_act_on_every_step(name: str, choice: dict) -> None:
    model, ids = zoo(name), tokens(batch=1, pos=5)
    with interp.ablated(model, heads=[(0, 1), (0, 2)], mode="zero"):
        found = interp.generate(model, ids, max_new_tokens=6, **choice, **NO_BAR)
        if not choice:
            assert torch.equal(found.tokens, greedy_by_hand(model, ids, 6))
        losses = nn.functional.cross_entropy(model(found.tokens)[0, 4:-1], found.new_tokens[0], reduction="none")
    torch.testing.assert_close(-found.log_probs[0].float(), losses.detach().float(), atol=1e-4, rtol=1e-4)
    free = interp.token_losses(model, found.tokens).values[0, 4:]
    assert (free.float() - losses.detach()).abs().max() > 1e-3, "without the ablation it is another model"


def small(d_vocab: int = 5, **options: Any) -> Any:
    """Sharp enough that a beam has something to lose, with one likely token to stop at."""
    torch.manual_seed(2)
    model = AttnAttn(d_vocab=d_vocab, d_model=12, n_ctx=12, positions=True, **options).eval()
    model.unembed.weight.data.mul_(4)
    model.unembed.bias.data[3] += 1.5
    return model


def best_of_all(model: Any, prompt: Tensor, n: int, stop: int | None, penalty: float) -> list[tuple[float, tuple[int, ...]]]:
    """Every continuation that ends at `stop` or after `n` tokens, best first."""
    found = []
    for length in range(1, n + 1):
        every = torch.tensor(list(product(range(model.cfg.d_vocab), repeat=length)))
        with torch.no_grad():
            logits = model(torch.cat([prompt.expand(len(every), -1), every], dim=1)).double()
        log_probs = logits.log_softmax(-1)[:, prompt.shape[1] - 1 : -1]
        totals = log_probs.gather(2, every[..., None])[..., 0].sum(1)
        for new, total in zip(every.tolist(), totals.tolist(), strict=True):
            if stop not in new[:-1] and (length == n or new[-1] == stop):
                found.append((total / length**penalty, tuple(new)))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("stop", [None, 3])
@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.5, -1.0])
def test_wide_beams_find_the_best_of_all_continuations(stop: int | None, penalty: float) -> None:
    model, prompt = small(), torch.tensor([[1, 4, 2]])
    expected = best_of_all(model, prompt, 4, stop, penalty)[:6]
    found = interp.generate(
        model, prompt, max_new_tokens=4, beams=125, n_samples=6, length_penalty=penalty, stop=() if stop is None else stop,
        progress=False,
    )  # fmt: skip
    assert stop is None or len({len(new) for _, new in expected}) > 1 or penalty == 2.5, "lengths must compete"
    for row, log_probs, n, (score, new) in zip(found.new_tokens, found.log_probs, found.lengths.tolist(), expected, strict=True):
        assert tuple(row[:n].tolist()) == new and set(row[n:].tolist()) <= {stop}
        assert float(log_probs.nansum()) / n**penalty == pytest.approx(score, abs=1e-5)


def test_narrow_beams_keep_the_likeliest_at_each_step() -> None:
    model, prompt = small(d_vocab=7), torch.tensor([[1, 4, 2], [6, 6, 0]])
    found = interp.generate(model, prompt, max_new_tokens=5, beams=3, n_samples=3, length_penalty=0.0, **NO_BAR)
    for start in range(2):
        live = [((), 0.0)]
        for _ in range(5):
            every = []
            for new, total in live:
                ids = torch.cat([prompt[start], torch.tensor(new, dtype=torch.long)])[None]
                step = model(ids)[0, -1].detach().double().log_softmax(-1)
                every += [((*new, token), total + float(step[token])) for token in range(7)]
            live = sorted(every, key=lambda one: -one[1])[:3]
        assert [tuple(row.tolist()) for row in found.new_tokens[3 * start : 3 * start + 3]] == [new for new, _ in live]
    one = interp.generate(model, prompt, max_new_tokens=5, beams=1, **NO_BAR)
    assert torch.equal(one.tokens, greedy_by_hand(model, prompt, 5))


@pytest.mark.parametrize("penalty", [-1.0, 0.0, 1.0, 2.5])
def test_a_search_that_ends_early_finds_what_one_to_the_end_finds(penalty: float) -> None:
    model, beams, stop = small(), 2, 3
    for start in range(5):
        live: list[tuple[float, tuple[int, ...]]] = [(0.0, (1, start))]
        ended = []
        for length in range(1, 7):
            every = []
            for total, row in live:
                step = model(torch.tensor([row]))[0, -1].detach().double().log_softmax(-1).tolist()
                every += [(total + step[token], (*row, token)) for token in range(5)]
            ended += [(total / length**penalty, row) for total, row in every if row[-1] == stop]
            live = sorted((one for one in every if one[1][-1] != stop), reverse=True)[:beams]
        expected = max(ended + [(total / 6**penalty, row) for total, row in live])
        found = interp.generate(
            model, torch.tensor([1, start]), max_new_tokens=6, beams=beams, length_penalty=penalty, stop=stop, progress=False
        )
        n = int(found.lengths[0])
        assert float(found.log_probs[0, :n].sum()) / n**penalty == pytest.approx(expected[0], abs=1e-5)


CHOICES: list[dict[str, Any]] = [
    {"temperature": 1.0},
    {"temperature": 0.5},
    {"temperature": 3.0},
    {"top_k": 3},
    {"top_p": 0.6},
    {"top_p": 1.0},
    {"temperature": 2.0, "top_k": 4, "top_p": 0.7},
]


def distribution(logits: list[float], temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None) -> dict:
    """In plain Python: temperature, the k likeliest, then the fewest that reach p."""
    weights = {token: math.exp(logit / temperature) for token, logit in enumerate(logits)}
    order = sorted(weights, key=lambda token: -weights[token])[:top_k]
    total = sum(weights[token] for token in order)
    kept, reached = [], 0.0
    for token in order:
        if top_p is not None and reached >= top_p:
            break
        kept.append(token)
        reached += weights[token] / total
    total = sum(weights[token] for token in kept)
    return {token: weights[token] / total for token in kept}


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_samples_have_the_frequencies_of_the_distribution(choice: dict) -> None:
    torch.manual_seed(2)
    model, prompt, n = small(d_vocab=7), torch.tensor([[1, 4, 2]]), 4000
    model.unembed.weight.data.mul_(0.3)
    found = interp.generate(model, prompt, max_new_tokens=1, n_samples=n, **choice, **NO_BAR).new_tokens[:, 0]
    expected = distribution(model(prompt)[0, -1].tolist(), **choice)
    assert set(found.tolist()) <= set(expected) and len(expected) > 1
    for token, share in expected.items():
        error = math.sqrt(share * (1 - share) / n)
        assert float((found == token).double().mean()) == pytest.approx(share, abs=4 * error), token


def test_samples_are_reproducible_and_a_row_does_not_feel_its_neighbours() -> None:
    model, prompts = zoo("transformer"), tokens(pos=5)
    options: dict[str, Any] = {"temperature": 1.0, **NO_BAR}
    found = interp.generate(model, prompts, max_new_tokens=7, n_samples=2, seed=4, **options)
    again = interp.generate(model, prompts, max_new_tokens=7, n_samples=2, seed=4, **options)
    other = interp.generate(model, prompts, max_new_tokens=7, n_samples=2, seed=5, **options)
    assert torch.equal(found.tokens, again.tokens) and not torch.equal(found.tokens, other.tokens)
    assert found.tokens.shape == (6, 12) and torch.equal(found.tokens[::2, :5], prompts)
    assert not torch.equal(found.tokens[0], found.tokens[1]), "samples of one prompt differ"
    alone = interp.generate(model, prompts[:1], max_new_tokens=7, seed=4, **options)
    assert torch.equal(alone.tokens[0], found.tokens[0])
    shorter = interp.generate(model, prompts, max_new_tokens=3, n_samples=2, seed=4, **options)
    assert torch.equal(shorter.tokens, found.tokens[:, :8])
    same = interp.generate(model, torch.cat([prompts[:1]] * 2), max_new_tokens=7, seed=4, **options)
    assert not torch.equal(same.tokens[0], same.tokens[1]), "nor are equal prompts continued alike"
    assert torch.equal(interp.generate(model, prompts, max_new_tokens=3, **options).tokens,
                       interp.generate(model, prompts, max_new_tokens=3, seed=0, **options).tokens)  # fmt: skip


def test_rows_stop_one_by_one() -> None:
    model, prompts = zoo("transformer"), tokens(batch=12, pos=4)
    free = interp.generate(model, prompts, max_new_tokens=9, temperature=1.0, **NO_BAR)
    stops = [int(free.new_tokens[0, 2]), int(free.new_tokens[1, 5])]
    found = interp.generate(model, prompts, max_new_tokens=9, temperature=1.0, stop=stops, progress=False)
    for row, before, log_probs, n in zip(found.new_tokens, free.new_tokens, found.log_probs, found.lengths.tolist(), strict=True):
        ends = [place for place, token in enumerate(before.tolist()) if token in stops]
        assert n == (ends[0] + 1 if ends else 9)
        assert torch.equal(row[:n], before[:n]) and set(row[n:].tolist()) <= {int(before[n - 1])}
        assert log_probs[:n].isfinite().all() and log_probs[n:].isnan().all()
    assert found.lengths[0] == 3 and found.lengths.max() == 9
    short = interp.generate(model, prompts[:1], max_new_tokens=9, temperature=1.0, stop=stops, progress=False)
    assert short.tokens.shape == (1, 4 + 3), "once all have stopped nothing more is run"


def test_texts() -> None:
    model: Any = interp.load_model("attn-attn-text")
    found = interp.generate(model, "The function returns", max_new_tokens=5, progress=False)
    assert found.texts[0].startswith("The function returns") and str(found) == found.texts[0]
    assert found.texts[0] == model.tokenizer.decode(found.tokens[0, 1:])
    several = interp.generate(model, ["The function returns", "The function returns"], max_new_tokens=5, progress=False)
    assert several.texts == found.texts * 2
    with pytest.raises(DataError, match=r"they have \d+, \d+ tokens.*one at a time"):
        interp.generate(model, ["The function returns", "The"])
    model.tokenizer.eos_token = model.tokenizer.decode(found.new_tokens[0, 1])
    stopped = interp.generate(model, "The function returns", max_new_tokens=5, progress=False)
    assert stopped.lengths.tolist() == [found.new_tokens[0].tolist().index(int(found.new_tokens[0, 1])) + 1], (
        "the tokenizer's EOS"
    )
    assert str(interp.generate(zoo("attn-attn"), tokens()[0], max_new_tokens=1, **NO_BAR)).split()[0] == str(int(tokens()[0, 0]))


def test_the_model_is_left_as_it_was() -> None:
    model = Transformer(d_vocab=11, d_model=12, dropout=0.5).train()
    model.blocks[0].eval()
    ids = torch.tensor([[1, 2, 3]])
    state = torch.random.get_rng_state()
    found = [interp.generate(model, ids, max_new_tokens=4, **choice, **NO_BAR) for choice in ({}, {"beams": 3}, {"top_k": 2})]
    assert model.training and not model.blocks[0].training and model.blocks[1].attn.training
    assert torch.equal(state, torch.random.get_rng_state())
    assert not any(one.log_probs.requires_grad for one in found)
    assert torch.equal(found[0].tokens, interp.generate(model, ids, max_new_tokens=4, **NO_BAR).tokens), "no dropout"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0}, "temperature 0: it divides the logits.*without it, greedy"),
        ({"temperature": -1.0}, "Give a positive number"),
        ({"temperature": math.nan}, "Give a positive number"),
        ({"top_p": 0}, "top_p 0: it is a probability"),
        ({"top_p": 1.5}, "at most 1"),
        ({"top_k": 0}, "top_k 0: it is a whole number"),
        ({"top_k": 2.5}, "top_k 2.5"),
        ({"top_k": D_VOCAB + 1}, f"among {D_VOCAB} tokens"),
        ({"max_new_tokens": 0}, "max_new_tokens 0"),
        ({"beams": 0}, "beams 0"),
        ({"beams": 2, "temperature": 1.0}, "beam search draws nothing"),
        ({"beams": 2, "n_samples": 3}, "2 beams give no more than 2"),
        ({"beams": 2, "seed": 1}, "nothing is drawn"),
        ({"seed": 1}, "nothing is drawn. Give temperature=1"),
        ({"n_samples": 2}, "greedy continuations are all the same"),
        ({"length_penalty": 1.0}, "Give a number, and beams="),
        ({"beams": 2, "length_penalty": math.nan}, "Give a number"),
        ({"stop": D_VOCAB}, "token ids of the model's vocabulary"),
        ({"stop": "end"}, "token ids of the model's vocabulary"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_settings_out_of_range_or_without_effect_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        interp.generate(zoo("transformer"), tokens(), **({"progress": False} | options))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("prompt", [[], "", None, 3, torch.zeros(1, 0).long(), torch.tensor([[99]]), torch.ones(1, 2), [[1, 2]]])
def test_prompts_that_cannot_be_used(prompt: Any) -> None:
    with pytest.raises(InterpError):
        interp.generate(zoo("transformer"), prompt, progress=False)


def test_what_does_not_fit_or_cannot_generate() -> None:
    model = zoo("transformer")
    assert interp.generate(model, tokens(pos=44), max_new_tokens=3, **NO_BAR).tokens.shape == (3, 47)
    with pytest.raises(DataError, match="continuing 44 tokens by 4: the model's context is 47. Give max_new_tokens=3 or less"):
        interp.generate(model, tokens(pos=44), max_new_tokens=4)
    with pytest.raises(DataError, match="Give a shorter prompt"):
        interp.generate(model, tokens(pos=47), max_new_tokens=4)
    with pytest.raises(ModelError, match="its positions see later ones"):
        interp.generate(Transformer(d_vocab=9, causal=False), torch.tensor([1]))
    broken = Transformer(d_vocab=9).eval()
    broken.unembed.bias.data[3] = math.nan
    with pytest.raises(ModelError, match="its logits hold NaN"):
        interp.generate(broken, torch.tensor([1]), progress=False)


def test_half_precision() -> None:
    model = Transformer(d_vocab=11, d_model=12).to(torch.bfloat16)
    for choice in ({}, {"temperature": 1.0}, {"beams": 3}):
        found = interp.generate(model, torch.tensor([1, 2]), max_new_tokens=5, **choice, **NO_BAR)
        assert found.log_probs.dtype in (torch.float32, torch.float64) and (found.log_probs <= 0).all()


@pytest.mark.parametrize("name", KINDS_OF_MODEL)
def test_residual_embeddings_are_the_streams_of_every_kind_of_model(name: str) -> None:
    model, ids = zoo(name), tokens()
    sites = [interp.Site("resid_pre", 0), *(interp.Site("resid_post", layer) for layer in range(model.cfg.n_layers))]
    streams = torch.stack(list(read(model, *sites).values()), dim=1)
    assert torch.equal(interp.residual_embeddings(model, ids).values, streams)
    few = interp.residual_embeddings(model, ids, layers=[model.cfg.n_layers, 0], positions=[-1, 2], batch_size=2)
    assert few.axes == ("example", "layer", "position", "d_model")
    assert few.labels == {"layer": (str(model.cfg.n_layers), "0"), "position": ("10", "2")}
    torch.testing.assert_close(few.values, streams[:, [-1, 0]][:, :, [10, 2]], rtol=1e-4, atol=1e-5)


def test_embeddings_averaged_over_positions() -> None:
    found = interp.residual_embeddings(zoo("transformer"), tokens(), layers=[1])
    whole = interp.mean_pooled(found)
    torch.testing.assert_close(whole.values, found.values.mean(2))
    assert whole.axes == ("example", "layer", "d_model") and whole.provenance == found.provenance
    mask = torch.ones(3, 11)
    mask[1, 4:] = 0
    masked = interp.mean_pooled(found, mask).values
    torch.testing.assert_close(masked[1], found.values[1, :, :4].mean(1))
    assert torch.equal(masked[0], whole.values[0])
    with pytest.raises(DataError, match="no position that counts"):
        interp.mean_pooled(found, torch.zeros(3, 11))
    with pytest.raises(DataError, match=r"the mask has shape \(3, 10\)"):
        interp.mean_pooled(found, mask[:, 1:])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": [3]}, "after 3 layers: this model has 2, so 0 to 2"),
        ({"layers": [-1]}, "after -1 layers"),
        ({"layers": []}, "a list of whole numbers"),
        ({"layers": 1}, "a list of whole numbers"),
        ({"positions": [11]}, "position 11: sequences have 11 tokens"),
        ({"positions": "all"}, "a list of whole numbers"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_layers_and_positions_that_are_not_there(options: dict, message: str) -> None:
    with pytest.raises(InterpError, match=message):
        interp.residual_embeddings(zoo("transformer"), tokens(), **options)


def test_perplexity_of_loaders() -> None:
    from torch.utils.data import DataLoader, TensorDataset

    model, ids = zoo("transformer"), tokens(batch=7)
    whole = interp.token_losses(model, ids).values
    for loader in (DataLoader(TensorDataset(ids), batch_size=3), DataLoader(ids, batch_size=3), [{"input_ids": ids}]):
        torch.testing.assert_close(interp.token_losses(model, loader).values, whole, rtol=1e-5, atol=1e-6)
    measured = interp.perplexity(model, DataLoader(TensorDataset(ids), batch_size=3)).values
    torch.testing.assert_close(measured[:, 0], torch.stack([whole.mean(), whole.mean().exp()]), rtol=1e-5, atol=1e-6)
    with pytest.raises(DataError, match=r"a batch is a (list|tuple) of 2"):
        interp.perplexity(model, DataLoader(TensorDataset(ids, ids)))
