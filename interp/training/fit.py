"""The training loop, and the run folder it fills."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TextIO

import torch
from jaxtyping import Int
from torch import Tensor
from tqdm.auto import tqdm

from interp.config import as_dict
from interp.data import TokenData, load_data
from interp.errors import ConfigError
from interp.files import write_whole
from interp.models import Toy, build_model
from interp.models.saved import save_model
from interp.probes.loss import NextTokenAccuracy, TokenLoss, cross_entropy
from interp.provenance import provenance_of
from interp.running import run
from interp.seeds import seed_for
from interp.training.config import RunConfig, TrainConfig
from interp.training.folder import METRICS, finish
from interp.training.steps import eval_steps, learning_rate, make_optimizer, total_steps

Watch = Mapping[str, Callable[[Toy], float]]
Row = dict[str, float | int]


@dataclass(frozen=True)
class FinishedRun:
    """A trained model, what was measured while it trained (one row per reading), and where both are kept."""

    config: RunConfig
    model: Toy
    metrics: tuple[Row, ...]
    folder: Path | None


def fit(
    config: RunConfig,
    folder: str | Path | None = None,
    *,
    watch: Watch | None = None,
    data: TokenData | None = None,
    on_step: Callable[[], None] | None = None,
    progress: bool = True,
) -> FinishedRun:
    """Train a model as `config` says, reading validation metrics and `watch` along the way.

    Readings are taken before the first step, after the last and at log-spaced steps between. Each row of `metrics` has step,
    tokens seen, learning rate, mean training loss since the reading before, validation loss (nats) and next-token accuracy, and
    one number per entry of `watch`, a function of the model. With `folder`, rows are appended to `metrics.jsonl` as they come and
    the model is saved at the end. `data` replaces `config.data` when it is loaded already. `on_step` is called after each step.
    On one device, equal configs give equal weights. Raises `ConfigError` when model and data do not fit together, and when
    the loss is no longer finite.
    """
    started = time.perf_counter()
    data = data or load_data(config.data)
    device = pick_device(config.train.device)
    model = build_model(model_for(config, data), seed=config.train.seed).to(device)
    model.tokenizer = data.tokenizer
    rows: list[Row] = []
    with _metrics_file(folder) as file:
        for row in _train(model, data, config.train, watch or {}, on_step=on_step, progress=progress):
            rows.append(row)
            if file is not None:
                file.write(_line(row))
                file.flush()
    model.eval()
    if folder is not None:
        write_whole(Path(folder) / METRICS, "".join(_line(row) for row in rows))  # two runs at once may have written there
        save_model(model, folder, settings=as_dict(config))
        provenance = provenance_of(model, data.train, time.perf_counter() - started)
        finish(Path(folder), asdict(replace(provenance, seed=config.train.seed, data=f"{data.description} {data.fingerprint}")))
    return FinishedRun(config, model, tuple(rows), Path(folder) if folder is not None else None)


def model_for(config: RunConfig, data: TokenData) -> Any:
    """The model's settings with the data's vocabulary filled in. Raises `ConfigError` when the two contradict."""
    model, length = config.model, data.train.shape[1]
    if model.d_vocab not in (None, data.d_vocab):
        raise ConfigError("model.d_vocab", f"it is {model.d_vocab} and the data has {data.d_vocab} tokens", "Leave it at null")
    if length > model.n_ctx:
        raise ConfigError(
            "model.n_ctx", f"it is {model.n_ctx} and sequences have {length} tokens", f"Set it to at least {length}"
        )
    return replace(model, d_vocab=data.d_vocab)


def pick_device(name: str) -> torch.device:
    """`auto` is the first GPU, or the CPU where there is none. Raises `ConfigError` for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise ConfigError(f"device {name!r}", f"it cannot be used ({reason})", "Use auto, cpu, or cuda:N with a GPU N") from None


def batch_order(n_rows: int, batch_size: int, seed: int) -> Iterator[Int[Tensor, " row"]]:
    """Row numbers of one batch after another, without end: each epoch is a fresh permutation that depends on seed and epoch."""
    epoch = 0
    while True:
        generator = torch.Generator().manual_seed(seed_for("batch order", seed, epoch))
        yield from torch.randperm(n_rows, generator=generator).split(batch_size)
        epoch += 1


def _train(
    model: Toy, data: TokenData, config: TrainConfig, watch: Watch, *, on_step: Callable[[], None] | None, progress: bool
) -> Iterator[Row]:
    device = next(model.parameters()).device
    steps = total_steps(config, len(data.train))
    optimizer = make_optimizer(model, config)
    readings = eval_steps(steps, config.n_evals)
    batches = batch_order(len(data.train), config.batch_size, config.seed)
    validation = data.validation[: config.eval_sequences]
    losses: list[Tensor] = []
    seen = 0
    model.train()
    yield _reading(model, validation, watch, config, step=0, tokens=0, lr=0.0, losses=losses)
    for step in tqdm(range(1, steps + 1), desc="training", unit="step", disable=not progress):
        batch = data.train[next(batches)].to(device)
        lr = learning_rate(config, step, steps)
        losses.append(_step(model, optimizer, batch, lr, config.grad_clip))
        seen += batch.numel()
        if on_step is not None:
            on_step()
        if step in readings:
            yield _reading(model, validation, watch, config, step=step, tokens=seen, lr=lr, losses=losses)
            losses = []


def _step(model: Toy, optimizer: torch.optim.Optimizer, batch: Tensor, lr: float, grad_clip: float) -> Tensor:
    for group in optimizer.param_groups:
        group["lr"] = lr
    loss = cross_entropy(model(batch), batch).mean()
    optimizer.zero_grad()
    loss.backward()
    if grad_clip:
        torch.nn.utils.clip_grad_norm_(model.parameters(), grad_clip)
    optimizer.step()
    return loss.detach()


def _reading(
    model: Toy, validation: Tensor, watch: Watch, config: TrainConfig, *, step: int, tokens: int, lr: float, losses: list[Tensor]
) -> Row:
    measured = run(model, validation, [TokenLoss(), NextTokenAccuracy()], batch_size=config.batch_size)
    row: Row = {"step": step, "tokens": tokens, "lr": lr}
    if losses:
        row["train_loss"] = float(torch.stack(losses).mean())
        if not torch.isfinite(torch.tensor(row["train_loss"])):
            raise ConfigError("training", f"the loss is not finite at step {step}", "Lower train.lr, or set train.grad_clip")
    row["validation_loss"] = measured["loss"].item()
    row["validation_accuracy"] = measured["accuracy"].item()
    return row | {name: float(function(model)) for name, function in watch.items()}


def _line(row: Row) -> str:
    return json.dumps(row, allow_nan=False) + "\n"


def _metrics_file(folder: str | Path | None) -> AbstractContextManager[TextIO | None]:
    if folder is None:
        return nullcontext()
    Path(folder).mkdir(parents=True, exist_ok=True)
    return (Path(folder) / METRICS).open("w", encoding="utf-8")
