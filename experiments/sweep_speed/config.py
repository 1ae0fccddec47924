"""The benchmark's settings and its two presets."""

from dataclasses import replace

from pydantic import model_validator

from interp.config import setting, settings


@settings
class ShapeConfig:
    """A model's width, its prompts, and how much is timed on it."""

    d_model: int = setting(128, "width")
    n_heads: int = setting(4, "heads per layer")
    d_vocab: int = setting(1000, "vocabulary")
    n_tokens: int = setting(32, "length of the prompts")
    every: int = setting(1, "the (layer, position) sweep patches every n-th position; 1: all of them")
    rounds: int = setting(5, "timed rounds on one thread, the tools in turn")
    rounds_all_threads: int = setting(5, "timed rounds on all threads; 0: none")
    sampled: int | None = setting(None, "cells that a peer's loop is timed on and scaled from; null: all of them")
    checked: int | None = setting(None, "layers, heads and positions that the slow loop is run on; null: all of them")

    @model_validator(mode="after")
    def _makes_sense(self) -> "ShapeConfig":
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model must be a multiple of n_heads, {self.n_heads}")
        if self.n_tokens < 4 or not 1 <= self.every <= self.n_tokens // 2:
            raise ValueError("n_tokens must be at least 4, and every from 1 to half of it")
        if self.rounds < 1 or min(self.sampled or 1, self.checked or 1) < 1:
            raise ValueError("rounds, sampled and checked must be at least 1")
        return self


@settings
class DeepConfig(ShapeConfig):
    """A transformer of GPT-2's architecture."""

    n_layers: int = setting(4, "layers")


@settings
class GrowthConfig:
    """A mid-size transformer whose layers, positions and pairs are varied, one at a time, from the middle of each list."""

    d_model: int = setting(256, "width")
    n_heads: int = setting(8, "heads per layer")
    d_vocab: int = setting(1000, "vocabulary")
    layers: tuple[int, ...] = setting((2, 4, 8), "depths")
    tokens: tuple[int, ...] = setting((16, 32, 64), "lengths")
    pairs: tuple[int, ...] = setting((1, 2, 4), "pairs of prompts; the other lists are varied with one pair")
    sampled: int | None = setting(8, "cells that TransformerLens' loop is timed on; null: all of them")
    rounds: int = setting(3, "timed rounds on one thread")


GPT2 = DeepConfig(
    n_layers=12, d_model=768, n_heads=12, d_vocab=50257, n_tokens=32, rounds=3, rounds_all_threads=2, sampled=12, checked=3
)


@settings
class SweepSpeedConfig:
    """Everything the benchmark can be told."""

    gpt2: DeepConfig = setting(GPT2, "GPT-2-small's shape")
    gpt2_long: DeepConfig = setting(
        replace(GPT2, n_tokens=128, every=8, rounds=1, rounds_all_threads=0, sampled=4, checked=2), "the same on longer prompts"
    )
    small: DeepConfig = setting(DeepConfig(), "a small transformer")
    toys: ShapeConfig = setting(ShapeConfig(n_heads=8, d_vocab=256), "ConvAttn, AttnAttn and SmearedKeyAttn")
    growth: GrowthConfig = setting(GrowthConfig(), "what growth is measured on")
    product: int = setting(2048, "side of the square matrices whose product gives the machine's rate")
    device: str = setting("cpu", 'where everything runs: "cpu" or, with synchronised clocks, "cuda"')

    @model_validator(mode="after")
    def _device_is_known(self) -> "SweepSpeedConfig":
        if self.device.split(":")[0] not in ("cpu", "cuda"):
            raise ValueError(f'device must be "cpu" or "cuda" (or "cuda:1"), not {self.device!r}')
        return self


QUICK = SweepSpeedConfig()
FULL = SweepSpeedConfig(
    gpt2=replace(GPT2, rounds=7, rounds_all_threads=5, sampled=None, checked=4),
    gpt2_long=replace(GPT2, n_tokens=128, rounds=3, rounds_all_threads=2, sampled=24, checked=3),
    small=DeepConfig(rounds=21, rounds_all_threads=21),
    toys=ShapeConfig(n_heads=8, d_vocab=256, rounds=21, rounds_all_threads=21),
    growth=GrowthConfig(sampled=None, rounds=5),
)
PRESETS = {"quick": QUICK, "full": FULL}
