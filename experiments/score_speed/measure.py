"""Time in one process, rounds in turn; memory as what a call's tensors hold at their peak."""

import time
from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from transformer_lens import TransformerBridgeConfig
from transformer_lens.head_detector import detect_head
from transformer_lens.model_bridge import TransformerBridge

import interp
from experiments.score_speed.config import SpeedConfig
from interp.memory import allocated_at_peak
from interp.models.constructed import PERIOD, induction_circuit
from interp.result import Result

BARE, OURS, THEIRS = "bare forward pass", "interp.head_scores (7 scores)", "TransformerLens detect_head (3 scores)"
DETECTED = {"induction": "induction_head", "previous_token": "previous_token_head", "duplicate_token": "duplicate_token_head"}


def build(config: SpeedConfig) -> Any:
    """A random model of GPT-2's architecture."""
    torch.manual_seed(0)
    shape = TransformerBridgeConfig(
        n_layers=config.n_layers, d_model=config.d_model, n_heads=config.n_heads, d_head=config.d_model // config.n_heads,
        d_mlp=4 * config.d_model, d_vocab=config.d_vocab, n_ctx=config.n_ctx, act_fn="gelu_new", normalization_type="LN",
    )  # fmt: skip
    model = TransformerBridge.boot_native(shape).eval()
    # detect_head tokenizes whatever it is given; a model without tokenizer has ids only
    model.to_tokens = lambda ids, *_, **__: ids if ids.ndim == 2 else ids[None]
    return model


def tools(model: Any, tokens: Tensor) -> dict[str, Callable[[], Any]]:
    """The three things to compare, each on the same tokens."""

    def theirs() -> None:
        for name in DETECTED.values():
            for row in tokens:
                detect_head(model, row[None], name)

    return {BARE: lambda: model(tokens), OURS: lambda: interp.head_scores(model, tokens, period=PERIOD), THEIRS: theirs}


def times(config: SpeedConfig) -> Result:
    """CPU seconds of each tool in each round, one thread, axes (tool, round)."""
    torch.set_num_threads(1)
    model = build(config)
    tokens = interp.repeated_tokens(model, n_sequences=config.n_sequences, period=PERIOD, copies=config.copies)
    calls = tools(model, tokens)
    seconds = torch.zeros(len(calls), config.rounds, dtype=torch.float64)
    with torch.no_grad():
        for call in calls.values():
            call()
        for turn in range(config.rounds):
            for index, call in enumerate(calls.values()):
                began = time.process_time()
                call()
                seconds[index, turn] = time.process_time() - began
    return Result(name="time", values=seconds, axes=("tool", "round"), labels={"tool": tuple(calls)}, unit="CPU seconds")


def memory(config: SpeedConfig) -> Result:
    """Peak memory of the tensors that one call allocates, axes (tool,), in MiB."""
    torch.set_num_threads(1)
    model = build(config)
    tokens = interp.repeated_tokens(model, n_sequences=1, period=config.memory_period, copies=2)
    calls: dict[str, Callable[[], Any]] = {
        BARE: lambda: model(tokens),
        OURS: lambda: interp.head_scores(model, tokens, period=config.memory_period),
        THEIRS: lambda: detect_head(model, tokens, "induction_head"),
    }
    with torch.no_grad():
        peaks = [allocated_at_peak(call) for call in calls.values()]
    return Result(
        name="memory", values=torch.tensor(peaks, dtype=torch.float64), axes=("tool",), labels={"tool": tuple(calls)}, unit="MiB"
    )


def side_by_side(copies: int) -> pd.DataFrame:
    """The same heads of the circuit wired by hand, scored by both tools."""
    model = induction_circuit().model
    tokens = interp.repeated_tokens(model, n_sequences=1, period=PERIOD, copies=copies)
    ours = interp.head_scores(model, tokens, period=PERIOD)
    heads = {"induction": (1, 0), "previous_token": (0, 0), "duplicate_token": (1, 1)}
    rows = []
    for score, (layer, head) in heads.items():
        row = {"head": f"L{layer}H{head}, {score.replace('_', ' ')}", "copies": copies}
        row["interp"] = ours.at(score=score, layer=layer, head=head).item()
        for label, options in {"mul": {}, "mul, exclude_bos": {"exclude_bos": True}, "abs": {"error_measure": "abs"}}.items():
            row[f"detect_head {label}"] = detect_head(model, tokens, DETECTED[score], **options)[layer, head].item()
        rows.append(row)
    return pd.DataFrame(rows)
