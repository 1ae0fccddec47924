"""Training one run from its settings, into a run folder that a killed run goes on from."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from interp.config import as_dict
from interp.data import TokenData, load_data
from interp.files import write_whole
from interp.models.saved import CONFIG, save_model
from interp.provenance import provenance_of
from interp.training.callbacks import Callback, Calling, EarlyStopping, Row, Watch, Watching, check_callbacks
from interp.training.checkpoints import KEPT, Checkpoints, check_identity, keep_model
from interp.training.config import RunConfig
from interp.training.engine import make_engine
from interp.training.folder import (
    METRICS,
    RUN,
    TABLE,
    finish,
    identity_of,
    is_finished,
    open_run,
    read_identity,
    run_id,
    table_of,
)
from interp.training.loop import Training, own_random_state, train
from interp.training.objectives import model_for
from interp.training.samples import Samples
from interp.training.start import on_device, starting_model
from interp.training.steps import kept_steps
from interp.training.trackers import make_trackers


@dataclass(frozen=True)
class FinishedRun:
    """A trained model, what was measured while it trained (one row per reading), and where both are kept."""

    config: RunConfig
    model: Any
    metrics: tuple[Row, ...]
    folder: Path | None


def fit(
    config: RunConfig,
    folder: str | Path | None = None,
    *,
    watch: Watch | None = None,
    data: TokenData | None = None,
    callbacks: Sequence[Callback] = (),
    on_step: Callable[[], None] | None = None,
    progress: bool = True,
) -> FinishedRun:
    """Train a model as `config` says, reading validation metrics and `watch` along the way.

    Readings are taken before the first step, after the last and at log-spaced steps between. Each row of `metrics` has step,
    samples and tokens seen, learning rate, mean training loss since the reading before, seconds spent in steps, validation loss
    (nats) and accuracy (`validation_numbers` says over which tokens), and one number per entry of `watch`, a function of the
    model. `callbacks` act inside the loop (see `Callback`), `on_step` is called after each step, `data` replaces `config.data`
    when it is loaded already. The model that is returned is that of the last step.

    With `folder`, everything is kept there, and the same call goes on where a killed one was: on a CPU its end is bit-equal to
    the uninterrupted run's, times apart. A finished run is opened, not run again. Under torchrun several processes train one
    model, each on its share of every batch. On one device, equal settings give equal weights; torch's random state is put back.

    Raises `ConfigError` when model, data and settings do not fit together, `DivergedError` when the loss is no longer finite, and
    `RunFolderError` when `folder` holds another run.
    """
    check_callbacks(callbacks)
    data = data or load_data(config.data)
    place = None if folder is None else Path(folder)
    described = model_for(config, data)
    settings = as_dict(replace(config, model=described))
    identity = identity_of(config, data, watch, callbacks)
    if place is not None and is_finished(place):
        check_identity(place, read_identity(place), identity)
        return open_run(config, place)
    engine = make_engine(config.train)
    model = on_device(starting_model(described, config.train, data.tokenizer), engine.device)
    name = None if place is None else place.name
    inside = [
        *([Watching(watch)] if watch else []),
        *callbacks,
        *([EarlyStopping(config.train.patience)] if config.train.patience else []),
        *_samples(config, data, place),
        *make_trackers(config.train.tracker, name, run_id(config, data, watch, callbacks), settings),
        *([Calling(on_step)] if on_step else []),
    ]
    training = Training(model, config.train, data, engine, place, inside)
    with own_random_state(training):
        if place is None:
            _train(training, progress)
        else:
            _train_into(training, place, settings, identity, progress)
    model.eval()
    if place is not None:
        if engine.is_main:
            _finish(training, place, settings)
        engine.wait()
    return FinishedRun(config, model, tuple(training.rows), place)


def _train(training: Training, progress: bool) -> None:
    with _started(training):
        for _ in train(training, progress):
            pass


def _train_into(training: Training, folder: Path, settings: dict[str, Any], identity: dict[str, str], progress: bool) -> None:
    """Train, and keep what a killed run needs to go on, the rows read so far, and copies of the model."""
    folder.mkdir(parents=True, exist_ok=True)
    checkpoints = Checkpoints(folder, training.config, identity)
    state = checkpoints.load()
    if state is not None:
        training.load_state_dict(state)
    training.engine.wait()  # all have read what one is about to replace
    if not training.is_main:
        return _train(training, progress=False)
    if state is None:
        _begin(folder, settings, identity)
    kept = kept_steps(training.config, training.steps)
    with _started(training), _metrics_file(folder, training.rows) as metrics:
        n_written = len(training.rows)
        for _ in train(training, progress):
            for row in training.rows[n_written:]:
                metrics.write(_line(row))
                metrics.flush()
            n_written = len(training.rows)
            if training.step in kept:
                keep_model(training.model, folder, training.step, settings)
            if checkpoints.is_due(training.step):
                checkpoints.save(training.state_dict())
    return None


@contextmanager
def _started(training: Training) -> Iterator[None]:
    started: list[Callback] = []
    try:
        for callback in training.callbacks:
            started.append(callback)
            callback.on_start(training)
        yield
    finally:
        for callback in started:
            callback.on_end(training)


def _begin(folder: Path, settings: dict[str, Any], identity: dict[str, str]) -> None:
    """Say what is being trained here, before it is."""
    shutil.rmtree(folder / KEPT, ignore_errors=True)  # of a run that never got as far as a checkpoint
    started = datetime.now(UTC).isoformat(timespec="seconds")
    write_whole(folder / RUN, json.dumps({"started": started, "identity": identity}, indent=1))
    write_whole(folder / CONFIG, json.dumps(settings, indent=1, sort_keys=True))


def _finish(training: Training, folder: Path, settings: dict[str, Any]) -> None:
    model, data = training.model, training.data
    write_whole(folder / METRICS, "".join(_line(row) for row in training.rows))  # two runs at once may have written there
    write_whole(folder / TABLE, table_of(training.rows))
    save_model(model, folder, settings=settings)
    provenance = provenance_of(model, data.train, training.seconds)
    described = replace(provenance, seed=training.config.seed, data=f"{data.description} {data.fingerprint}")
    finish(folder, asdict(described))
    Checkpoints(folder, training.config, {}).remove()


def _samples(config: RunConfig, data: TokenData, folder: Path | None) -> list[Callback]:
    wanted = config.train.sample_tokens and config.train.objective == "autoregressive" and folder is not None
    return [Samples(data, config.train.sample_tokens)] if wanted and (data.tokenizer or data.symbols) else []


def _line(row: Row) -> str:
    return json.dumps(row, allow_nan=False) + "\n"


@contextmanager
def _metrics_file(folder: Path, rows: Sequence[Row]) -> Iterator[TextIO]:
    """The file of metrics, holding `rows` and open for more: what a killed run wrote after its checkpoint is taken back."""
    write_whole(folder / METRICS, "".join(_line(row) for row in rows))
    with (folder / METRICS).open("a", encoding="utf-8") as file:
        yield file
