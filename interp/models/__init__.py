"""Models: the hooked toys, and opening any other."""

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
]
