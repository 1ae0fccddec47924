"""What is swept: random models of each shape, and prompts of which none, or the first part, is shared."""

import contextlib
import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import interp
from experiments.sweep_speed.config import DeepConfig, ShapeConfig
from experiments.sweep_speed.floor import Shape
from interp.models import AttnAttn, ConvAttn, SmearedKeyAttn
from interp.seeds import seed_for

HEADS, PLACES = "heads", "(layer, position)"
SWEEPS = (HEADS, PLACES)
SITE = {HEADS: "z", PLACES: "resid_pre"}
SHARED = {HEADS: 3 / 4, PLACES: 1 / 2}  # of the prompt, in the sweeps where some of it is
TOYS: dict[str, Any] = {"ConvAttn": ConvAttn, "AttnAttn": AttnAttn, "SmearedKeyAttn": SmearedKeyAttn}
ANSWER, WRONG = 1, 2
N_CTX = 1024


@dataclass(frozen=True, eq=False)
class Workload:
    """A model and its prompts [pair pos]; `plain` is what nnsight wraps: the Hugging Face module alone, with the same weights."""

    name: str
    model: Any
    plain: nn.Module
    shape: Shape
    timing: ShapeConfig
    clean: Tensor
    corrupted: Tensor  # differs from `clean` everywhere

    def shared(self, sweep: str) -> int:
        """How many tokens the prompts share in the sweep where some are."""
        return int(SHARED[sweep] * self.shape.n_tokens)

    def corrupted_sharing(self, count: int) -> Tensor:
        """`corrupted`, but for the first `count` tokens, which are the clean ones."""
        return torch.cat([self.clean[:, :count], self.corrupted[:, count:]], dim=1)

    def steps(self, sweep: str) -> tuple[int, ...]:
        """The heads or positions that are patched at each layer."""
        return tuple(range(self.shape.n_heads) if sweep == HEADS else range(0, self.shape.n_tokens, self.timing.every))

    def cells(self, sweep: str) -> list[tuple[int, int]]:
        """(layer, head) or (layer, position) of every cell, in the order of the results."""
        return [(layer, step) for layer in range(self.shape.n_layers) for step in self.steps(sweep)]


def transformer(name: str, config: DeepConfig, device: str, n_pairs: int = 1) -> Workload:
    """A random transformer of GPT-2's architecture, opened from a Hugging Face folder."""
    shape = Shape(config.n_layers, config.d_model, config.n_heads, config.d_vocab, config.n_tokens, mlp=16)
    model, plain = gpt2_models(replace(shape, n_tokens=max(N_CTX, config.n_tokens)), device)
    return Workload(name, model, plain, shape, config, *prompts(shape, n_pairs, device))


def toy(name: str, config: ShapeConfig, device: str, n_pairs: int = 1) -> Workload:
    """A toy as published but for positions, a residual stream and an output matrix, so that every head and layer has an effect."""
    torch.manual_seed(seed_for("sweep_speed", name))
    sizes: Any = {key: getattr(config, key) for key in ("d_model", "n_heads", "d_vocab")}
    model = TOYS[name](**sizes, n_ctx=config.n_tokens, positions=True, residual=True, output_projection=True).eval().to(device)
    shape = Shape(len(model.blocks), **sizes, n_tokens=config.n_tokens, mlp=0)
    return Workload(name, model, model, shape, config, *prompts(shape, n_pairs, device))


@cache
def gpt2_models(shape: Shape, device: str) -> tuple[Any, nn.Module]:
    """The bridge that `interp.load_model` opens, and the plain Hugging Face module from the same folder. Kept until cleared.

    Two modules, because the bridge puts its own parts into the one that it opens. `shape.n_tokens` is the longest prompt.
    """
    import transformers as hf

    config = hf.GPT2Config(
        n_layer=shape.n_layers, n_embd=shape.d_model, n_head=shape.n_heads, vocab_size=shape.d_vocab, n_positions=shape.n_tokens,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    made = hf.GPT2LMHeadModel(config).eval()
    generator = torch.Generator().manual_seed(seed_for("sweep_speed", "weights"))
    for name, parameter in made.named_parameters():
        enlarge(name, parameter, generator)
    with tempfile.TemporaryDirectory() as folder, quiet():
        made.save_pretrained(Path(folder))
        model: Any = interp.load_model(folder)
        plain = hf.GPT2LMHeadModel.from_pretrained(folder).eval()
        return model.to(device), plain.to(device)


def enlarge(name: str, parameter: nn.Parameter, generator: torch.Generator) -> None:
    """Weights of the size at which a layer keeps its input's, so that effects stand far above rounding."""
    noise = torch.randn(parameter.shape, generator=generator)
    with torch.no_grad():
        if parameter.ndim == 1:
            parameter.add_(noise, alpha=0.1)
        else:
            wide = parameter.shape[-1] if "wte" in name or "wpe" in name else parameter.shape[0]
            parameter.copy_(noise / wide**0.5)


def prompts(shape: Shape, n_pairs: int, device: str) -> tuple[Tensor, Tensor]:
    """Random prompts that differ at every position."""
    generator = torch.Generator().manual_seed(seed_for("sweep_speed", "prompts"))
    clean = torch.randint(shape.d_vocab, (n_pairs, shape.n_tokens), generator=generator)
    corrupted = (clean + torch.randint(1, shape.d_vocab, clean.shape, generator=generator)) % shape.d_vocab
    return clean.to(device), corrupted.to(device)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Progress bars and messages that no argument silences go nowhere."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield
