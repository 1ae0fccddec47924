"""Where the usual sites lie in a Hugging Face transformer that nobody described: found by watching one forward pass.

sites = find_sites(bert, tokens)          # {"pattern": Output("bert.encoder.layer.{layer}.attention.self", index=1), …}
model = interp.hooked(bert, sites)
"""

import re
from collections.abc import Mapping
from typing import Any, cast

import torch
from jaxtyping import Int
from torch import Tensor, nn

from interp.errors import ModelError, kind_of
from interp.models.calling import eval_mode
from interp.models.hooked import Input, Output

QUERIES, KEYS = ("query", "q_lin", "q_proj", "q"), ("key", "k_lin", "k_proj", "k")
JOINED = ("c_attn",)  # queries, keys and values side by side, each as wide as the stream


def find_sites(module: nn.Module, tokens: Int[Tensor, "batch pos"]) -> dict[str, str | Output]:
    """Places for `hooked`: resid_pre, resid_post, pattern, z, attn_out, mlp_post, mlp_out; q and k too, if their names are usual.

    `tokens` are run once, in eval mode. A layer is an entry of the list of modules that is as long as the configuration says;
    its attention is the outermost submodule that returns a tensor [batch head query key] with rows that sum to 1; what attention
    and MLP add is what the last linear map called in attention, and in the layer, returns. That holds for layers of attention
    and then an MLP, one after the other. Raises `ModelError` where there is no such thing.
    """
    called, returned = _watch(module, tokens)
    layers = _layers(module, called)
    parts = [name for name in called if name.startswith(f"{layers}.0.")]
    attention, index = _attention(module, [name for name in parts if name in returned], returned, tokens)
    inside = [name for name in parts if name.startswith(f"{attention}.")]
    written, added = (_last_linear(module, names, of) for names, of in ((inside, attention), (parts, f"{layers}.0")))
    if written == added:
        raise _not_found(module, f"nothing linear follows {attention}, so there is no MLP")
    heads = returned[attention][index].shape[1]

    def at(name: str) -> str:
        return name.replace(f"{layers}.0", f"{layers}.{{layer}}", 1)

    first = 0 if isinstance(returned.get(f"{layers}.0"), tuple) else None
    return {
        "resid_pre": Input(f"{layers}.{{layer}}"),
        "resid_post": Output(f"{layers}.{{layer}}", index=first),
        "pattern": Output(at(attention), index=index),
        "z": Input(at(written), heads=heads),
        "attn_out": at(written),
        "mlp_post": Input(at(added)),
        "mlp_out": at(added),
        **_queries_and_keys(module, {name: at(name) for name in inside}, heads),
    }


def _watch(module: nn.Module, tokens: Tensor) -> tuple[list[str], dict[str, Any]]:
    """The submodules in the order in which they returned, and what those returned that hold tuples or tensors."""
    called: list[str] = []
    returned: dict[str, Any] = {}
    handles = []
    for name, part in module.named_modules():
        if name:

            def note(_: nn.Module, inputs: tuple, output: Any, name: str = name) -> None:
                called.append(name)
                returned[name] = output

            handles.append(part.register_forward_hook(note))
    try:
        with torch.no_grad(), eval_mode(module):
            module(tokens)
    except (RuntimeError, IndexError, ValueError) as error:
        said = " ".join(str(error).split())[:160]
        raise ModelError(
            f"running {kind_of(module)} on {tokens.shape[1]} tokens", f"it fails ({said})", "Give tokens that it reads"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return called, returned


def _layers(module: nn.Module, called: list[str]) -> str:
    """The list of modules that are the layers."""
    config = getattr(module, "config", None)
    wanted = getattr(config, "num_hidden_layers", None)
    lists = [name for name, part in module.named_modules() if isinstance(part, nn.ModuleList) and len(part) == wanted]
    found = [name for name in lists if all(f"{name}.{layer}" in called for layer in range(wanted or 0))]
    if not wanted:
        what = "it has no config" if config is None else f"its {type(config).__name__} has no num_hidden_layers"
        raise _not_found(module, f"{what}, so how many layers to look for is not known")
    if len(found) != 1:
        which = f"{len(found)} lists of modules ({', '.join(found)}) have" if found else "no list of modules has"
        raise _not_found(module, f"{which} the {wanted} entries, each called, that its configuration says are its layers")
    return found[0]


def _attention(module: nn.Module, parts: list[str], returned: Mapping[str, Any], tokens: Tensor) -> tuple[str, int]:
    """The outermost part of a layer that returns a pattern, and where in what it returns."""
    for name in sorted(parts, key=lambda name: name.count(".")):
        output = returned[name]
        for index, entry in enumerate(output if isinstance(output, tuple) else ()):
            if isinstance(entry, Tensor) and _is_pattern(entry, tokens):
                return name, index
    raise _not_found(
        module,
        'no part of its layers returns attention weights (load it with attn_implementation="eager", or name them yourself)',
    )


def _is_pattern(entry: Tensor, tokens: Tensor) -> bool:
    batch, length = tokens.shape
    if entry.ndim != 4 or (entry.shape[0], *entry.shape[2:]) != (batch, length, length):
        return False
    sums = entry.float().sum(-1)
    return torch.allclose(sums, torch.ones_like(sums), atol=1e-2)


def _last_linear(module: nn.Module, names: list[str], of: str) -> str:
    """The last map called that is linear (in GPT-2's words a Conv1D)."""
    parts = dict(module.named_modules())
    found = [name for name in names if isinstance(parts[name], nn.Linear) or type(parts[name]).__name__ == "Conv1D"]
    if not found:
        raise _not_found(module, f"nothing linear is called in {of}")
    return found[-1]


def _queries_and_keys(module: nn.Module, inside: Mapping[str, str], heads: int) -> dict[str, Output]:
    found: dict[str, Output] = {}
    for name, place in inside.items():
        leaf = re.split(r"\.", name)[-1]
        if leaf in QUERIES or leaf in KEYS:
            found["q" if leaf in QUERIES else "k"] = Output(place, heads=heads)
        if leaf in JOINED:
            width = len(cast(Tensor, module.get_submodule(name).weight))  # a Conv1D keeps its weight the other way round
            for number, kind in enumerate(("q", "k")):
                found[kind] = Output(place, heads=heads, columns=(number * width, (number + 1) * width))
    return found if len(found) == 2 else {}


def _not_found(module: nn.Module, truth: str) -> ModelError:
    return ModelError(
        f"finding the sites of {kind_of(module)}", truth, "Name them: interp.hooked(module, {site: submodule path, …})"
    )
