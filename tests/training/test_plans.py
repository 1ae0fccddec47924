"""Plans: which runs files with lists stand for, what they are called, and that every mistake is told before anything runs."""

import re
from pathlib import Path
from typing import Any

import pytest

from interp.data import CopyConfig, RepeatedConfig
from interp.errors import ConfigError
from interp.models import AttnAttnConfig, ConvAttnConfig, build_model
from interp.training import RunConfig, TrainConfig
from interp.training import estimate as estimating
from interp.training.estimate import check_plans, estimate, together
from interp.training.plans import Plan, find_configs, read_plans, run_name


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def told(*arguments: Any) -> list[str]:
    """The mistakes that `read_plans` reports, one a line."""
    with pytest.raises(ConfigError) as error:
        read_plans(*arguments)
    first, *mistakes, last = str(error.value).split("\n")
    assert re.match(rf"{len(mistakes)} mistakes? in \d+ files?: ", first)
    assert last == "Nothing was run. Correct what is named and try again"
    return [mistake.strip() for mistake in mistakes]


def test_the_product_of_all_lists_in_the_order_of_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, grid="model: {d_model: [8, 16]}\ntrain: {lr: [1e-3, 3e-4], seed: [0, 1, 2], epochs: 3}") / "grid.yaml"
    plans = read_plans([file])
    assert [plan.config for plan in plans] == [
        RunConfig(model=ConvAttnConfig(d_model=width), train=TrainConfig(lr=lr, seed=seed, epochs=3))
        for width in (8, 16)
        for lr in (1e-3, 3e-4)
        for seed in (0, 1, 2)
    ]
    assert plans[4].name == "grid-d_model=8-lr=0.0003-seed=1"
    assert plans[4].varied == {"model.d_model": 8, "train.lr": 3e-4, "train.seed": 1}
    assert plans[4].source == str(file)
    assert len({plan.name for plan in plans}) == 12


def test_one_run_has_the_name_of_its_file(tmp_path: Path) -> None:
    (plan,) = read_plans([write(tmp_path, only="") / "only.yaml"])
    assert plan == Plan("only", RunConfig(), {}, str(tmp_path / "only.yaml"))
    (plan,) = read_plans([tmp_path / "only.yaml"], ["train.lr=[0.5]"])
    assert (plan.name, plan.config.train.lr) == ("only", 0.5)


def test_overrides_go_over_every_file_and_may_be_lists(tmp_path: Path) -> None:
    write(tmp_path, a="train: {lr: [1, 2]}", b="data: {kind: copy, seed: 5}")
    plans = read_plans([tmp_path], ["train.lr=[3e-1,4e-1]", "train.seed=7"])
    assert [(plan.name, plan.config.train.lr, plan.config.train.seed) for plan in plans] == [
        ("a-lr=0.3", 0.3, 7),
        ("a-lr=0.4", 0.4, 7),
        ("b-lr=0.3", 0.3, 7),
        ("b-lr=0.4", 0.4, 7),
    ]
    assert plans[2].config.data == CopyConfig(seed=5)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("[-1]", [(-1,)]),
        ("[]", [()]),
        ("[[-1]]", [(-1,)]),
        ("[[], [-1]]", [(), (-1,)]),
        ("[[-1, -2], [0]]", [(-1, -2), (0,)]),
    ],
)
def test_where_a_setting_is_a_list_a_list_is_one_value(tmp_path: Path, given: str, expected: list[tuple[int, ...]]) -> None:
    write(tmp_path, taps=f"model: {{kernel: 5, masked_taps: {given}}}", none="model: {kernel: 5}")
    assert [plan.config.model.masked_taps for plan in read_plans([tmp_path / "taps.yaml"])] == expected
    overridden = read_plans([tmp_path / "none.yaml"], [f"model.masked_taps={given}"])
    assert [plan.config.model.masked_taps for plan in overridden] == expected


