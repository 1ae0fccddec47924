"""Plans: from configuration files, in which any setting may be a list, to the runs that they stand for.

plans = read_plans(["grids/heads.yaml"], ["train.seed=[0,1,2]"])
fit_all({plan.name: plan.config for plan in plans}, "runs")
"""

import dataclasses
import glob
import itertools
import json
import math
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from interp.config import (
    as_dict,
    build,
    defaults_of,
    field_types,
    find_mistakes,
    flat,
    group_class,
    merged,
    read_assignments,
    read_yaml,
)
from interp.errors import ConfigError, nearest
from interp.training.config import RunConfig

MOST_RUNS = 10_000
_LONGEST_NAME = 120
_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Plan:
    """One run to be trained: its name, its settings, those that vary within its file, and that file.

    `also` names the runs with the very same settings that were merged into this one.
    """

    name: str
    config: RunConfig
    varied: Mapping[str, Any]
    source: str
    also: tuple[str, ...] = ()


def read_plans(paths: Sequence[str | Path], overrides: Sequence[str] = ()) -> list[Plan]:
    """The runs that configuration files stand for, the product of all lists in each.

    A path is a file, a folder of them, a pattern (`grids/*.yaml`), or what the names of several begin with. A file is YAML: the
    groups `model`, `data` and `train` of `RunConfig`; what it leaves out has its default. A list stands for one run per entry, in
    groups too (`model: [{kind: attn_attn}, {kind: conv_attn, kernel: [3, 5]}]`). Where a setting is a list by its nature, as
    `model.masked_taps` is, a list is one value and a list of lists several.

    `overrides` are `key=value` texts laid over every file, lists included. Names are made of the file's and of what varies in it;
    no two are equal. Runs with the same settings are merged: the first one's name stays, `also` has the others.

    Raises `ConfigError` with every mistake in every file, each with file, key, what was given and what is possible.
    """
    given = read_assignments(overrides)
    files = find_configs(paths)
    mistakes: dict[str, None] = {}
    plans: list[Plan] = []
    for file, label in zip(files, _labels(files), strict=True):
        try:
            combinations = _combinations(file, given)
        except ConfigError as error:
            mistakes[f"{error.asked}: {error.truth}"] = None
            continue
        wrong = [
            f"{_source(text, file, given)}: {text}" for values in combinations for text in find_mistakes(RunConfig, _full(values))
        ]
        mistakes |= dict.fromkeys(wrong)
        if not mistakes:
            plans += _named(label, combinations, str(file))
    if mistakes:
        raise ConfigError(
            f"{len(mistakes)} mistake{'s' * (len(mistakes) > 1)} in {len(files)} file{'s' * (len(files) > 1)}",
            "\n  " + "\n  ".join(mistakes) + "\nNothing was run",
            "Correct what is named and try again",
        )
    return _merged_equal(plans)


def find_configs(paths: Sequence[str | Path]) -> list[Path]:
    """The configuration files that paths stand for (see `read_plans`), each once, in the order given.

    Raises `ConfigError` for every path that stands for none, with the nearest name.
    """
    found: dict[Path, Path] = {}
    missing = []
    for path in map(str, paths):
        files = _files(path)
        found |= {file.resolve(): file for file in files if file.resolve() not in found}
        if not files:
            missing.append(path)
    if missing:
        hints = "".join(map(_nearest_file, missing))
        truth = f"no file, folder or beginning of a .yaml file is named {', '.join(map(repr, missing))}"
        raise ConfigError("configuration files", truth, f"{hints}Give files, a folder, a pattern or a prefix")
    if not found:
        raise ConfigError("configuration files", "none was named", "Give files, a folder, a pattern or a prefix")
    return list(found.values())


def _files(path: str) -> list[Path]:
    if Path(path).is_file():
        return [Path(path)]
    pattern = f"{glob.escape(path)}/*" if Path(path).is_dir() else path if glob.has_magic(path) else f"{glob.escape(path)}*"
    return sorted(Path(file) for file in glob.glob(pattern) if Path(file).is_file() and file.endswith(_SUFFIXES))


def _nearest_file(path: str) -> str:
    folder = Path(path).parent
    names = [file.name for file in folder.iterdir() if file.suffix in _SUFFIXES] if folder.is_dir() else []
    return nearest(Path(path).name, names) or nearest(f"{Path(path).name}.yaml", names)


def _labels(files: Sequence[Path]) -> list[str]:
    """What the runs of each file are called: its name, with as many of its folders as tell it from the others."""
    resolved = [file.resolve() for file in files]
    labels = [file.stem for file in resolved]
    for depth in range(2, max(len(file.parts) for file in resolved) + 1):
        if len(set(labels)) == len(labels):
            break
        twice = {label for label in labels if labels.count(label) > 1}
        labels = [
            "-".join([*file.parts[-depth:-1], file.stem]) if label in twice else label
            for file, label in zip(resolved, labels, strict=True)
        ]
    return [f"{label}-{number}" if labels.count(label) > 1 else label for number, label in enumerate(labels)]


