"""What an edit does: scores over layers and constraints, controls, and where in the model the new answer comes from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

import interp
from experiments.fact_editing.config import StudyConfig
from interp.errors import DataError
from interp.interventions import (
    EditCase,
    EditRequest,
    Replace,
    WeightEdit,
    capture,
    constrained_finetune,
    edit_scores,
    ngram_entropy,
    overall_score,
)
from interp.interventions.finetune_requests import encoder_of, with_target
from interp.metrics.values import kl_from_run, measured_values
from interp.result import Result
from interp.seeds import seed_for
from interp.sites import Site

EDITED_MEASURES = ("efficacy", "paraphrase", "neighbourhood", "score", "efficacy difference", "KL", "largest change")
UNEDITED, FTL, FT, RANDOM = "unedited", "FT-L", "FT, no constraint", "FT-L, random layer"
WRONG, TWIN = (
    "FT-L, wrong subject",
    "FT-L, a neighbour",
)  # the same words about another case's subject; the first neighbour's prompt
PLACES = ("subject's last token", "last token of the prompt", "other tokens")
GENERATED = 24  # tokens


@dataclass(frozen=True, eq=False)
class Subject:
    """One model with the facts to change in it, and text that is about others."""

    model: Any
    cases: Sequence[EditCase]
    unrelated: Int[Tensor, "row pos"]


def edit_of(subject: Subject, request: EditRequest, study: StudyConfig, layer: int, epsilon: float) -> WeightEdit:
    """One edit with the study's settings."""
    return constrained_finetune(
        subject.model, [request], layers=layer, epsilon=epsilon, lr=study.lr, steps=study.steps, progress=False
    )


def request_of(case: EditCase) -> EditRequest:
    """What the case asks for. Raises `DataError` for cases of token ids."""
    if not isinstance(case.request, EditRequest):
        raise DataError("editing a case", "it has no request in words", "Give cases with requests")
    return case.request


def wrong_request(cases: Sequence[EditCase], index: int) -> EditRequest:
    """The same words and the same new answer, about the subject of another case."""
    right = request_of(cases[index])
    others = [request_of(case).subject for case in [*cases[index + 1 :], *cases[:index]]]
    other = next((subject for subject in others if subject != right.subject), None)
    if other is None:
        raise DataError("the wrong-subject control", "all cases have one subject", "Give more cases, or another seed")
    return EditRequest(right.prompt, other, right.target_new)


def sweep(subjects: Mapping[int, Subject], study: StudyConfig) -> Float[Tensor, "seed layer epsilon case measure"]:
    """Every case edited alone in every layer under every constraint; measures of `EDITED_MEASURES`."""
    shape = (len(subjects), len(study.layers), len(study.epsilons), study.n_cases, len(EDITED_MEASURES))
    found = torch.full(shape, torch.nan, dtype=torch.float64)
    with tqdm(total=found[..., 0].numel(), desc="editing", unit="edit") as bar:
        for s, subject in enumerate(subjects.values()):
            divergence = kl_from_run(subject.model, subject.unrelated)
            for at in torch.cartesian_prod(*(torch.arange(n) for n in shape[1:4])).tolist():
                layer, epsilon, case = study.layers[at[0]], study.epsilons[at[1]], subject.cases[at[2]]
                edit = edit_of(subject, request_of(case), study, layer, epsilon)
                found[(s, *at)] = scored(subject, case, edit, divergence)
                bar.update()
    return found


def scored(subject: Subject, case: EditCase, edit: WeightEdit, divergence: Any) -> Float[Tensor, " measure"]:
    """The measures of one case while `edit` is on; the score is the field's, of this case's three shares."""
    with edit as model:
        scores = edit_scores(model, [case])
        kl = float(measured_values(model, subject.unrelated, divergence).mean())
    part = dict(zip(scores.labels_of("measure"), scores.values[0].tolist(), strict=True))
    shares = [part[name] for name in EDITED_MEASURES[:3]]
    return torch.tensor([*shares, overall_score(*shares), part["efficacy difference"], kl, edit.largest], dtype=torch.float64)


def averaged(found: Float[Tensor, "*axes case measure"]) -> Float[Tensor, "*axes measure"]:
    """Means over cases; the score is the harmonic mean of the mean shares, as the field has it."""
    mean = found.nanmean(-2)
    shares = mean[..., :3]
    mean[..., EDITED_MEASURES.index("score")] = torch.where((shares > 0).all(-1), 3 / (1 / shares).sum(-1), 0.0)
    return mean