def test_kinds_and_whole_groups_may_be_lists(tmp_path: Path) -> None:
    write(
        tmp_path,
        kinds="model: {d_model: 24, kind: [attn_attn, conv_attn]}",
        groups="model: [{kind: attn_attn, d_model: [8, 16]}, {kernel: [3, 5]}]\ndata: [{period: 4}, {kind: copy, length: 4}]",
    )
    kinds = read_plans([tmp_path / "kinds.yaml"])
    assert [plan.config.model for plan in kinds] == [AttnAttnConfig(d_model=24), ConvAttnConfig(d_model=24)]
    assert [plan.name for plan in kinds] == ["kinds-model=attn_attn", "kinds-model=conv_attn"]
    groups = read_plans([tmp_path / "groups.yaml"], ["model.n_ctx=99"])
    models = [AttnAttnConfig(d_model=8, n_ctx=99), AttnAttnConfig(d_model=16, n_ctx=99)]
    models += [ConvAttnConfig(kernel=3, n_ctx=99), ConvAttnConfig(kernel=5, n_ctx=99)]  # type: ignore[list-item]
    data = [RepeatedConfig(period=4), CopyConfig(length=4)]
    assert [(plan.config.model, plan.config.data) for plan in groups] == [(one, other) for one in models for other in data]
    assert groups[1].name == "groups-model=attn_attn-d_model=8-data=copy-length=4"
    assert len({plan.name for plan in groups}) == 8


def test_equal_runs_are_merged_and_named(tmp_path: Path) -> None:
    write(tmp_path, a="train: {seed: [0, 0, 1]}", b="train: {seed: 1, lr: 3.0e-4}")
    plans = read_plans([tmp_path])
    assert [(plan.name, plan.also) for plan in plans] == [("a-seed=0", ("a-seed=0",)), ("a-seed=1", ("b",))]


def test_files_are_found_by_name_folder_pattern_and_prefix(tmp_path: Path) -> None:
    write(tmp_path / "g", one="", one_more="", two="")
    (tmp_path / "g" / "one.txt").write_text("no configuration")
    folder = f"{tmp_path}/g"
    found = {spec: [file.stem for file in find_configs([spec])] for spec in (folder, f"{folder}/o", f"{folder}/*more.yaml")}
    assert found == {folder: ["one", "one_more", "two"], f"{folder}/o": ["one", "one_more"], f"{folder}/*more.yaml": ["one_more"]}
    assert [file.stem for file in find_configs([f"{folder}/two.yaml", folder, f"{folder}/one.yaml"])] == [
        "two",
        "one",
        "one_more",
    ]
    with pytest.raises(ConfigError, match=r"named '.*tow.yaml', '.*/x'\. Did you mean 'two.yaml'\?"):
        find_configs([f"{folder}/tow.yaml", f"{folder}/two", f"{folder}/x"])
    with pytest.raises(ConfigError, match="none was named"):
        find_configs([])


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    write(tmp_path / "x" / "deep", grid="train: {seed: 1}")
    write(tmp_path / "y" / "deep", grid="train: {seed: 2}", other="train: {seed: 3}")
    paths = [tmp_path / "x/deep/grid.yaml", tmp_path / "y/deep"]
    assert [plan.name for plan in read_plans(paths)] == ["x-deep-grid", "y-deep-grid", "other"]


def test_every_mistake_in_every_file_is_told_once(tmp_path: Path) -> None:
    write(
        tmp_path,
        a="model: {kind: [conv_attn, atn_attn], d_modl: 3}\ntrian: {lr: 3}\ntrain: {seed: [0, 1, 2]}",
        b="data: {kind: copi}\ntrain: {lr: [1e-3, -1], optimizer: adan}",
        c="- a list",
        d="a: 1\na: 2",
        e="train: {lr: []}",
        f="model: []\ndata: {period: 300, d_vocab: 100}",
    )
    mistakes = told([tmp_path], ["train.batch_sise=[3,4]"])
    own = {name: [text.split(": ", 1)[1] for text in mistakes if text.startswith(f"{tmp_path}/{name}.yaml")] for name in "abcdef"}
    assert len(mistakes) == len(set(mistakes)) == sum(map(len, own.values())) + 1, "that of the command line is told once"
    assert [text for text in mistakes if text.startswith("command line: unknown setting 'train.batch_sise' (given [3, 4])")]
    for name, patterns in {
        "a": [
            r"unknown setting 'model.d_modl' \(given 3\). Did you mean 'd_model'\? Settings of conv_attn",
            "trian.*'train'",
            "atn_attn",
        ],
        "b": [
            "'copi'. Did you mean 'copy'",
            r"train.lr: .*greater than 0 \(given -1\)",
            "'adamw', 'sgd', 'adam' or 'muon'.*Did you mean 'adam",
        ],
        "c": ["instead of groups of settings"],
        "d": ["'a' is set twice"],
        "e": [r"train.lr: .*number \(given \[\]\)"],
        "f": [r"model: .*\(given \[\]\)", "period must be at most d_vocab - 1 = 99, not 300"],
    }.items():
        for pattern in patterns:
            assert [text for text in own[name] if re.search(pattern, text)], (name, pattern, own[name])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train=3", r"command line: train: .*given 3"),
        ("train.lr.x=3", r"override 'train.lr.x': lr is 1, not a group"),
        ("model.x.y=3", r"unknown setting 'model.x'"),
        ("train.schedule=[cosine,cosin]", r"command line: train.schedule: .*given 'cosin'\). Did you mean 'cosine'"),
        ("x=3", r"unknown setting 'x'"),
    ],
)
def test_mistakes_of_the_command_line(tmp_path: Path, override: str, message: str) -> None:
    (mistake,) = told([write(tmp_path, a="train: {lr: 1}")], [override])
    assert re.search(message, mistake)


