"""The benchmark's settings."""

from interp.config import setting, settings


@settings
class SpeedConfig:
    """The model's shape and how much is run; the defaults are GPT-2-small's."""

    n_layers: int = setting(12, "layers")
    d_model: int = setting(768, "width")
    n_heads: int = setting(12, "heads per layer")
    d_vocab: int = setting(50257, "vocabulary")
    n_ctx: int = setting(1024, "longest sequence")
    n_sequences: int = setting(16, "sequences scored at once")
    copies: int = setting(4, "copies of 25 tokens in a sequence")
    rounds: int = setting(5, "timed rounds, the tools in turn")
    memory_period: int = setting(250, "half the length of the sequence on which memory is measured")


PRESETS = {"quick": SpeedConfig(), "full": SpeedConfig(n_sequences=32, rounds=15, memory_period=500)}