def trade_off(found: Tensor, study: StudyConfig) -> Result:
    """The sweep as a result, means over cases."""
    return Result(
        name="trade-off",
        values=averaged(found),
        axes=("seed", "layer", "epsilon", "measure"),
        labels={
            "seed": tuple(map(str, study.seeds)),
            "layer": tuple(map(str, study.layers)),
            "epsilon": tuple(epsilon_name(epsilon) for epsilon in study.epsilons),
            "measure": EDITED_MEASURES,
        },
        count=study.n_cases,
        description="shares of prompts, the score S, p(new) − p(true), KL in nats per token, and the largest change of a weight",
    )


def epsilon_name(epsilon: float) -> str:
    """`0.01`, or `none` for no constraint."""
    return "none" if epsilon == float("inf") else f"{epsilon:g}"


def variants(found: Tensor, subjects: Mapping[int, Subject], study: StudyConfig) -> Result:
    """The main edit beside its controls: axes (variant, seed, measure)."""
    layer, main = study.layers.index(study.layer), study.epsilons.index(study.epsilon)
    rows = {FTL: averaged(found[:, layer, main]), FT: averaged(found[:, layer, -1])}
    others = [index for index in range(len(study.layers)) if index != layer]
    controls: dict[str, list[Tensor]] = {UNEDITED: [], RANDOM: [], WRONG: [], TWIN: []}
    for s, (seed, subject) in enumerate(subjects.items()):
        drawn = torch.Generator().manual_seed(seed_for("random layer", seed))
        choices = torch.randint(len(others), (study.n_cases,), generator=drawn).tolist()
        chosen = torch.stack([found[s, others[choice], main, case] for case, choice in enumerate(choices)])
        controls[RANDOM].append(averaged(chosen))
        for name, measured in controls_of(subject, study).items():
            controls[name].append(averaged(measured))
    rows |= {name: torch.stack(values) for name, values in controls.items()}
    order = (UNEDITED, FTL, FT, RANDOM, WRONG, TWIN)
    return Result(
        name="variants",
        values=torch.stack([rows[name] for name in order]),
        axes=("variant", "seed", "measure"),
        labels={"variant": order, "seed": tuple(map(str, subjects)), "measure": EDITED_MEASURES},
        count=study.n_cases,
        description="means over the edited facts",
    )


def controls_of(subject: Subject, study: StudyConfig) -> dict[str, Float[Tensor, "case measure"]]:
    """The measures without an edit (an ε of 0), and after the edit was made elsewhere: another subject's, or a neighbour's."""
    divergence = kl_from_run(subject.model, subject.unrelated)
    rows: dict[str, list[Tensor]] = {UNEDITED: [], WRONG: [], TWIN: []}
    for index, case in enumerate(subject.cases):
        edits = {
            UNEDITED: edit_of(subject, request_of(case), replace(study, steps=1), study.layer, 0.0),
            WRONG: edit_of(subject, wrong_request(subject.cases, index), study, study.layer, study.epsilon),
            TWIN: edit_of(subject, neighbour_request(case), study, study.layer, study.epsilon),
        }
        for name, edit in edits.items():
            rows[name].append(scored(subject, case, edit, divergence))
    return {name: torch.stack(values) for name, values in rows.items()}


def neighbour_request(case: EditCase) -> EditRequest:
    """The new answer for the case's first neighbour: somebody else, whose true answer is the same."""
    if not case.neighbours or not isinstance(case.neighbours[0][0], str):
        raise DataError("the neighbour control", "a case has no neighbour in words", "Give cases with neighbours")
    return EditRequest("{}", case.neighbours[0][0], request_of(case).target_new)


def fluency(subjects: Mapping[int, Subject], study: StudyConfig) -> Result:
    """n-gram entropy, in bits, of what the model says after the prompts: unedited, under FT-L and under FT."""
    rows = {UNEDITED: 0.0, FTL: study.epsilon, FT: study.epsilons[-1]}
    values = torch.zeros(len(rows), len(subjects), dtype=torch.float64)
    for s, subject in enumerate(subjects.values()):
        for case in subject.cases:
            for row, epsilon in enumerate(rows.values()):
                with edit_of(subject, request_of(case), study, study.layer, epsilon) as model:
                    said = said_after(model, request_of(case).text)
                values[row, s] += ngram_entropy(said) / len(subject.cases)
    labels = {"variant": tuple(rows), "seed": tuple(map(str, subjects))}
    return Result(name="fluency", values=values, axes=("variant", "seed"), labels=labels, unit="bits")


def said_after(model: Any, prompt: str) -> list[int]:
    """What the model says next, greedily."""
    ids = torch.tensor([encoder_of(model)(prompt)])
    room = (model.cfg.n_ctx or ids.shape[1] + GENERATED) - ids.shape[1]
    new = interp.generate(model, ids, max_new_tokens=min(GENERATED, room), stop=(), progress=False).new_tokens
    return new[0].tolist()


