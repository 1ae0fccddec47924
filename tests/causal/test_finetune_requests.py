"""Text to ids for an edit, the measures of an edit by hand, and files of cases."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from interp import constrained_finetune
from interp.errors import DataError
from interp.interventions import EditCase, EditRequest, TokenRequest, edit_scores, ngram_entropy, overall_score, read_edit_cases
from interp.interventions.finetune_requests import tokenized, with_target
from interp.models import Transformer
from tests.models.zoo import hf_model

ROME = {"prompt": "{} is in", "subject": "Eve", "target_new": {"str": "Rome"}}


def wrapped(tokenizer: Tokenizer, **special: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def byte_level() -> PreTrainedTokenizerFast:
    """As GPT-2: a space belongs to the word behind it; "Rome" and " Rome" are different tokens, and so is a lone space."""
    pieces = ["<|end|>", "Eve", "Ġis", "Ġin", "Rome", "ĠRome", "Ġ", "Ġnew", "R", "o", "m", "e", "E", "v", "i", "s", "n", "w"]
    merges = ["o m", "R om", "Rom e", "Ġ Rome", "E v", "Ev e", "i s", "Ġ is", "i n", "Ġ in", "n e", "ne w", "Ġ new"]
    vocabulary = list(dict.fromkeys([*pieces, *(merge.replace(" ", "") for merge in merges)]))
    tokenizer = Tokenizer(
        models.BPE(vocab={piece: i for i, piece in enumerate(vocabulary)}, merges=[tuple(merge.split()) for merge in merges])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return wrapped(tokenizer, unk_token="<|end|>", bos_token="<|end|>")


def marking() -> PreTrainedTokenizerFast:
    """As Llama: the tokenizer itself puts a mark before every word, also the first."""
    vocabulary = [("<unk>", 0.0), ("▁Eve", -1.0), ("▁is", -1.0), ("▁in", -1.0), ("▁Rome", -1.0), ("Rome", -1.0), ("▁", -1.0)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    return wrapped(tokenizer, unk_token="<unk>")


def words() -> PreTrainedTokenizerFast:
    """Whole words; spaces are dropped."""
    vocabulary = {word: i for i, word in enumerate(["<unk>", "eve", "is", "in", "rome", "new"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return wrapped(tokenizer, unk_token="<unk>", bos_token="<unk>")


@pytest.mark.parametrize("make", [byte_level, marking, words])
@pytest.mark.parametrize("prompt", ["{} is in", "{} is in "])
@pytest.mark.parametrize("target", ["Rome", " Rome"])
def test_a_space_is_there_where_the_tokenizer_needs_it(make: Any, prompt: str, target: str) -> None:
    if prompt.endswith(" ") and target.startswith(" "):
        return  # two spaces were asked for
    tokenizer = make()
    (found,) = tokenized([{**ROME, "prompt": prompt, "target_new": target}], object(), tokenizer)
    assert found.prompt == tuple(tokenizer("Eve is in")["input_ids"])
    expected = {byte_level: "ĠRome", marking: "▁Rome", words: "rome"}[make]
    assert tokenizer.convert_ids_to_tokens(list(found.target)) == [expected]


def test_without_a_space_the_target_would_be_another_token() -> None:
    assert byte_level().tokenize("Rome") == ["Rome"]
    assert byte_level().tokenize("is inRome") != byte_level().tokenize("is in Rome")


def test_a_prompt_whose_end_melts_into_the_target_is_refused() -> None:
    joined = {"Eve R": [1, 2], "Eve R ome": [1, 3]}
    with pytest.raises(DataError, match="joins the end"):
        with_target(joined.__getitem__, "Eve R", "ome")


def test_unknown_tokens_do_not_count() -> None:
    (found,) = tokenized([{**ROME, "target_new": "new Xyz Rome"}], object(), words())
    assert found.known == (True, False, True)
    with pytest.raises(DataError, match="knows none of them"):
        tokenized([{**ROME, "target_new": "Xyz"}], object(), words())


def test_the_model_reads_bos_where_it_always_does() -> None:
    model = small()
    model.tokenizer = words()
    (found,) = tokenized([EditRequest("{} is in", "Eve", "Rome")], model)
    assert found.prompt == (0, 1, 2, 3), "BOS in front, as in training"
    edit = constrained_finetune(model, [ROME], layers=0, epsilon=math.inf, lr=0.05, steps=40, progress=False)
    with edit:
        assert model(torch.tensor([found.prompt]))[0, -1].argmax() == 4


def test_a_hugging_face_model_takes_a_tokenizer() -> None:
    model = hf_model("gpt2")
    edit = constrained_finetune(
        model, [ROME], layers=[0], epsilon=1e-2, module="transformer.h.{layer}.mlp.c_proj", tokenizer=byte_level(), progress=False
    )
    assert edit.losses[-1] < edit.losses[0]


def small() -> Transformer:
    torch.manual_seed(1)
    return Transformer(d_vocab=13, d_model=8, n_heads=2, d_mlp=12, n_ctx=9).eval()


def test_scores_by_hand() -> None:
    model = small()
    case = EditCase((1, 2), new=(3, 4), true=(5,), paraphrases=((2, 2), (1, 1, 1)), neighbours=(((6, 2), (7,)),))
    bare = EditCase((1, 2), new=(3,))
    found = edit_scores(model, [case, bare], batch_size=2)

    def p(prompt: tuple, target: tuple) -> tuple[float, bool]:
        logs, likeliest = [], True
        for i, token in enumerate(target):
            logits = model(torch.tensor([[*prompt, *target[:i]]]))[0, -1].detach()
            logs.append(float(logits.double().log_softmax(-1)[token]))
            likeliest &= int(logits.argmax()) == token
        return math.exp(sum(logs) / len(logs)), likeliest

    def part(questions: list) -> list[float]:
        answers = [(p(prompt, wanted), p(prompt, other)) for prompt, wanted, other in questions]
        shares = [float(wanted[0] > other[0]) for wanted, other in answers]
        differences = [wanted[0] - other[0] for wanted, other in answers]
        right = [float(wanted[1]) for wanted, _ in answers]
        return [sum(numbers) / len(numbers) for numbers in (shares, differences, right)]

    expected = [
        *part([((1, 2), (3, 4), (5,))]),
        *part([((2, 2), (3, 4), (5,)), ((1, 1, 1), (3, 4), (5,))]),
        *part([((6, 2), (7,), (3, 4))]),
    ]
    torch.testing.assert_close(found.values[0], torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=0)
    measures = found.labels_of("measure")
    assert [measures[i] for i in range(9) if not found.values[1].isnan()[i]] == ["efficacy accuracy"]
    likeliest = int(model(torch.tensor([[1, 2]]))[0, -1].argmax())
    sure = edit_scores(model, [EditCase((1, 2), new=(likeliest,), true=((likeliest + 1) % 13,))])
    assert sure.values[0, 0] == sure.values[0, 2] == 1


def test_overall_is_the_harmonic_mean() -> None:
    assert overall_score(1, 1, 1) == 1
    assert overall_score(1, 0.5, 0.25) == pytest.approx(3 / 7)
    assert overall_score(1, 0, 1) == 0


def test_entropy_of_ngrams_by_hand() -> None:
    assert ngram_entropy("aaaaaa") == 0
    assert ngram_entropy("abcde") == pytest.approx(2 / 3 + 2 * math.log2(3) / 3)  # 4 bigrams, 3 trigrams, all different
    assert ngram_entropy([1, 2, 1, 2, 1]) == pytest.approx(1 / 3 + 2 / 3 * -(2 / 3 * math.log2(2 / 3) + 1 / 3 * math.log2(1 / 3)))
    assert math.isnan(ngram_entropy("ab"))


def write(folder: Path, records: Any) -> Path:
    path = folder / "cases.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    return path


def test_files_of_both_formats_are_read(tmp_path: Path) -> None:
    counterfact = {
        "case_id": 3,
        "requested_rewrite": {**ROME, "relation_id": "P1", "target_true": {"str": "Oslo"}},
        "paraphrase_prompts": ["Eve lives in"],
        "neighborhood_prompts": ["Tom is in"],
    }
    zsre = {"subject": "Eve", "src": "Where is Eve?", "alt": "Bonn", "answers": ["Rome"], "rephrase": "Eve is where?",
            "loc": "nq question: who is Tom", "loc_ans": "a cat"}  # fmt: skip
    first, second = read_edit_cases(write(tmp_path, [counterfact, zsre, 3]), limit=2)
    assert (first.prompt, first.new, first.true, first.neighbours) == ("Eve is in", "Rome", "Oslo", (("Tom is in", "Oslo"),))
    assert (second.request, second.true) == (EditRequest("Where is {}?", "Eve", "Rome"), None)
    assert second.neighbours == (("nq question: who is Tom?", "a cat"),)
    model = small()
    model.tokenizer = words()
    assert edit_scores(model, [first]).values.shape == (1, 9)


@pytest.mark.parametrize("records", [{}, [], [3], [{"src": "x"}], [{"requested_rewrite": {"prompt": "{}"}}], "text"])
def test_other_files_are_refused(records: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="edit cases in 'cases.json'"):
        read_edit_cases(write(tmp_path, records))
    with pytest.raises(DataError, match="cannot be read"):
        read_edit_cases(tmp_path / "none.json")


def test_cases_that_cannot_be_asked_are_refused() -> None:
    model = small()
    for cases in ([], [EditCase((1,), new="Rome")], [EditCase((13,), new=(1,))], [EditCase("Eve", new="Rome")]):
        with pytest.raises(DataError):
            edit_scores(model, cases)


def test_a_token_request_is_taken_as_it_is() -> None:
    ask = TokenRequest((1, 2), (3,))
    assert tokenized([ask], object()) == [TokenRequest((1, 2), (3,))]
