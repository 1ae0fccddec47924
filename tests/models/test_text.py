"""Text and tokens of our own models: what TransformerLens' calls of those names say, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.errors import DataError, ModelError
from interp.metrics import logit_diff, metric_values
from tests.models.zoo import save_hf, tokens, zoo

WORDS = {"<s>": 0, "the": 1, "cat": 2, "sat": 3, "<unk>": 4}


def language_model() -> Any:
    return interp.load_model("attn-attn-text")


def word_tokenizer(folder: Path) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel(WORDS, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    special = {"bos_token": "<s>", "eos_token": "<s>", "pad_token": "<s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(folder)


def test_the_calls_give_what_transformer_lens_gives(tmp_path: Path) -> None:
    word_tokenizer(tmp_path)
    theirs: Any = interp.load_model(save_hf("llama", tmp_path))
    ours: Any = zoo("attn-attn")
    kept = ours.tokenizer
    ours.tokenizer = theirs.tokenizer
    try:
        for text in ("the cat", ["the cat"], ["the cat", "cat sat"], ["cat"]):
            for bos in (None, True, False):
                assert torch.equal(ours.to_tokens(text, prepend_bos=bos), theirs.to_tokens(text, prepend_bos=bos)), (text, bos)
                assert ours.to_str_tokens(text, prepend_bos=bos) == theirs.to_str_tokens(text, prepend_bos=bos)
        row = torch.tensor([0, 2, 3])
        for ids in (row, row[None], torch.stack([row, row.flip(0)]), row.tolist(), row.numpy(), row[1]):
            assert ours.to_string(ids) == theirs.to_string(ids)
        for ids in (row, row[None], row.numpy()):
            assert ours.to_str_tokens(ids) == theirs.to_str_tokens(ids) == ["<s>", "cat", "sat"]
        assert ours.to_single_token("sat") == theirs.to_single_token("sat") == 3
    finally:
        ours.tokenizer = kept


def test_a_list_of_texts_is_a_batch_of_them() -> None:
    model = language_model()
    one, other = model.to_tokens("The list"), model.to_tokens("The dict")
    assert model.to_tokens(["The list", "The list"]).tolist() == [one[0].tolist()] * 2
    assert model.to_tokens(("a",)).tolist() == model.to_tokens("a").tolist() == [[0, model.to_single_token("a")]]
    assert one.shape != other.shape, "the control: their lengths differ"
    with pytest.raises(
        DataError, match=rf"they have {one.shape[1]}, {other.shape[1]} tokens, and nothing is padded. Give texts of"
    ):
        model.to_tokens(["The list", "The dict"])
    with pytest.raises(DataError, match=r"2, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2 … and 8 more tokens"):
        model.to_tokens(["a", "ab", *["a"] * 18])


def test_bos_is_left_out_where_asked() -> None:
    model = language_model()
    whole = model.to_tokens("The list")
    assert int(whole[0, 0]) == model.tokenizer.bos_token_id
    assert torch.equal(model.to_tokens("The list", prepend_bos=False), whole[:, 1:])
    assert model.to_string(whole) == ["<|bos|>The list"]
    assert "".join(model.to_str_tokens("The list", prepend_bos=False)) == "The list"
    assert [[text] for text in model.to_str_tokens(whole)] == [model.to_str_tokens(token) for token in whole[0]]


def test_ids_are_on_the_device_of_the_model() -> None:
    model = language_model().to("meta")
    assert model.to_tokens("a").device.type == model.to_tokens(["a", "b"]).device.type == "meta"


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("given", "told"),
    [
        (3, "given as an int"),
        (None, "given as None"),
        ([], "none are given"),
        ([3], "there is an int at place 0"),
        (["a", None], "there is None at place 1"),
        (["a", ""], "'' at place 1 has no tokens"),
        ("", "it has no tokens"),
        (np.zeros(2), "given as an ndarray"),
        (torch.zeros(2), r"shape \(2,\) and type torch.float32"),
        (torch.zeros(1, 1, 2, dtype=torch.long), r"shape \(1, 1, 2\)"),
    ],
)
def test_what_is_no_text_is_refused(given: Any, told: str) -> None:
    with pytest.raises(DataError, match=told):
        language_model().to_tokens(given)


@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_spelt_is_refused() -> None:
    model = language_model()
    with pytest.raises(DataError, match="6 tokens: ' n', 'ot', .*prepend_bos=False"):
        model.to_single_token(" notaword")
    with pytest.raises(DataError, match="A word inside a text has its blank in front"):
        model.to_single_token("notaword")
    with pytest.raises(DataError, match="one text at a time"):
        model.to_single_token([" is"])
    with pytest.raises(DataError, match="the ids have 2 rows"):
        model.to_str_tokens(model.to_tokens(["a", "b"]))
    with pytest.raises(DataError, match="prepend_bos: it is for text"):
        model.to_tokens(torch.tensor([1, 2]), prepend_bos=False)
    for wrong in (3.5, None, "a", []):
        with pytest.raises(DataError, match="reading token ids"):
            model.to_string(wrong)
    for call in ("to_tokens", "to_string", "to_str_tokens", "to_single_token"):
        with pytest.raises(ModelError, match="this model has no tokenizer"):
            getattr(zoo("attn-attn"), call)("a")


@pytest.mark.usefixtures("unchecked")
def test_answers_with_bos_are_refused_by_logit_diff() -> None:
    model = language_model()
    prompt = model.to_tokens("The list")
    right, wrong = model.to_single_token(" is"), model.to_single_token(" the")
    logits = model(prompt)[0, -1].detach()
    measured = metric_values(model, prompt, logit_diff(right, wrong)).item()
    assert measured == pytest.approx(float(logits[right] - logits[wrong]), abs=1e-5)
    words = (model.to_tokens(word, prepend_bos=False) for word in (" is", " the"))
    assert metric_values(model, prompt, logit_diff(*words)).item() == measured
    with pytest.raises(DataError, match="begin with id 0, as ids made by model.to_tokens begin with BOS.*to_single_token"):
        logit_diff(model.to_tokens(" is"), model.to_tokens(" the"))
    for given in (" is", [" is"], [3, " is"]):
        with pytest.raises(DataError, match=r"text among them \(' is'\).*model.to_single_token\(' is'\)"):
            logit_diff(given, 3)  # type: ignore[arg-type]
    assert logit_diff([[5, 3], [5, 4]], [[5, 3], [6, 4]]).reads.ids is not None, "the control: not all begin alike"


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("given", ["The list", ["The list"]])
def test_text_in_place_of_ids_names_to_tokens(given: Any) -> None:
    model, metric = language_model(), logit_diff(3, 4)
    calls = {
        "head_scores": lambda: interp.head_scores(model, given),
        "attention_patterns": lambda: interp.attention_patterns(model, given),
        "activation_patching": lambda: interp.activation_patching(model, given, given, metric),
        "logit_lens": lambda: interp.logit_lens(model, given, metric),
        "ablation_sweep": lambda: interp.ablation_sweep(model, given, metric),
    }
    for name, call in calls.items():
        with pytest.raises(DataError, match=r"tokens are given as a (str|list of str)\..* tokens = model.to_tokens\(text\)"):
            call()
            raise AssertionError(name)
    with pytest.raises(DataError, match="this model has no tokenizer"):
        interp.attention_patterns(zoo("attn-attn"), given)
    with pytest.raises(DataError, match="given as a list of int. Give integer ids"):
        interp.attention_patterns(model, tokens()[0].tolist())  # type: ignore[arg-type]


@pytest.mark.usefixtures("unchecked")
def test_a_name_in_place_of_a_model_says_what_opens_it() -> None:
    ids = tokens()
    name: Any = "conv-attn"
    calls = {
        "induction_scores": lambda: interp.induction_scores(name),
        "repeated_tokens": lambda: interp.repeated_tokens(name),
        "attention_patterns": lambda: interp.attention_patterns(name, ids),
        "copying_scores": lambda: interp.copying_scores(name),
        "kernel_stats": lambda: interp.kernel_stats(name),
        "residual_embeddings": lambda: interp.residual_embeddings(name, ids),
        "generate": lambda: interp.generate(name, ids),
        "audit": lambda: interp.audit(name),
        "cumulative_ablation": lambda: interp.cumulative_ablation(name, ids, logit_diff(1, 2), [(0, 0)]),
    }
    for called, call in calls.items():
        with pytest.raises(ModelError, match=r"'conv-attn' as a model: it is a name .* interp.load_model\('conv-attn'\)"):
            call()
            raise AssertionError(called)
    with pytest.raises(ModelError, match="it is a path"):
        interp.induction_scores(Path("runs/a"))  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="using None as a model: it has no hook points"):
        interp.induction_scores(None)  # type: ignore[arg-type]