def test_a_grid_too_large_is_refused_before_it_is_made(tmp_path: Path) -> None:
    seeds = list(range(101))
    write(tmp_path, a=f"train: {{seed: {seeds}, lr: {[seed + 1 for seed in seeds]}, epochs: {[seed + 1 for seed in seeds]}}}")
    (mistake,) = told([tmp_path])
    assert "its lists make 1,030,301 runs or more, and 10,000 are the most" in mistake


def test_names_are_safe_short_and_different() -> None:
    keys = ["data.seed", "train.seed", "data.corpus"]
    assert run_name("g", {"data.seed": 1, "train.seed": 2, "data.corpus": "../a b/c"}, keys) == (
        "g-data.seed=1-train.seed=2-corpus=.._a_b_c"
    )
    long = [run_name("g", {"data.corpus": "é" * 300 + end}, keys) for end in "xy"]
    assert long[0] != long[1]
    assert all(len(name.encode()) <= 120 for name in long)


TINY = """
model: {kind: [attn_attn, conv_attn], d_model: 8}
data: {kind: copy, n_symbols: 5, length: 3, n_train: 40, n_validation: 8}
"""


def test_estimates_count_and_time_each_shape_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(
        write(tmp_path / "here", a=TINY + "train: {batch_size: 16, lr: [1e-3, 1e-2], epochs: 2, n_evals: 3, device: cpu}")
    )
    measured = []

    def measure(*arguments: Any) -> tuple[float, float]:
        measured.append(arguments)
        return measure_really(*arguments)

    measure_really = estimating._measure
    monkeypatch.setattr(estimating, "_measure", measure)
    found = estimate(read_plans(["a"]), progress=False)
    assert [(each.steps, each.n_sequences, each.length) for each in found] == [(6, 40, 8)] * 4
    sizes = [
        sum(weight.numel() for weight in build_model(kind(d_model=8, d_vocab=7)).parameters())
        for kind in (AttnAttnConfig, ConvAttnConfig)
    ]
    assert [each.n_parameters for each in found] == [sizes[0], sizes[0], sizes[1], sizes[1]]
    assert len(measured) == 4, "two shapes, twice each"
    assert found[0].seconds == found[1].seconds > 0
    monkeypatch.setattr(estimating, "_measure", lambda *_: (2.0, 0.5))
    found = estimate(read_plans(["a"]), progress=False)
    assert [each.seconds for each in found] == [6 * 2.0 + 4 * 0.5] * 4
    assert (together(found, 1), together(found, 2), together(found, 99)) == (56.0, 28.0, 14.0)
    assert [file.name for file in Path().rglob("*")] == ["a.yaml"], "nothing is written"


def test_what_does_not_fit_is_told_before_anything_runs(tmp_path: Path) -> None:
    write(
        tmp_path,
        a=TINY + "train: {device: cpu}",
        b="data: {kind: text, corpus: ./nowhere.txt}",
        c="train: {device: [cpu, cuda:77]}",
    )
    assert len(check_plans(read_plans([tmp_path / "a.yaml"]))) == 1
    with pytest.raises(ConfigError) as error:
        check_plans(read_plans([tmp_path], ["model.n_ctx=[5,512]"]))
    text = str(error.value)
    assert text.startswith("7 of 10 runs cannot be trained")
    assert re.search(
        r"a.yaml: model.n_ctx: it is 5 and sequences have 8 tokens. .* \(a-model=attn_attn-n_ctx=5 and 1 more runs\)", text
    )
    assert len(re.findall("nowhere", text)) == 1
    assert re.search(r"c.yaml: device 'cuda:77'", text)
