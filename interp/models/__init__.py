"""Models: the hooked toys, and opening any other."""

from interp.models.opening import load_model
from interp.models.toys import (
    AttnAttn,
    AttnAttnConfig,
    ConvAttn,
    ConvAttnConfig,
    ModelConfig,
    SmearedKeyAttn,
    SmearedKeyAttnConfig,
    Toy,
    ToyConfig,
    build_model,
)

__all__ = [
    "AttnAttn",
    "AttnAttnConfig",
    "ConvAttn",
    "ConvAttnConfig",
    "ModelConfig",
    "SmearedKeyAttn",
    "SmearedKeyAttnConfig",
    "Toy",
    "ToyConfig",
    "build_model",
    "load_model",
]