@dataclass(frozen=True, eq=False)
class Traced:
    """Where the new answer comes from, per case of one model."""

    components: dict[str, list[float]]  # recovery when one component's output is taken from the edited model
    places: list[list[float]]  # recovery when the edited MLP's output is, at a place
    direct: dict[str, list[float]]  # change of each part's direct contribution, in logits


def traced(subject: Subject, study: StudyConfig) -> Traced:
    """Patch parts of the edited model's run into the unedited model, and attribute the logits before and after.

    A recovery is (patched − unedited) / (edited − unedited) of the logit of the new answer's first token minus the true one's.
    """
    found = Traced({}, [], {})
    for case in subject.cases:
        request = request_of(case)
        encode = encoder_of(subject.model)
        new = with_target(encode, request.text, request.target_new)
        true = with_target(encode, request.text, str(case.true)) if case.true is not None else new
        if new.target[0] == true.target[0]:
            continue  # nothing to tell apart by the first token
        tokens = torch.tensor([new.prompt])
        metric = interp.metrics.logit_diff([new.target[0]], [true.target[0]])
        edit = edit_of(subject, request, study, study.layer, study.epsilon)
        _trace_one(subject.model, tokens, metric, edit, layer=study.layer, end=subject_end(encode, request), found=found)
    return found


def subject_end(encode: Any, request: EditRequest) -> int:
    """The position of the subject's last token in the prompt."""
    before = request.prompt.split("{}")[0]
    return len(encode(before + request.subject)) - 1


def _trace_one(model: Any, tokens: Tensor, metric: Any, edit: WeightEdit, *, layer: int, end: int, found: Traced) -> None:
    sites: dict[str, Site] = {}
    for n in range(model.cfg.n_layers):
        heads = {f"L{n}H{head}": Site("z", n, head=head) for head in range(model.cfg.n_heads)}
        sites |= {**heads, f"L{n} attention": Site("attn_out", n), f"L{n} MLP": Site("mlp_out", n)}
    before = float(measured_values(model, tokens, metric))
    parts = interp.direct_logit_attribution(model, tokens, metric)
    with edit:
        after = float(measured_values(model, tokens, metric))
        values = capture(model, tokens, list(sites.values()))
        changed = interp.direct_logit_attribution(model, tokens, metric)

    def recovery(*edits: Replace) -> float:
        return (float(measured_values(model, tokens, metric, edits)) - before) / (after - before)

    for name, site in sites.items():
        found.components.setdefault(name, []).append(recovery(Replace(site, values[site])))
    edited = sites[f"L{layer} MLP"]
    last = tokens.shape[1] - 1
    groups = [[end] if end != last else [], [last], [at for at in range(last) if at != end]]
    at_places = [
        recovery(*(Replace(replace(edited, position=at), values[edited][:, at]) for at in group)) if group else float("nan")
        for group in groups
    ]
    found.places.append(at_places)
    for name, one, other in zip(parts.labels_of("component"), parts.values, changed.values, strict=True):
        found.direct.setdefault(name, []).append(float(other - one))


def mechanism(subjects: Mapping[int, Subject], study: StudyConfig) -> dict[str, Result]:
    """The tracing of every seed as results, means over cases."""
    traces = [traced(subject, study) for subject in subjects.values()]
    seeds = tuple(map(str, subjects))
    results = {}
    for name, axis, rows, unit in (
        ("recovery by component", "component", [trace.components for trace in traces], "share of the change"),
        ("direct contribution, change", "component", [trace.direct for trace in traces], "logits"),
        (
            "recovery by place",
            "place",
            [dict(zip(PLACES, zip(*trace.places, strict=True), strict=True)) for trace in traces],
            "share of the change",
        ),
    ):
        values = torch.stack(
            [torch.stack([torch.tensor(v, dtype=torch.float64).nanmean() for v in row.values()]) for row in rows]
        )
        labels = {"seed": seeds, axis: tuple(rows[0])}
        results[name] = Result(name=name, values=values, axes=("seed", axis), labels=labels, unit=unit)
    return results


def knowledge(subjects: Mapping[int, Subject]) -> Result:
    """The unedited models on their own cases: share of prompts, and of rewordings, whose true answer is the likeliest of all."""
    rows = []
    for subject in subjects.values():
        old = [replace(case, new=case.true or case.new, true=None, neighbours=()) for case in subject.cases]
        scores = edit_scores(subject.model, old)
        mean = dict(zip(scores.labels_of("measure"), scores.values.nanmean(0).tolist(), strict=True))
        rows.append([mean["efficacy accuracy"], mean["paraphrase accuracy"]])
    labels = {"seed": tuple(map(str, subjects)), "asked": ("the prompt", "its rewordings")}
    values = torch.tensor(rows, dtype=torch.float64)
    return Result(name="knowledge", values=values, axes=("seed", "asked"), labels=labels, unit="share right")
