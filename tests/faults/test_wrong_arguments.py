"""Arguments of a wrong name, type or form meet an error that says what is true and what to write."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import interp
from interp import Site, head_scores, metrics, repeated_tokens
from interp.errors import ConfigError, DataError, InterpError, SiteError, each_a, nearest
from interp.interventions import Zero, capture
from interp.interventions.finetune_requests import tokenized
from interp.metrics.values import MetricValues
from interp.models import AttnAttn
from interp.models.constructed import induction_circuit
from interp.probes import Induction
from interp.sites import KINDS, nearest_kind

ROWS = torch.arange(1, 16).reshape(3, 5)


def model() -> AttnAttn:
    torch.manual_seed(1)
    return AttnAttn(d_vocab=19, d_model=8, n_heads=2, residual=True).eval()


@pytest.mark.parametrize(
    ("kind", "meant"),
    [
        ("resid_prev", "resid_pre"),
        ("kk", "k"),
        ("Z", "z"),
        ("hook_z", "z"),
        ("hook_pre", "mlp_pre"),
        ("hook_patern", "pattern"),
        ("blocks.1.attn.hook_z", "z"),
    ],
)
def test_a_mistyped_kind_with_a_layer_is_told_the_nearest(kind: str, meant: str) -> None:
    with pytest.raises(SiteError, match=f"Did you mean '{meant}'"):
        Site(kind, 0)


def test_a_kind_that_is_near_none_gets_no_guess_and_one_without_layers_is_told_so() -> None:
    with pytest.raises(SiteError, match=r"without a layer: Site\('router'\)") as caught:
        Site("router", 0)
    assert "Did you mean" not in str(caught.value)
    for kind in ("embed", "conv", "logits", "hook_embed"):
        with pytest.raises(SiteError, match=rf"'{kind}' has no layer. Write Site\('{kind}'\)"):
            Site(kind, 0)
    with pytest.raises(SiteError, match=r"needs a layer. Write Site\('z', 0\)"):
        Site("z")


@pytest.mark.parametrize(("kind", "meant"), [("hook_z", "z"), ("Z", "z"), ("resid_prev", "resid_pre"), ("hook_embd", "embed")])
def test_a_mistyped_kind_without_a_layer_is_told_the_nearest_of_the_model(kind: str, meant: str) -> None:
    with pytest.raises(SiteError, match=f"Did you mean '{meant}'"):
        capture(model(), ROWS, [Site(kind)])


def test_names_of_ones_own_stay_names() -> None:
    """Also those that are near a kind of the table, and those that end as a hook point does."""
    plain = nn.Sequential(nn.Embedding(30, 6), nn.Linear(6, 6), nn.Linear(6, 30))
    own = interp.hooked(plain, {"kk": "1", "resid_prev": "0", "hook_z": "2"}, d_vocab=30)
    found = capture(own, ROWS, [Site("kk"), Site("resid_prev"), Site("hook_z")])
    embedded = plain[0](ROWS)
    assert torch.equal(found[Site("resid_prev")], embedded)
    assert torch.equal(found[Site("kk")], plain[1](embedded))
    assert found[Site("hook_z")].shape == (3, 5, 30)
    with pytest.raises(SiteError, match="Did you mean 'kk'"):
        capture(own, ROWS, [Site("kkk")])


def test_every_kind_is_found_by_its_hook_point() -> None:
    for kind, (template, _) in KINDS.items():
        assert nearest_kind(template.format(layer=3)) == nearest_kind(template.rsplit(".", 1)[-1]) == f"Did you mean {kind!r}? "
    assert nearest_kind("blocks.0.attn.hook_z", ("resid_pre", "q")) == nearest_kind(Site) == ""


def test_capitals_make_a_difference_only_where_nothing_else_is_near() -> None:
    assert nearest("Z", ["q", "z"]) == "Did you mean 'z'? "
    assert nearest("Q", ["q", "Q"]) == "Did you mean 'Q'? "
    assert nearest("MLPS", ["heads", "mlps"]) == "Did you mean 'mlps'? "
    assert nearest("X", ["q", "z"]) == ""


def test_a_request_with_a_mistaken_key_is_told_the_right_one() -> None:
    asked = {"prompt": "{} is", "subject": "Eve", "target": "here"}
    with pytest.raises(DataError, match=r"lacks target_new, and 'target' is none of its keys. Did you mean 'target_new'\?"):
        tokenized([asked], object())
    with pytest.raises(DataError, match="lacks target_new. Give prompt, subject and target_new"):
        tokenized([{"prompt": "{} is", "subject": "Eve", "id": 7}], object())
    with pytest.raises(DataError, match="an edit request with nothing: it lacks prompt, subject, target_new"):
        tokenized([{}], object())


@pytest.mark.usefixtures("unchecked")
def test_one_score_is_named_in_a_list() -> None:
    with pytest.raises(ConfigError, match=r"'induction': a list of names was expected. Write scores=\[\"induction\"\]"):
        head_scores(model(), period=4, scores="induction")
    with pytest.raises(ConfigError, match="Did you mean 'entropy'"):
        head_scores(model(), period=4, scores="entropi")
    with pytest.raises(ConfigError, match="a list of names"):
        head_scores(model(), period=4, scores=3)  # type: ignore[arg-type]
    listed = head_scores(model(), period=4, scores=["entropy", "induction"])
    assert listed.labels_of("score") == ("entropy", "induction")


@pytest.mark.usefixtures("unchecked")
def test_settings_of_repeats_are_whole_numbers() -> None:
    for name, value in {"period": "8", "copies": 2.0, "n_sequences": None, "seed": "0"}.items():
        with pytest.raises(ConfigError, match=f"^{name}={value!r}: it is a {type(value).__name__}. Give a whole number"):
            repeated_tokens(model(), **{name: value})
    with pytest.raises(ConfigError, match="e.g. period=8"):
        head_scores(model(), period="8")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="e.g. period=2"):
        head_scores(model(), ROWS, period="2")  # type: ignore[arg-type]
    assert repeated_tokens(model(), period=torch.tensor([4]).numpy()[0]).shape == (32, 9)


WRONG: dict[str, tuple[Callable[[Any], Any], type, str]] = {
    "a score's name": (lambda m: interp.run(m, ROWS, ["induction"]), InterpError, "'induction' is in the list and is no Probe"),
    "one name": (lambda m: interp.run(m, ROWS, "induction"), InterpError, "a list of Probe objects was expected"),
    "one probe": (lambda m: interp.run(m, ROWS, Induction()), InterpError, "expected, not an? Induction"),
    "a function": (lambda m: interp.run(m, ROWS, [head_scores]), InterpError, "a function is in the list"),
    "a class of probes": (lambda m: interp.run(m, ROWS, [Induction]), InterpError, "the class Induction is in the list"),
    "no probe": (lambda m: interp.run(m, ROWS, []), InterpError, "at least one probe"),
    "a site as edit": (lambda m: interp.run(m, ROWS, [Induction()], [Site("z", 0)]), InterpError, "is no Intervention"),
    "one edit": (lambda m: interp.run(m, ROWS, [Induction()], Zero(Site("z", 0))), InterpError, "a list of Intervention"),
    "a batch size": (lambda m: interp.run(m, ROWS, [Induction()], batch_size="2"), DataError, "batch_size '2'"),
    "edited": (lambda m: interp.edited(m, ["z"]).__enter__(), InterpError, "'z' is in the list and is no Intervention"),
    "a kind": (lambda m: capture(m, ROWS, ["z"]), SiteError, "'z' is in the list and is no Site"),
    "one kind": (lambda m: capture(m, ROWS, "z"), SiteError, r'Give a list of sites, e.g. \[Site\("z", 0\)\]'),
    "one site": (lambda m: capture(m, ROWS, Site("z", 0)), SiteError, "not a Site"),
    "the class": (lambda m: capture(m, ROWS, Site), SiteError, "the class Site"),
    "the class in a list": (lambda m: capture(m, ROWS, [Site]), SiteError, "the class Site is in the list"),
    "a model's name": (lambda m: interp.calibrate("copy"), ConfigError, "not 'copy'. Give some of .*all_constructed"),
    "a model": (lambda m: interp.calibrate([m]), ConfigError, "an? AttnAttn is in the list and is no Constructed"),
    "one model": (lambda m: interp.calibrate(induction_circuit()), ConfigError, "a list of Constructed"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_list_of_the_right_things_is_refused(name: str) -> None:
    call, error, said = WRONG[name]
    subject = model()
    with pytest.raises(error, match=said):
        call(subject)
    assert not any(point._forward_hooks for point in subject.hook_dict.values())


@pytest.mark.usefixtures("unchecked")
def test_any_iterable_of_the_right_things_will_do() -> None:
    subject, sites = model(), [Site("z", 0), Site("z", 1)]
    listed, drawn = capture(subject, ROWS, sites), capture(subject, ROWS, (site for site in sites))  # type: ignore[arg-type]
    assert listed.keys() == drawn.keys() and all(torch.equal(listed[site], drawn[site]) for site in sites)
    assert capture(subject, ROWS, []) == {}
    (loss,) = interp.run(subject, ROWS, (probe for probe in [MetricValues(metrics.loss())])).values()  # type: ignore[arg-type]
    edits = (Zero(site) for site in sites)
    zeroed = interp.run(subject, ROWS, [MetricValues(metrics.loss())], edits, batch_size=1)["metric"]  # type: ignore[arg-type]
    assert not torch.isclose(zeroed.values, loss.values).any()
    assert each_a(int, range(3), "counting", "Give numbers") == [0, 1, 2]


def answered(logits: Tensor, tokens: Tensor, answers: Tensor, *, weight: Tensor | None = None) -> Tensor:
    return logits[torch.arange(len(answers)), -1, answers] * (1 if weight is None else weight)


@pytest.mark.usefixtures("unchecked")
def test_a_metric_from_a_function_names_what_the_function_takes() -> None:
    ones = torch.ones(3, dtype=torch.long)
    for name, said in {"answer": "takes answers, weight, not 'answer'. Did you mean 'answers'", "tokens": "not 'tokens'"}.items():
        with pytest.raises(DataError, match=said):
            metrics.from_callable(answered, **{name: ones})
    for value, said in ((3, "answers is a int"), (torch.tensor(3), "answers is a single number"), ([1, 1, 1], "is a list")):
        with pytest.raises(DataError, match=f"{said}.*one entry per example"):
            metrics.from_callable(answered, answers=value)  # type: ignore[arg-type]
    whole = metrics.metric_values(model(), ROWS, metrics.from_callable(answered, answers=ones, weight=2.0 * ones)).values
    free = metrics.from_callable(lambda logits, tokens, **named: answered(logits, tokens, named["answers"]), answers=ones)
    assert torch.equal(whole, 2 * metrics.metric_values(model(), ROWS, free).values)
