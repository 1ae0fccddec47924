"""What a convolution kernel looks like, tap by tap."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import ModelError, nearest
from interp.models.parts import CausalConv
from interp.provenance import provenance_of
from interp.result import Result
from interp.sites import check_no_name

STATISTICS = ("max", "min", "q75", "q90", "mean |w|")
TAP_NAMES = {-1: "previous", 0: "current", 1: "next"}


def kernel_stats(model: nn.Module, module: str | None = None) -> Result:
    """Per tap: maximum, minimum, quartile 75 %, decile 90 % and mean size of the kernel's weights.

    Axes (kernel, tap, statistic). `kernel` is "raw" (stored) or "effective" (used: masked taps are zero). A masked raw tap
    gets no gradient, so what it shows is initialisation shrunk by weight decay. Quantiles are of signed weights, by linear
    interpolation. Needs one convolution in the model, or `module` to name it; raises `ModelError` otherwise.
    """
    raw, effective, taps = _kernels(model, module)
    return Result(
        name="kernel_stats",
        values=torch.stack([_statistics(raw), _statistics(effective)]),
        axes=("kernel", "tap", "statistic"),
        labels={"kernel": ("raw", "effective"), "tap": taps, "statistic": STATISTICS},
        unit="weight",
        description="weights of the convolution by tap; a masked tap is zero in the effective kernel",
        provenance=provenance_of(model, torch.empty(0), 0.0),
    )


def kernel_maps(model: nn.Module, module: str | None = None) -> Result:
    """The effective kernel as matrices: axes (tap, out, in)."""
    _, effective, taps = _kernels(model, module)
    return Result(
        name="kernel_maps",
        values=rearrange(effective, "filter channel tap -> tap filter channel"),
        axes=("tap", "out", "in"),
        labels={"tap": taps},
        unit="weight",
        description="effective kernel, one matrix per tap",
        provenance=provenance_of(model, torch.empty(0), 0.0),
    )


def filter_norms(model: nn.Module, module: str | None = None) -> Result:
    """How strongly each filter (output channel) reads each tap: the norm of its weights, axes (tap, filter)."""
    maps = kernel_maps(model, module)
    return Result(
        name="filter_norms",
        values=maps.values.norm(dim=-1),
        axes=("tap", "filter"),
        labels=maps.labels,
        unit="norm",
        description="norm over input channels of each filter's effective weights",
        provenance=maps.provenance,
    )


def _statistics(kernel: Float[Tensor, "filter channel tap"]) -> Float[Tensor, "tap statistic"]:
    flat = rearrange(kernel, "filter channel tap -> tap (filter channel)").to(torch.float64)
    quantiles = torch.quantile(flat, torch.tensor([0.75, 0.9], dtype=flat.dtype, device=flat.device), dim=-1)
    return torch.stack([flat.amax(-1), flat.amin(-1), *quantiles, flat.abs().mean(-1)], dim=-1)


def _kernels(model: nn.Module, module: str | None) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    check_no_name(model)
    found = {name: part for name, part in model.named_modules() if isinstance(part, CausalConv)}
    inside = {f"{name}.conv" for name in found}
    found |= {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv1d) and n not in inside and m.groups == 1}
    names = ", ".join(found) or "none"
    if module is None and len(found) != 1:
        raise ModelError("kernel statistics", f"this model has {len(found)} convolutions ({names})", "Name one with module=…")
    if module is not None and module not in found:
        raise ModelError(
            f"kernel of {module!r}", f"the convolutions here are: {names}", f"{nearest(module, found)}Name one of them"
        )
    part = found[module] if module is not None else next(iter(found.values()))
    if isinstance(part, CausalConv):
        return part.raw_kernel.detach(), part.effective_kernel.detach(), tuple(map(_tap_name, part.offsets))
    offsets = [tap * part.dilation[0] - int(_left_padding(part)) for tap in range(part.kernel_size[0])]
    return part.weight.detach(), part.weight.detach(), tuple(map(_tap_name, offsets))


def _left_padding(conv: nn.Conv1d) -> int:
    if isinstance(conv.padding, str):
        return 0 if conv.padding == "valid" else conv.dilation[0] * (conv.kernel_size[0] - 1) // 2
    return conv.padding[0]


def _tap_name(offset: int) -> str:
    return TAP_NAMES.get(offset, f"{offset:+d}")
