"""Where training runs: one process on one device, or several processes (torchrun and Accelerate) that train one model."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from interp.errors import ConfigError
from interp.seeds import seed_for
from interp.training.config import TrainConfig
from interp.training.objectives import Batch

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass
class Engine:
    """A device, and with several processes this one's rank among them and the Accelerate object that joins them."""

    device: torch.device
    rank: int = 0
    n_processes: int = 1
    accelerator: Any = None

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes files."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """What is called to train: the model, or with several processes one that shares gradients between them."""
        return self.accelerator.prepare_model(model) if self.accelerator else model

    def share(self, part: Batch) -> tuple[Batch, float]:
        """This process's rows of a part of the batch, and the weight of their summed loss.

        Gradients are averaged over processes, so a sum over all of them needs weight `n_processes`. A process that is left
        without a row computes the first one with weight 0: all must take part.
        """
        if self.n_processes == 1:
            return part, 1.0
        own = part.rows(slice(self.rank, None, self.n_processes))
        return (own, float(self.n_processes)) if len(own.tokens) else (part.rows(slice(1)), 0.0)

    def sharing(self, wrapped: nn.Module, last: bool) -> AbstractContextManager:
        """Gradients are shared in the last part of a batch only."""
        return nullcontext() if last or not self.accelerator else self.accelerator.no_sync(wrapped)

    @contextmanager
    def own_randomness(self, seed: int, *numbers: int) -> Iterator[None]:
        """With several processes dropout differs between them inside, and their common random state is unchanged after."""
        if self.n_processes == 1:
            yield
            return
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed_for("process", seed, self.rank, *numbers))
            yield

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over processes."""
        return self.accelerator.reduce(tensor, "sum") if self.accelerator else tensor

    def wait(self) -> None:
        """Until all processes are here."""
        if self.accelerator:
            self.accelerator.wait_for_everyone()


def make_engine(config: TrainConfig) -> Engine:
    """The engine that the settings and torchrun's environment ask for. Raises `ConfigError` when they contradict."""
    n_processes = int(os.environ.get("WORLD_SIZE", "1"))
    names = [name.strip() for name in config.device.split(",")]
    if n_processes == 1:
        if len(names) > 1:
            raise ConfigError(
                f"device {config.device!r}",
                f"it names {len(names)} devices and there is one process",
                f"Start the same command with torchrun --nproc-per-node {len(names)}, or name one device",
            )
        return _checked(Engine(pick_device(config.device)), config)
    kind = _kind_for_all(names, config.device, int(os.environ.get("LOCAL_WORLD_SIZE", n_processes)))
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs

    # A layer may be frozen, or left out for a batch: the processes must not wait for its gradient.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    accelerator = Accelerator(cpu=kind == "cpu", kwargs_handlers=[unused])
    if accelerator.num_processes != n_processes:
        raise ConfigError(
            f"training in {n_processes} processes",
            f"only {accelerator.num_processes} found each other",
            "Start them with torchrun (accelerate launch --cpu starts one process only)",
        )
    return _checked(Engine(accelerator.device, accelerator.process_index, n_processes, accelerator), config)


def pick_device(name: str) -> torch.device:
    """`auto` is the first GPU, or the CPU where there is none. Raises `ConfigError` for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise ConfigError(f"device {name!r}", f"it cannot be used ({reason})", "Use auto, cpu, or cuda:N with a GPU N") from None


def autocast(engine: Engine, config: TrainConfig) -> AbstractContextManager:
    """Inside, matrix products have the type that the settings ask for."""
    if config.precision == "float32":
        return nullcontext()
    return torch.autocast(engine.device.type, dtype=DTYPES[config.precision])


def _kind_for_all(names: list[str], device: str, n_here: int) -> str:
    if names == ["auto"]:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if set(names) == {"cpu"} and len(names) in (1, n_here):
        return "cpu"
    if names == [f"cuda:{index}" for index in range(n_here)]:
        for name in names:
            pick_device(name)
        return "cuda"
    wanted = ",".join(f"cuda:{index}" for index in range(n_here))
    raise ConfigError(
        f"device {device!r}",
        f"torchrun started {n_here} processes here, and each takes the GPU of its number",
        f"Use auto, cpu or {wanted}; CUDA_VISIBLE_DEVICES chooses which GPUs have these numbers",
    )


def _checked(engine: Engine, config: TrainConfig) -> Engine:
    if config.precision == "float16" and engine.device.type != "cuda":
        raise ConfigError(
            "train.precision=float16",
            f"small gradients need a scaler, which works on a GPU only, and the device is {engine.device.type}",
            "Use bfloat16, or a GPU",
        )
    return engine
