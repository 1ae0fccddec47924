"""Small random models of every kind that the library must work on. Sizes are pairwise different; all are in eval mode.

`zoo(name)` builds one (once per process and name; tests must leave it as it was). `KINDS_OF_MODEL` are their names, to
parametrise tests with; those that this environment cannot build are skipped with the reason.
"""

import tempfile
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

from interp import Intervention, Probe, Result, Site, run
from interp.models import AttnAttn, AuditResult, ConvAttn, SmearedKeyAttn, Transformer, audit, load_model
from interp.sites import LOGITS

D_VOCAB, D_MODEL, N_LAYERS, N_HEADS, D_HEAD, D_MLP, N_CTX = 53, 24, 2, 4, 6, 40, 47
BATCH, POS = 3, 11
TL = tuple(int(part) for part in version("transformer-lens").split(".")[:2])


def tokens(batch: int = BATCH, pos: int = POS, seed: int = 0) -> Tensor:
    return torch.randint(1, D_VOCAB, (batch, pos), generator=torch.Generator().manual_seed(seed))


def hf_model(kind: str) -> Any:
    """A tiny random Hugging Face model, eager attention, with biases and norms that are not the identity."""
    import transformers as hf

    shape = {"vocab_size": D_VOCAB, "attn_implementation": "eager", "bos_token_id": 0, "eos_token_id": 0}
    wide = {
        "hidden_size": D_MODEL,
        "num_hidden_layers": N_LAYERS,
        "num_attention_heads": N_HEADS,
        "max_position_embeddings": N_CTX,
    }
    torch.manual_seed(1)
    if kind == "gpt2":
        config = hf.GPT2Config(n_embd=D_MODEL, n_layer=N_LAYERS, n_head=N_HEADS, n_positions=N_CTX, n_inner=D_MLP, **shape)
        model = hf.GPT2LMHeadModel(config)
    elif kind == "llama":
        model = hf.LlamaForCausalLM(hf.LlamaConfig(num_key_value_heads=2, intermediate_size=D_MLP, **wide, **shape))
    elif kind == "neox":
        model = hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(intermediate_size=D_MLP, use_parallel_residual=True, **wide, **shape))
    else:
        model = hf.BertForMaskedLM(hf.BertConfig(intermediate_size=D_MLP, **wide, **shape))
    return randomised(model)


def randomised(model: nn.Module) -> Any:
    """Every parameter large enough that edits show, in eval mode."""
    generator = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=0.15)
    return model.eval()


def save_hf(kind: str, folder: str | Path) -> Path:
    hf_model(kind).save_pretrained(folder)
    return Path(folder)


def hf_bridge(kind: str) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        return load_model(save_hf(kind, folder))


def compatible_bridge() -> Any:
    """A GPT-2 bridge in compatibility mode: folded weights, and hook points that go by two names."""
    bridge = hf_bridge("gpt2")
    bridge.enable_compatibility_mode()
    return bridge.eval()


def native_bridge() -> Any:
    from transformer_lens import TransformerBridgeConfig
    from transformer_lens.model_bridge import TransformerBridge

    config = TransformerBridgeConfig(
        n_layers=N_LAYERS,
        d_model=D_MODEL,
        n_heads=N_HEADS,
        d_head=D_HEAD,
        d_mlp=D_MLP,
        d_vocab=D_VOCAB,
        n_ctx=N_CTX,
        act_fn="gelu",
        normalization_type="LN",
        seed=3,
    )
    torch.manual_seed(3)
    return randomised(TransformerBridge.boot_native(config))


def hooked_transformer() -> Any:
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    config = HookedTransformerConfig(
        n_layers=N_LAYERS,
        d_model=D_MODEL,
        n_heads=N_HEADS,
        d_head=D_HEAD + 1,
        d_mlp=D_MLP,
        d_vocab=D_VOCAB,
        n_ctx=N_CTX,
        act_fn="gelu",
        normalization_type="LN",
        device="cpu",
        seed=3,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it is why there is a second lane
        return randomised(HookedTransformer(config))


class OwnAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        width = N_HEADS * (D_HEAD + 1)
        self.q, self.k, self.v = (nn.Linear(D_MODEL, width) for _ in range(3))
        self.W_O = nn.Parameter(torch.randn(N_HEADS, D_HEAD + 1, D_MODEL) / 4)
        self.hook_q, self.hook_k, self.hook_v, self.hook_z = (HookPoint() for _ in range(4))
        self.hook_attn_scores, self.hook_pattern = HookPoint(), HookPoint()

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            hook(layer(x).unflatten(-1, (N_HEADS, -1)))
            for layer, hook in ((self.q, self.hook_q), (self.k, self.hook_k), (self.v, self.hook_v))
        )
        scores = torch.einsum("bqhe,bkhe->bhqk", q, k)
        future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        pattern = self.hook_pattern(self.hook_attn_scores(scores.masked_fill(future, -1e4)).softmax(-1))
        return torch.einsum("bqhe,hed->bqd", self.hook_z(torch.einsum("bhqk,bkhe->bqhe", pattern, v)), self.W_O)


class OwnBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = OwnAttention()
        self.mlp = nn.Sequential(nn.Linear(D_MODEL, D_MLP), nn.GELU(), nn.Linear(D_MLP, D_MODEL))
        self.hook_resid_pre, self.hook_resid_mid, self.hook_resid_post = HookPoint(), HookPoint(), HookPoint()
        self.hook_attn_out, self.hook_mlp_out = HookPoint(), HookPoint()

    def forward(self, x: Tensor) -> Tensor:
        x = self.hook_resid_pre(x)
        mid = self.hook_resid_mid(x + self.hook_attn_out(self.attn(x)))
        return self.hook_resid_post(mid + self.hook_mlp_out(self.mlp(mid)))


class OwnModel(HookedRootModule):
    """What a user might write on TransformerLens' HookedRootModule, with one hook point of a name of its own that never fires."""

    def __init__(self) -> None:
        super().__init__()
        self.cfg = SimpleNamespace(n_layers=N_LAYERS, n_heads=N_HEADS, d_vocab=D_VOCAB, n_ctx=N_CTX)
        self.embed, self.hook_embed = nn.Embedding(D_VOCAB, D_MODEL), HookPoint()
        self.blocks = nn.ModuleList(OwnBlock() for _ in range(N_LAYERS))
        self.unembed = nn.Linear(D_MODEL, D_VOCAB)
        self.hook_silent = HookPoint()
        self.setup()

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.hook_embed(self.embed(tokens))
        for block in self.blocks:
            x = block(x)
        return self.unembed(x)


def own_model() -> OwnModel:
    torch.manual_seed(4)
    return OwnModel().eval()


def toy(kind: type, **options: Any) -> Any:
    torch.manual_seed(5)
    return kind(d_vocab=D_VOCAB, d_model=D_MODEL, n_heads=N_HEADS, n_ctx=N_CTX, **options).eval()


BUILDERS: dict[str, Callable[[], Any]] = {
    "native": native_bridge,
    "gpt2": lambda: hf_bridge("gpt2"),
    "gpt2-compatible": compatible_bridge,
    "llama": lambda: hf_bridge("llama"),
    "neox": lambda: hf_bridge("neox"),
    "hooked-transformer": hooked_transformer,
    "conv-attn": lambda: toy(ConvAttn, residual=True, positions=True),
    "attn-attn": lambda: toy(AttnAttn),
    "smeared-key": lambda: toy(SmearedKeyAttn, output_projection=True, d_head=D_HEAD + 1),
    "transformer": lambda: randomised(toy(Transformer, d_head=D_HEAD + 1, d_mlp=D_MLP)),
    "transformer-post": lambda: randomised(
        toy(Transformer, positions="rotary", rotary_share=2 / 3, norm="post", norm_kind="rms", gated=True)
    ),
    "own": own_model,
}
MISSING = {"hooked-transformer": "TransformerLens 4 has no HookedTransformer: run `make test-tl3`"} if TL >= (4, 0) else {}
KINDS_OF_MODEL = [
    pytest.param(name, marks=pytest.mark.skipif(name in MISSING, reason=MISSING.get(name, ""))) for name in BUILDERS
]
BRIDGES = ("native", "gpt2", "gpt2-compatible", "llama", "neox")


@cache
def zoo(name: str) -> Any:
    return BUILDERS[name]()


@cache
def audited(name: str) -> AuditResult:
    return audit(zoo(name))


class Reads(Probe):
    """Hands back what is at the sites, whole."""

    name = "reads"

    def __init__(self, *sites: Site):
        self.asked, self.seen = sites, []

    def sites(self, model: Any) -> Sequence[Site]:
        return self.asked

    def read(self, activation: Tensor, site: Site, prepared: Any) -> Tensor:
        self.seen.append(site)
        return activation

    def result(self, readings: Any) -> Result:
        self.found = dict(readings)
        return Result(name=self.name, values=torch.zeros(()), axes=())


class Edits(Intervention):
    """Replaces activations by what a function makes of them."""

    def __init__(self, function: Callable[[Tensor], Any], *sites: Site):
        self.function, self.asked = function, sites

    def sites(self, model: Any) -> Sequence[Site]:
        return self.asked

    def edit(self, activation: Tensor, site: Site, tokens: Tensor) -> Any:
        return self.function(activation)


OUTPUT = Site(LOGITS)


def read(model: Any, *sites: Site, edits: Sequence[Intervention] = (), ids: Tensor | None = None, **options: Any) -> dict:
    """The activations at `sites` in one `run`."""
    probe = Reads(*sites)
    run(model, tokens() if ids is None else ids, [probe], edits, **options)
    return probe.found


def logits(model: Any, *edits: Intervention, ids: Tensor | None = None, **options: Any) -> Tensor:
    return read(model, OUTPUT, edits=edits, ids=ids, **options)[OUTPUT]
