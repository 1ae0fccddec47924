"""Ship a trained model with the library, and write the cards of all that are shipped: `python -m experiments.bundle_models --help`.

python -m experiments.bundle_models                                     # measure all again and write their cards
python -m experiments.bundle_models attn-only-2l runs/phase_change/two-layers-seed10-… --steps 0 700 1000 2400
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import interp
from interp.cli import run_study
from interp.data import REPEATED_PASSAGE
from interp.errors import ModelError, RunFolderError
from interp.files import write_whole
from interp.models.opening import BUNDLED
from interp.models.saved import CONFIG, TOKENIZER, WEIGHTS
from interp.result import Result
from interp.training import kept_checkpoints, open_checkpoint, read_config, read_metrics, read_provenance
from interp.training.checkpoints import KEPT
from interp.training.folder import METRICS, PROVENANCE

SCORES, CARD = "scores.json", "README.md"
ABOUT = {
    "attn-only-2l": "a language model of two layers of attention: a previous-token head, an induction head, and copies of it "
    "from before, during and after their forming",
    "conv-attn": "one attention head over a convolution: an induction head in one layer",
    "attn-attn": "two layers of one head without residual stream or positions: no induction",
    "smeared-key-attn": "one attention head whose keys carry the token before: an induction head in one layer",
    "attn-attn-supplied": "two layers of one head with residual stream and positions: induction by two layers",
    "conv-attn-text": "one attention head over a convolution, on text: no induction",
    "attn-attn-text": "two layers of one head without residual stream or positions, on text: no induction",
    "smeared-key-attn-text": "one attention head whose keys carry the token before, on text",
    "conv-attn-residual-text": "one attention head over a convolution with a residual stream, on text that repeats: an induction head",
}
STUDIES = {"attn-only-2l": "phase_change"}  # the others are of conv_vs_attn
LICENCES = {
    "python-docs": "documentation of Python's standard library and language, Python Software Foundation License 2.0",
    "python-source": "source of Python's standard library, Python Software Foundation License 2.0",
}
USE = (
    "For learning, teaching and testing tools of interpretability. It is far too small to be of use for language, knows nothing but "
    "its training text, and must not be used to decide anything."
)
Row = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> None:
    """Copy a run folder into the library if one is named, then measure every bundled model and write its card."""
    parser = argparse.ArgumentParser(prog="python -m experiments.bundle_models", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("name", nargs="?", help="the name that load_model will know it by")
    parser.add_argument("run", nargs="?", type=Path, help="the finished run folder that is copied")
    parser.add_argument("--steps", nargs="*", type=int, default=[], help="kept checkpoints that come along")
    parser.add_argument("--into", type=Path, default=BUNDLED, help="folder of the bundled models")
    given = parser.parse_args(argv)
    if (given.name is None) != (given.run is None):
        parser.error("give a name and a run folder, or neither")
    if given.name is not None:
        bundle(given.name, given.run, given.steps, given.into)
    names = sorted(place.name for place in given.into.iterdir() if (place / WEIGHTS).is_file())
    for name in names:
        write_card(given.into / name)
    write_whole(given.into / CARD, overview(given.into, names))
    print(f"{len(names)} models and their cards are in {given.into}")


def bundle(name: str, run: Path, steps: Sequence[int], into: Path) -> Path:
    """Copy a finished run into `into/name`: settings, weights, metrics, provenance, tokenizer, and the checkpoints of `steps`.

    Replaces what was there. Raises `RunFolderError` for an unfinished run, or a step of which no copy was kept.
    """
    read_provenance(run)
    for step in steps:
        open_checkpoint(run, step)
    if name not in ABOUT:
        raise RunFolderError(
            f"bundling {name!r}", "nothing is said about it", "Add a line to ABOUT in experiments/bundle_models.py"
        )
    place = into / name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for file in (CONFIG, WEIGHTS, METRICS, PROVENANCE):
        shutil.copyfile(run / file, place / file)
    for folder in (TOKENIZER, *(f"{KEPT}/step-{step}" for step in steps)):
        if (run / folder).is_dir():
            shutil.copytree(run / folder, place / folder, copy_function=shutil.copyfile)
    return place


def write_card(folder: Path) -> None:
    """Measure the model in `folder` and write its scores and its card."""
    rows = measured(folder)
    write_whole(folder / SCORES, json.dumps(rows, indent=1))
    write_whole(folder / CARD, card(folder, rows))


def measured(folder: Path) -> list[Row]:
    """What a card says of a model: name, value, standard error (over sequences) and baseline of each score.

    Everything but the validation loss, which is the one that training recorded, is measured here; the same under any Python.
    """
    model: Any = interp.load_model(folder)
    period = 25 if model.cfg.d_vocab > 128 else 10
    rows = [_row("validation loss, as recorded", "nats", float(read_metrics(folder)[-1]["validation_loss"]), None, None)]
    scores = interp.head_scores(model, period=period)
    null = interp.null_scores(model, period=period)
    for name in ("induction", "previous_token"):
        values = scores.at(score=name)
        layer, head = _best(values)
        chance = null.at(statistic="q95", score=name, layer=layer, head=head).item()
        what = f"{name.replace('_', ' ')} score of L{layer}H{head}, its best head"
        rows.append(_row(what, "share of attention", *_number(values, layer, head), _baseline(values, layer, head)))
        rows.append(
            _row(f"{name.replace('_', ' ')} score of L{layer}H{head}, 95 % of its null", "share of attention", chance, None, None)
        )
    resting = scores.at(score="first_token")
    place = _best(scores.at(score="induction"))
    what = "attention of L{}H{} to the first token".format(*place)
    rows.append(_row(what, "share of attention", *_number(resting, *place), _baseline(resting, *place)))
    tokens = interp.repeated_tokens(model, period=period)
    gain = interp.repeat_loss(model, tokens, period)
    for index, name in enumerate(("first copy of random tokens", "second copy", "gain on the second copy")):
        rows.append(_row(f"loss, {name}" if index < 2 else name, "nats", *_number(gain, index), 0.0 if index == 2 else None))
    rows += _wiring(model, scores)
    if model.tokenizer is not None:
        losses = interp.token_losses(model, REPEATED_PASSAGE).values[0]
        error = float(losses.std() / len(losses) ** 0.5)
        rows.append(
            _row(
                "loss per token of the bundled passage",
                "nats",
                float(losses.mean()),
                error,
                float(torch.tensor(model.cfg.d_vocab).log()),
            )
        )
    return rows


def _wiring(model: Any, scores: Result) -> list[Row]:
    """K-composition of the best previous-token head with the best induction head, where the weights can be read so."""
    try:
        table = interp.composition_scores(model, "K")
    except ModelError:
        return []
    names = scores.labels_of("score")
    first, last = (_best(scores.at(score=names.index(name))) for name in ("previous_token", "induction"))
    if first[0] >= last[0]:
        return []
    what = f"K-composition of L{first[0]}H{first[1]} with L{last[0]}H{last[1]}"
    return [_row(what, "share of norm", table.values[(*first, *last)].item(), None, float(torch.as_tensor(table.baseline)))]


def _row(what: str, unit: str, value: float, stderr: float | None, baseline: float | None) -> Row:
    return {"what": what, "value": value, "stderr": stderr, "baseline": baseline, "unit": unit}


def _best(values: Result) -> tuple[int, int]:
    layer, head = divmod(int(values.values.argmax()), values.values.shape[1])
    return layer, head


def _number(result: Result, *place: int) -> tuple[float, float | None]:
    return result.values[place].item(), None if result.stderr is None else result.stderr[place].item()


def _baseline(result: Result, *place: int) -> float:
    return float(torch.as_tensor(result.baseline).expand(result.values.shape)[place])


def card(folder: Path, rows: Sequence[Row]) -> str:
    """The card of one model, as Markdown."""
    config, told = read_config(folder), read_provenance(folder)
    model: Any = interp.load_model(folder)
    steps = kept_checkpoints(folder)
    corpus = getattr(config.data, "corpus", None)
    licence = LICENCES.get(str(corpus), "drawn at random: no licence applies" if corpus is None else corpus)
    facts = {
        "model": f"{told.model}, {sum(weight.numel() for weight in model.parameters()):,} parameters, {told.dtype}",
        "shape": ", ".join(
            f"{key} {value}"
            for key, value in vars(config.model).items()
            if value not in (None, False, ()) and key not in ("kind", "activation", "norm_kind")
        ),
        "trained on": told.data.rsplit(" ", 1)[0],
        "licence of that data": licence,
        "training": f"{config.train.optimizer}, learning rate {config.train.lr:g}, {read_metrics(folder)[-1]['step']:,} steps of "
        f"{config.train.batch_size} sequences, seed {told.seed}; {told.seconds:.0f} s of one thread",
        "command": f"`python -m experiments.{STUDIES.get(folder.name, 'conv_vs_attn')} --preset quick`",
        "made with": ", ".join(f"{name} {version}" for name, version in told.versions.items()),
        "weights": f"{told.weights} (`interp.provenance.weights_hash`)",
    }
    if steps:
        facts["checkpoints"] = ", ".join(map(str, steps)) + f': `interp.open_checkpoint("{folder.name}", {steps[0]})`'
    lines = [
        f"# {folder.name}",
        "",
        f'{ABOUT[folder.name][0].upper()}{ABOUT[folder.name][1:]}. Open it with `interp.load_model("{folder.name}")`.',
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in facts.items()),
        "",
        "| score | value | baseline |",
        "|---|---|---|",
        *(f"| {row['what']} | {_shown(row)} {row['unit']} | {_digits(row['baseline'])} |" for row in rows),
        "",
        "± is the standard error over sequences (of the passage: over tokens). Scores are on repeats of random tokens; the baseline of a score is a uniform head's, that of "
        "the passage a uniform guess, that of composition random heads'.",
        "",
        USE,
        "",
    ]
    return "\n".join(lines)


def _shown(row: Row) -> str:
    return _digits(row["value"]) + ("" if row["stderr"] is None else f" ± {_digits(row['stderr'])}")


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def overview(into: Path, names: Sequence[str]) -> str:
    """The list of all, as Markdown."""
    lines = [
        "# Bundled models",
        "",
        "Small models trained by this project's own studies: the run folders as training left them (settings, weights, metrics, "
        'provenance, a tokenizer for text, and for some the checkpoints of chosen steps), with a card each. `interp.load_model("conv-attn")` opens one without a '
        "network; `interp.open_checkpoint(name, step)` one of its checkpoints.",
        "",
        "| name | what it is | size |",
        "|---|---|---|",
    ]
    for name in names:
        size = sum(file.stat().st_size for file in (into / name).rglob("*") if file.is_file())
        lines.append(f"| [`{name}`]({name}/README.md) | {ABOUT[name]} | {size / 1e6:.1f} MB |")
    lines += [
        "",
        "The cards are written by `python -m experiments.bundle_models`, which measures every model; the tests measure them again. They are for learning and testing, "
        "not for language.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run_study(main))
