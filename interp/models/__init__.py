"""Models: our own architectures, opening any other, hook points for plain modules, and what can be read and written in each."""

from interp.models.architectures import ARCHITECTURES, Architecture, ArchitectureConfig, ModelConfig, architecture, build_model
from interp.models.audit import AuditResult, SiteReport, audit
from interp.models.encoder import Encoder, EncoderBlock, EncoderConfig, PadAware, PaddedAttention
from interp.models.found import find_sites
from interp.models.hooked import HookedModule, Input, Output, hooked
from interp.models.opening import bundled_models, load_model
from interp.models.parts import Attention
from interp.models.pretrained import PretrainedConfig
from interp.models.recurrent import Recurrent, RecurrentConfig
from interp.models.residual import MLP, Norm, ResidualBlock, ResidualConfig, ResidualModel
from interp.models.state_space import StateSpace, StateSpaceConfig
from interp.models.toys import (
    AttnAttn,
    AttnAttnConfig,
    ConvAttn,
    ConvAttnConfig,
    SmearedKeyAttn,
    SmearedKeyAttnConfig,
    Toy,
    ToyConfig,
)
from interp.models.transformer import Transformer, TransformerConfig

__all__ = [
    "ARCHITECTURES",
    "MLP",
    "Architecture",
    "ArchitectureConfig",
    "Attention",
    "AttnAttn",
    "AttnAttnConfig",
    "AuditResult",
    "ConvAttn",
    "ConvAttnConfig",
    "Encoder",
    "EncoderBlock",
    "EncoderConfig",
    "HookedModule",
    "Input",
    "ModelConfig",
    "Norm",
    "Output",
    "PadAware",
    "PaddedAttention",
    "PretrainedConfig",
    "Recurrent",
    "RecurrentConfig",
    "ResidualBlock",
    "ResidualConfig",
    "ResidualModel",
    "SiteReport",
    "SmearedKeyAttn",
    "SmearedKeyAttnConfig",
    "StateSpace",
    "StateSpaceConfig",
    "Toy",
    "ToyConfig",
    "Transformer",
    "TransformerConfig",
    "architecture",
    "audit",
    "build_model",
    "bundled_models",
    "find_sites",
    "hooked",
    "load_model",
]