def _combinations(file: Path, overrides: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The nested values that a file gives, one for each run."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(file), f"it cannot be read ({error})", "Give a YAML file") from None
    values = read_yaml(text, str(file))
    values = {} if values is None else values
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(
            str(file), f"it holds {_short(values)} instead of groups of settings", "Begin with model:, data: or train:"
        )
    for key, value in overrides.items():
        _lay(values, key.split("."), value, key)
    return _expand(RunConfig, values, str(file))


def _lay(values: dict[str, Any], path: list[str], value: Any, key: str) -> None:
    """Set one setting, in every alternative where a group is given as a list of them."""
    name, *rest = path
    if not rest:
        values[name] = value
        return
    group = values.setdefault(name, {})
    for alternative in group if isinstance(group, list) else [group]:
        if not isinstance(alternative, dict):
            raise ConfigError(
                f"override {key!r}", f"{name} is {_short(alternative)}, not a group", "Correct the file, or the key"
            )
        _lay(alternative, rest, value, key)


def _expand(cls: type | None, values: Mapping[str, Any], asked: str) -> list[dict[str, Any]]:
    """Every combination of the lists among `values` of the settings class `cls` (None: unknown, nothing is a list of values)."""
    types_of = field_types(cls) if cls is not None else {}
    defaults = defaults_of(cls) if cls is not None else {}
    options = []
    for name, value in values.items():
        annotation = types_of.get(name)
        is_group = group_class(annotation, defaults.get(name)) is not None
        choices = _groups(annotation, value, defaults.get(name), asked) if is_group else _choices(annotation, value)
        options.append([(name, choice) for choice in choices])
    count = math.prod(map(len, options))
    if count > MOST_RUNS:
        raise ConfigError(asked, f"its lists make {count:,} runs or more, and {MOST_RUNS:,} are the most", "Shorten a list")
    return [dict(combination) for combination in itertools.product(*options)]


def _groups(annotation: Any, value: Any, default: Any, asked: str) -> list[Any]:
    """What a group stands for: itself with its lists taken apart, for each kind and each alternative."""
    if isinstance(value, list):
        return [group for alternative in value for group in _groups(annotation, alternative, default, asked)] or [value]
    if not isinstance(value, Mapping):
        return [value]
    kinds = value.get("kind")
    expanded = []
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        one = {**value, "kind": kind} if "kind" in value else value
        expanded += _expand(group_class(annotation, one if "kind" in one else default), one, asked)
    return expanded


def _choices(annotation: Any, value: Any) -> list[Any]:
    """The values that a setting is given: a list is several, unless the setting itself holds a list as deep."""
    is_many = annotation is not None and isinstance(value, list) and value and _value_depth(value) > _type_depth(annotation)
    return value if is_many else [value]


def _type_depth(annotation: Any) -> int:
    """How many lists lie within each other in values of a type."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType) or hasattr(annotation, "__metadata__"):
        return max(_type_depth(entry) for entry in arguments)
    container = origin or annotation
    is_list = isinstance(container, type) and issubclass(container, Iterable) and not issubclass(container, (str, bytes, Mapping))
    return 1 + max((_type_depth(entry) for entry in arguments), default=0) if is_list else 0


def _value_depth(value: Any) -> int | float:
    """How many lists lie within each other, in the flattest part; null fits at any depth."""
    if value is None:
        return math.inf
    return 1 + min(map(_value_depth, value), default=0) if isinstance(value, list) else 0


def _full(values: Mapping[str, Any]) -> dict[str, Any]:
    return merged(as_dict(RunConfig()), values)


def _source(text: str, file: Path, overrides: Mapping[str, Any]) -> str:
    is_override = any(f"'{key}'" in text or text.startswith(f"{key}: ") for key in overrides)
    return "command line" if is_override else str(file)


def _named(label: str, combinations: Sequence[Mapping[str, Any]], source: str) -> list[Plan]:
    """Plans with names that tell them apart."""
    given = [flat(values) for values in combinations]
    keys = list(dict.fromkeys(key for values in given for key in values))
    varied = [key for key in keys if len({json.dumps(values.get(key, "absent"), default=str) for values in given}) > 1]
    plans: list[Plan] = []
    for combination, values in zip(combinations, given, strict=True):
        config = build(RunConfig, _full(combination), source=source)
        own = {key: values[key] for key in varied if key in values}
        name = run_name(label, own, varied)
        plans.append(Plan(name, config, own, source))
    return plans


def run_name(label: str, values: Mapping[str, Any], keys: Sequence[str]) -> str:
    """`label-key=value-…` in letters that every file system takes; long names are cut and end in a hash of the whole.

    A key is shortened to its last part where that tells it from all other `keys`; `model.kind` is `model`.
    """
    parts = [label, *(f"{_short_key(key, keys)}={_short_value(value)}" for key, value in values.items())]
    name = "-".join(re.sub(r"[^\w.,=+-]", "_", part) for part in parts)
    if len(name.encode()) <= _LONGEST_NAME:
        return name
    cut = name.encode()[: _LONGEST_NAME - 9].decode(errors="ignore")
    return f"{cut}-{sha256(json.dumps(dict(values), default=str).encode()).hexdigest()[:8]}"


def _short_key(key: str, keys: Sequence[str]) -> str:
    def last(name: str) -> str:
        return name.removesuffix(".kind").rsplit(".", 1)[-1]

    return last(key) if [last(other) for other in keys].count(last(key)) == 1 else key


def _short_value(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_short_value, value)) or "none"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _merged_equal(plans: Sequence[Plan]) -> list[Plan]:
    """The first plan of each settings, and no name twice."""
    first: dict[str, Plan] = {}
    for plan in plans:
        key = json.dumps(as_dict(plan.config), sort_keys=True)
        known = first.get(key)
        first[key] = plan if known is None else dataclasses.replace(known, also=(*known.also, plan.name))
    names: dict[str, int] = {}
    result = []
    for plan in first.values():
        names[plan.name] = names.get(plan.name, 0) + 1
        result.append(dataclasses.replace(plan, name=f"{plan.name}-{names[plan.name]}") if names[plan.name] > 1 else plan)
    return result


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
