"""Opening models: folders, names, live models, and what is said when nothing can be opened."""

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from interp.errors import ModelError
from interp.models import load_model
from interp.models.saved import save_model
from interp.sites import HookedModel
from tests.models.zoo import D_VOCAB, KINDS_OF_MODEL, N_CTX, hf_model, save_hf, tokens, zoo


@pytest.mark.parametrize("kind", ["gpt2", "llama", "neox"])
def test_a_hugging_face_folder(kind: str, tmp_path: Path) -> None:
    folder = save_hf(kind, tmp_path)
    model = load_model(folder)
    assert isinstance(model, HookedModel) and not any(module.training for module in model.modules())
    assert (model.cfg.d_vocab, model.cfg.n_ctx, model.tokenizer) == (D_VOCAB, N_CTX, None)
    with torch.no_grad():
        torch.testing.assert_close(load_model(str(folder))(tokens()), hf_model(kind)(tokens()).logits, rtol=1e-5, atol=1e-5)


def test_its_tokenizer_comes_along(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({"<s>": 0, "the": 1, "cat": 2}, unk_token="<s>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="<s>", unk_token="<s>").save_pretrained(tmp_path)
    model = load_model(save_hf("llama", tmp_path))
    assert model.tokenizer.encode("the cat", add_special_tokens=False) == [1, 2]


def test_a_run_folder(tmp_path: Path) -> None:
    model = zoo("conv-attn")
    save_model(model, tmp_path)
    assert torch.equal(load_model(tmp_path)(tokens()), model(tokens()))


@pytest.mark.parametrize("name", KINDS_OF_MODEL)
def test_a_live_model_is_itself(name: str) -> None:
    assert load_model(zoo(name)) is zoo(name)


def test_a_name_in_the_local_cache_is_opened_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "hub"
    repository = cache / "models--someone--tiny-gpt2"
    save_hf("gpt2", repository / "snapshots" / "abc123")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc123")
    script = (
        "from interp.models import load_model; m = load_model('someone/tiny-gpt2'); "
        "print(m.cfg.model_name, m.cfg.n_layers)\n"
        "try: load_model('someone/other')\nexcept Exception as error: print(error)"
    )
    environment = {**os.environ, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    first, second = done.stdout.strip().splitlines()
    assert first == "someone/tiny-gpt2 2"
    assert "cannot be reached" in second and "someone/tiny-gpt2" in second


@pytest.mark.parametrize("name", ["gpt2", "pythia-70m", "EleutherAI/pythia-70m"])
def test_without_a_network_the_error_comes_at_once_and_says_what_was_tried(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi, constants

    def unreachable(*arguments: object, timeout: float, **named: object) -> None:
        assert timeout <= 10
        raise ConnectionError("no route to host")

    monkeypatch.setattr(HfApi, "model_info", unreachable)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "/nonexistent")
    monkeypatch.chdir("/")
    with pytest.raises(ModelError) as caught:
        load_model(name)
    for words in ("no folder", "local Hub cache", "Hub cannot be reached (ConnectionError: no route to host)", "give a folder"):
        assert words in str(caught.value)


def test_a_name_that_the_hub_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    def missing(*arguments: object, **named: object) -> None:
        try:
            raise RepositoryNotFoundError("404", response=httpx.Response(404, request=httpx.Request("GET", "https://hub")))
        except TypeError:  # another version of the hub's client
            raise RepositoryNotFoundError("404") from None

    monkeypatch.setattr(HfApi, "model_info", missing)
    with pytest.raises(ModelError, match="the Hub has no such model.*Did you mean 'EleutherAI/pythia-70m'"):
        load_model("EleutherAI/pythia-70")


@pytest.mark.parametrize("spec", ["no such thing!", "a/b/c", "../nowhere"])
def test_what_is_neither_a_folder_nor_a_possible_name(spec: str) -> None:
    with pytest.raises(ModelError, match="no such folder, and it cannot be a name on the Hub"):
        load_model(spec)


def test_folders_that_hold_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="this one holds: nothing"):
        load_model(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ModelError, match=r"this one holds: notes\.txt"):
        load_model(tmp_path)
    with pytest.raises(ModelError, match="it is a file"):
        load_model(tmp_path / "notes.txt")
    with pytest.raises(ModelError, match="there is no such folder"):
        load_model(tmp_path / "missing")
    with pytest.raises(ModelError, match="an int does not name a model"):
        load_model(3)


def test_hugging_face_folders_that_cannot_be_opened(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    whole = save_hf("gpt2", tmp_path / "whole")
    shutil.copytree(whole, tmp_path / "no weights", ignore=shutil.ignore_patterns("*.safetensors"))
    shutil.copytree(whole, tmp_path / "unknown")
    config = json.loads((whole / "config.json").read_text())
    (tmp_path / "unknown" / "config.json").write_text(json.dumps({**config, "model_type": "abacus", "architectures": ["Abacus"]}))
    for name in ("no weights", "unknown"):
        with pytest.raises(ModelError, match=f"{name}': TransformerLens cannot open it .*interp.hooked"):
            load_model(tmp_path / name)


def test_plain_modules_are_sent_to_hooked() -> None:
    with pytest.raises(ModelError, match=r"live Linear: it has no hook points.*interp\.hooked"):
        load_model(torch.nn.Linear(3, 5))
    with pytest.raises(ModelError, match=r"live GPT2LMHeadModel.*save_pretrained.*interp\.hooked"):
        load_model(hf_model("gpt2"))


def test_a_checkpoint_that_lacks_weights_is_not_filled_at_random(tmp_path: Path) -> None:
    folder = save_hf("gpt2", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "n_layer": config["n_layer"] + 1}))
    before = logging.getLogger("transformers.modeling_utils").handlers[:]
    with pytest.raises(ModelError, match=r"lack 12 .* random: transformer\.h\.2\."):
        load_model(folder)
    assert logging.getLogger("transformers.modeling_utils").handlers == before


def test_a_checkpoint_with_weights_that_are_not_numbers_is_refused(tmp_path: Path) -> None:
    model = hf_model("gpt2")
    with torch.no_grad():
        model.transformer.h[1].mlp.c_fc.weight[0, 0] = torch.nan
    model.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"hold NaN or infinite numbers: .*1\.mlp"):
        load_model(tmp_path)


def test_a_folder_of_run_folders_lists_them(tmp_path: Path) -> None:
    for number in range(10):
        save_model(zoo("conv-attn"), tmp_path / "runs" / f"run-{number}")
    with pytest.raises(
        ModelError, match=r"itself; 10 model folders are in it. Give one of them: '.*run-0', .*run-7' … and 2 more"
    ):
        load_model(tmp_path / "runs")
    with pytest.raises(ModelError, match="10 model folders are in it"):
        load_model(str(tmp_path))
    with pytest.raises(ModelError, match="this one holds: nothing"):
        (tmp_path / "empty").mkdir()
        load_model(tmp_path / "empty")
    assert load_model(tmp_path / "runs" / "run-7")
