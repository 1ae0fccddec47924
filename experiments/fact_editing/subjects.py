"""The models to edit: one trained on each generated world, or a given one with cases from a file."""

from collections.abc import Sequence

import torch

import interp
from experiments.fact_editing.config import StudyConfig, run_of
from experiments.fact_editing.measure import Subject, request_of
from experiments.fact_editing.world import World
from interp.cli import StudyCommand
from interp.data import load_corpus
from interp.errors import DataError
from interp.interventions import EditCase, EditRequest, read_edit_cases
from interp.interventions.finetune_requests import encoder_of
from interp.seeds import seed_for
from interp.training import fit_all

N_UNRELATED, LONGEST = 32, 32  # rows of text about something else, and tokens in each for a given model

_COUNTRIES = {"France": "Paris", "Japan": "Tokyo", "Italy": "Rome", "Egypt": "Cairo", "Peru": "Lima", "Spain": "Madrid"}
_WORDINGS = ("The capital of {} is", "The government of {} sits in", "The largest embassies in {} are in")


def subjects_of(command: StudyCommand[StudyConfig]) -> dict[int, Subject]:
    """A model with its cases for every seed; trained ones are kept in the folder of runs."""
    study = command.config
    return _given(study) if study.model is not None else _trained(command)


def _trained(command: StudyCommand[StudyConfig]) -> dict[int, Subject]:
    study = command.config
    configs = {f"world-{seed}": run_of(study, seed) for seed in study.seeds}
    worlds = [World(config.data) for config in configs.values()]  # type: ignore[arg-type]
    asked = [
        _enough(world.cases(study.n_cases, seed_for("facts cases", seed)), study)
        for world, seed in zip(worlds, study.seeds, strict=True)
    ]
    runs = fit_all(configs, command.runs, workers=command.workers)
    found = {}
    for seed, world, cases, run in zip(study.seeds, worlds, asked, runs.values(), strict=True):
        about = tuple(case.request.subject for case in cases if isinstance(case.request, EditRequest))
        found[seed] = Subject(run.model, cases, world.text(N_UNRELATED, seed_for("unrelated", seed), without=about))
    return found


def _given(study: StudyConfig) -> dict[int, Subject]:
    model = interp.load_model(study.model)
    pool = _enough(capitals() if study.cases is None else read_edit_cases(study.cases), study)
    encode = encoder_of(model)
    rows = [encode(document)[:LONGEST] for document in load_corpus("python-docs").test[: 4 * N_UNRELATED]]
    unrelated = torch.tensor([row for row in rows if len(row) == LONGEST][:N_UNRELATED])
    found = {}
    for seed in study.seeds:
        order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed_for("cases", seed)))
        found[seed] = Subject(model, of_many_subjects([pool[i] for i in order.tolist()])[: study.n_cases], unrelated)
    return found


def of_many_subjects(cases: Sequence[EditCase]) -> list[EditCase]:
    """The first case of every subject, then the others."""
    firsts = list({request_of(case).subject: case for case in reversed(cases)}.values())[::-1]
    return [*firsts, *(case for case in cases if case not in firsts)]


def _enough(cases: Sequence[EditCase], study: StudyConfig) -> Sequence[EditCase]:
    if len(cases) < study.n_cases:
        raise DataError(f"editing {study.n_cases} facts", f"there are {len(cases)}", "Set n_cases lower, or give more cases")
    return cases


def capitals() -> list[EditCase]:
    """Countries and their capitals, each to be given every other one: for a model trained on the web."""
    cases = []
    for country, capital in _COUNTRIES.items():
        for other, new in _COUNTRIES.items():
            if other != country:
                request = EditRequest(_WORDINGS[0], country, new)
                cases.append(
                    EditCase(
                        prompt=request.text,
                        new=new,
                        true=capital,
                        paraphrases=tuple(wording.replace("{}", country) for wording in _WORDINGS[1:]),
                        neighbours=tuple(
                            (_WORDINGS[0].replace("{}", near), own)
                            for near, own in _COUNTRIES.items()
                            if near not in (country, other)
                        ),
                        request=request,
                    )
                )
    return cases
