"""The world is what it says, the study ends in a page, and its numbers agree with a loop written out."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from experiments.fact_editing import measure
from experiments.fact_editing.__main__ import main
from experiments.fact_editing.config import PRESETS, StudyConfig
from experiments.fact_editing.measure import EDITED_MEASURES, PLACES, Subject
from experiments.fact_editing.subjects import capitals
from experiments.fact_editing.world import RELATIONS, SENTENCE, WORDINGS, FactsConfig, World
from interp.cli import run_study
from interp.interventions import EditRequest
from interp.models import Transformer
from interp.result import Result
from tests.models.zoo import save_hf

TINY = ["seeds=[3]", "n_cases=2", "layers=[0,1]", "layer=1", "epsilons=[0.01,.inf]", "steps=2", "world.n_people=16",
        "world.n_train=64", "world.n_held_out=4", "train.max_steps=2", "train.eval_sequences=4", "train.batch_size=8",
        "network.d_model=16", "network.n_heads=2", "network.n_layers=2"]  # fmt: skip


def world() -> World:
    return World(FactsConfig(n_people=20, world=5))


def test_every_sentence_has_one_length_and_tells_the_truth() -> None:
    here = world()
    rows = here.text(300, seed=1)
    assert rows.shape == (300, 1 + 2 * SENTENCE)
    assert here.tokenizer.unk_token_id not in rows
    seen = set()
    for row in rows[:, 1:].unflatten(1, (2, SENTENCE)).flatten(0, 1).tolist():
        words = here.tokenizer.convert_ids_to_tokens(row)
        said = " ".join(words[:-2])
        (found,) = [
            (person, relation, wording)
            for person, relation in here.answers
            for wording in range(WORDINGS)
            if here.prompt(person, relation, wording) == said
        ]
        assert words[-2:] == [here.answers[found[:2]], "."]
        assert here.held_out[found[:2]] != found[2], "the held-out wording is never said"
        seen.add(found)
    assert len(seen) > 150


def test_worlds_are_drawn_from_their_seed() -> None:
    assert world().answers == world().answers
    assert world().answers != World(FactsConfig(n_people=20, world=6)).answers
    assert torch.equal(FactsConfig(n_train=8, n_held_out=4).load().train, FactsConfig(n_train=8, n_held_out=4).load().train)
    person = world().people[0]
    ids = world().tokenizer(person)["input_ids"]
    rows = world().text(200, 0, without=(person,))
    assert not (rows[:, :-1] == ids[0]).logical_and(rows[:, 1:] == ids[1]).any()


def test_cases_ask_what_they_say() -> None:
    here = world()
    for case in here.cases(10, seed=2):
        assert isinstance(case.request, EditRequest)
        assert case.prompt == case.request.text
        (relation,) = [name for name, objects in here.objects.items() if case.new in objects]
        assert case.true == here.answers[case.request.subject, relation] != case.new
        assert len({case.prompt, *case.paraphrases}) == WORDINGS
        for prompt, answer in case.neighbours:
            (other,) = [person for person in here.people if person in prompt]
            assert here.answers[other, relation] == answer == case.true
            assert other != case.request.subject
    assert set(RELATIONS) == set(here.objects)


def subject() -> tuple[Subject, StudyConfig]:
    here = world()
    torch.manual_seed(2)
    model = Transformer(d_vocab=len(here.tokenizer), d_model=16, n_heads=2, n_layers=2, n_ctx=34).eval()
    model.tokenizer = here.tokenizer
    study = StudyConfig(n_cases=2, layers=(0, 1), layer=0, epsilons=(1e-2, math.inf), epsilon=1e-2, steps=3, seeds=(1,))
    return Subject(model, here.cases(2, seed=0), here.text(4, seed=9)), study


def test_an_edited_layer_recovers_everything_and_earlier_parts_nothing() -> None:
    one, study = subject()
    for layer in (0, 1):
        found = measure.traced(one, StudyConfig(**{**vars(study), "layer": layer}))
        assert found.components[f"L{layer} MLP"] == pytest.approx([1, 1], abs=1e-3)
        before = [name for name in found.components if int(name[1]) <= layer and not name.endswith("MLP") or int(name[1]) < layer]
        assert before
        assert all(found.components[name] == pytest.approx([0, 0], abs=1e-3) for name in before)
        direct = torch.tensor([found.direct[name] for name in found.direct]).sum(0)
        assert (direct > 0).all(), "the parts' changes add up to a rise of the new answer"
    assert len(found.places[0]) == len(PLACES)
    last = [row[1] for row in found.places]
    assert last == pytest.approx([1, 1], abs=1e-3), "of the last layer, only what it writes at the last token is read"


def test_the_sweep_is_the_loop_written_out_and_leaves_the_model() -> None:
    one, study = subject()
    before = {name: weight.clone() for name, weight in one.model.state_dict().items()}
    found = measure.sweep({1: one}, study)
    again = measure.sweep({1: one}, study)
    assert torch.equal(found, again)
    assert all(torch.equal(weight, before[name]) for name, weight in one.model.state_dict().items())
    assert (found[:, :, 0, :, EDITED_MEASURES.index("largest change")] <= 1e-2).all()
    compared = measure.variants(found, {1: one}, study)
    unedited = compared.values[0, 0]
    assert unedited[EDITED_MEASURES.index("KL")] == pytest.approx(0, abs=1e-9)
    assert unedited[EDITED_MEASURES.index("largest change")] == 0
    assert torch.equal(compared.values[1, 0], measure.averaged(found[0, 0, 0]))


def test_the_wrong_subject_keeps_words_and_answer() -> None:
    one, _ = subject()
    right, wrong = measure.request_of(one.cases[0]), measure.wrong_request(one.cases, 0)
    assert (wrong.prompt, wrong.target_new) == (right.prompt, right.target_new)
    assert wrong.subject != right.subject


def test_own_cases_for_a_large_model_are_sound() -> None:
    for case in capitals():
        assert case.new != case.true
        assert all(case.new not in answer and str(case.request.subject) not in prompt for prompt, answer in case.neighbours)  # type: ignore[union-attr]


def test_the_study_ends_in_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--out", str(tmp_path / "page"), "--runs", str(tmp_path / "runs"), "--workers", "1", *TINY])
    assert "The report is at" in capsys.readouterr().out
    html = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    for heading in ("Answers", "The trade-off over constraints and layers", "Where the new answer comes from"):
        assert heading in html
    data = json.loads((tmp_path / "page" / "results.json").read_text(encoding="utf-8"))
    assert len(data["verdicts"]) == 9
    assert Result.from_json(data["results"]["trade-off"]).values.shape == (1, 2, 2, len(EDITED_MEASURES))
    assert all(card["outcome"] == "not tested" for card in data["verdicts"][1:]), "an untrained model knows nothing to edit"


def test_a_model_of_hugging_face_is_edited_with_cases_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = [case for case in capitals() if isinstance(case.request, EditRequest)][:9]
    texts = [text for case in cases for text in (case.prompt, case.new, case.true, *case.paraphrases, *dict(case.neighbours))]
    words = sorted({word for text in texts for word in str(text).split()})
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["<unk>", *words])}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<unk>",
        eos_token="<unk>",
        pad_token="<unk>",
        padding_side="left",
    )
    wrapped.save_pretrained(save_hf("gpt2", tmp_path / "model"))
    records = [
        {
            "requested_rewrite": {"prompt": case.request.prompt, "subject": case.request.subject,
                                  "target_new": {"str": case.new}, "target_true": {"str": case.true}},
            "paraphrase_prompts": case.paraphrases,
            "neighborhood_prompts": [prompt for prompt, _ in case.neighbours],
        }
        for case in cases
        if isinstance(case.request, EditRequest)
    ]  # fmt: skip
    (tmp_path / "cases.json").write_text(json.dumps(records), encoding="utf-8")
    main(["--out", str(tmp_path / "page"), f"model={tmp_path / 'model'}", f"cases={tmp_path / 'cases.json'}", "seeds=[0,1]",
          "n_cases=2", "layers=[0,1]", "layer=1", "epsilons=[0.01,.inf]", "steps=2"])  # fmt: skip
    assert "The report is at" in capsys.readouterr().out
    data = json.loads((tmp_path / "page" / "results.json").read_text(encoding="utf-8"))
    assert Result.from_json(data["results"]["recovery by place"]).values.shape == (2, 3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seeds=[]"], "seeds must be"),
        (["cases=x.json"], "cases act only"),
        (["layer=7"], "layers must be"),
        (["epsilon=0.5"], "one of the finite"),
        (["epsilons=[0.01,0.02]"], "no constraint"),
        (["n_cases=1"], "at least 2"),
        (["world.n_people=3"], "n_people"),
    ],
)
def test_settings_that_cannot_be_are_refused(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_too_many_cases_end_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder: Any = ["--out", str(tmp_path / "page"), "--runs", str(tmp_path / "runs"), "--workers", "1"]
    assert run_study(main, [*folder, *(word for word in TINY if "n_cases" not in word), "n_cases=500"]) == 1
    assert "editing 500 facts" in capsys.readouterr().err
    assert set(PRESETS) == {"quick", "full"}
