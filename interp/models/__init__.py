"""Models: the hooked toys, opening any other, hook points for plain modules, and what can be read and written in each."""

from interp.models.audit import AuditResult, SiteReport, audit
from interp.models.hooked import HookedModule, Input, Output, hooked
from interp.models.opening import bundled_models, load_model
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
    "AuditResult",
    "ConvAttn",
    "ConvAttnConfig",
    "HookedModule",
    "Input",
    "ModelConfig",
    "Output",
    "SiteReport",
    "SmearedKeyAttn",
    "SmearedKeyAttnConfig",
    "Toy",
    "ToyConfig",
    "audit",
    "build_model",
    "bundled_models",
    "hooked",
    "load_model",
]
