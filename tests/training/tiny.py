"""Hugging Face folders of a few thousand random weights, each with a tokenizer of its own, and a text that they read."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

LINES = [f"def f{n}(x):\n    return x + {n}\n\nclass C{n % 7}:\n    a = f{n}({n % 5})\n" for n in range(120)]
END = "<|end|>"


def write_text(folder: Path) -> Path:
    """A file of code."""
    path = folder / "code.txt"
    path.write_text("\n".join(LINES))
    return path


def tokenizer_of(n_tokens: int = 290) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of a little more than the bytes; END begins and ends a text."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=n_tokens, special_tokens=[END], initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(LINES, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=END, eos_token=END, unk_token=END)


def published(folder: Path, kind: str = "gpt2", dropout: float = 0.0, n_ctx: int = 40) -> Path:
    """A folder as `save_pretrained` writes it: a GPT-2, or a Llama with grouped heads and more embeddings than tokens."""
    tokenizer = tokenizer_of()
    n_tokens, ends = len(tokenizer), {"bos_token_id": 0, "eos_token_id": 0}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model: Any
        if kind == "gpt2":
            drops = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), dropout)
            shape = GPT2Config(vocab_size=n_tokens, n_positions=n_ctx, n_embd=24, n_layer=2, n_head=3, **drops, **ends)
            model = GPT2LMHeadModel(shape)
        else:
            model = LlamaForCausalLM(
                LlamaConfig(
                    vocab_size=n_tokens + 5, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
                    num_key_value_heads=2, max_position_embeddings=n_ctx, **ends,
                )
            )  # fmt: skip
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
