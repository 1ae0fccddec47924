"""Training: a short loop for our own encoder, and Hugging Face's Trainer for the practical way."""

import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from experiments.debug_encoder.config import DebugConfig, Training
from experiments.debug_encoder.planted import build
from interp.data.sentiment import Labelled, SentimentData, encode_padded
from interp.errors import DataError, ModelError
from interp.models import Input, Output, hooked
from interp.models.encoder import EncoderConfig, PadAware
from interp.seeds import seed_for


@dataclass(frozen=True)
class Encoded:
    """Tokens padded on the right, and their classes."""

    tokens: Tensor
    labels: Tensor


def encoded(tokenizer: Any, texts: Labelled, length: int) -> Encoded:
    """One split as tokens."""
    return Encoded(encode_padded(tokenizer, texts.texts, length), texts.labels)


def sized(study: DebugConfig, data: SentimentData, d_vocab: int) -> EncoderConfig:
    """The encoder's settings, with the sizes that follow from the data."""
    return replace(study.encoder, d_vocab=d_vocab, n_ctx=max(study.encoder.n_ctx, study.length), n_classes=len(data.classes))


def accuracy(model: Any, part: Encoded) -> float:
    """Share of texts whose class has the largest logit; the model is left in eval mode."""
    model.eval()
    with torch.no_grad():
        hits = [model(part.tokens[rows]).argmax(-1) == part.labels[rows] for rows in torch.arange(len(part.labels)).split(64)]
    return float(torch.cat(hits).double().mean())


@dataclass(frozen=True)
class Job:
    """What one encoder is trained from."""

    name: str  # of the bug, or "correct"
    seed: int
    config: EncoderConfig
    how: Training
    train: Encoded
    validation: Encoded


def train_all(jobs: Sequence[Job], workers: int | None) -> list[tuple[Any, list[float]]]:
    """Each job's model, trained, and its validation accuracy before training and after each epoch; several at once."""
    at_once = min(len(jobs), workers or os.cpu_count() or 1)
    shown: Any = partial(tqdm, total=len(jobs), desc="training encoders", leave=False)
    if at_once == 1:
        done = list(shown(map(train_encoder, jobs)))
    else:
        with ProcessPoolExecutor(at_once, mp_context=get_context("spawn")) as pool:
            done = list(shown(pool.map(train_encoder, jobs)))
    found = []
    for job, (weights, reached) in zip(jobs, done, strict=True):
        model = build(job.name, job.config, job.seed)
        model.load_state_dict({name: torch.from_numpy(weight) for name, weight in weights.items()})
        found.append((model, reached))
    return found


def train_encoder(job: Job) -> tuple[dict[str, Any], list[float]]:
    """The trained weights of one job, and its accuracies, on one thread."""
    torch.set_num_threads(1)
    train, validation, how, seed = job.train, job.validation, job.how, job.seed
    model = build(job.name, job.config, seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=how.lr, weight_decay=0.01)
    order = torch.Generator().manual_seed(seed_for("order of the texts", seed))
    reached = [accuracy(model, validation)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("dropout", seed))
        for _ in range(how.epochs):
            model.train()
            for rows in torch.randperm(len(train.labels), generator=order).split(how.batch_size):
                loss = F.cross_entropy(model(train.tokens[rows]), train.labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            reached.append(accuracy(model, validation))
    return {name: weight.numpy() for name, weight in model.state_dict().items()}, reached


def hugging_face_model(study: DebugConfig, tokenizer: Any, data: SentimentData) -> tuple[Any, Any, str]:
    """The classifier, its tokenizer, and what it is in words. Raises `ModelError` when a named one cannot be had."""
    import transformers as hf

    name = study.hugging_face.model
    if name is None:
        shape = hf.DistilBertConfig(
            vocab_size=len(tokenizer), dim=48, n_layers=2, n_heads=4, hidden_dim=96, max_position_embeddings=max(32, study.length),
            pad_token_id=0, num_labels=len(data.classes), attn_implementation="eager",
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(study.seeds[0])
            model = hf.AutoModelForSequenceClassification.from_config(shape)
        return (
            model,
            tokenizer,
            "a DistilBERT of 2 layers and width 48 with random weights, made on the spot: nothing pretrained is at hand without a network",
        )
    try:
        model = hf.AutoModelForSequenceClassification.from_pretrained(
            name, num_labels=len(data.classes), attn_implementation="eager"
        )
        return model, hf.AutoTokenizer.from_pretrained(name), f"{name}, pretrained"
    except (OSError, ValueError) as error:
        told = " ".join(str(error).split())[:160]
        raise ModelError(
            f"the classifier {name!r}",
            f"it cannot be opened ({told})",
            "Give a folder written by save_pretrained, or leave it out",
        ) from None


def fine_tune(model: Any, tokenizer: Any, data: SentimentData, study: DebugConfig) -> tuple[list[float], float]:
    """Hugging Face's Trainer: validation accuracy after each epoch, and accuracy on the held-out tenth."""
    import transformers as hf
    from datasets import Dataset

    how, length, seed = study.hugging_face.train, study.length, study.seeds[0]

    def rows(part: Labelled) -> Dataset:
        found = tokenizer(list(part.texts), truncation=True, max_length=length)
        return Dataset.from_dict({**found, "labels": part.labels.tolist()})

    def scored(prediction: Any) -> dict[str, float]:
        return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}

    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        arguments = hf.TrainingArguments(
            output_dir=folder, num_train_epochs=how.epochs, per_device_train_batch_size=how.batch_size, learning_rate=how.lr,
            per_device_eval_batch_size=128, eval_strategy="epoch", save_strategy="no", logging_strategy="no", report_to=[],
            disable_tqdm=True, seed=seed, use_cpu=not torch.cuda.is_available(), dataloader_pin_memory=False,
        )  # fmt: skip
        trainer = hf.Trainer(
            model=model, args=arguments, train_dataset=rows(data.train), eval_dataset=rows(data.validation),
            data_collator=hf.DataCollatorWithPadding(tokenizer), compute_metrics=scored,
        )  # fmt: skip
        trainer.remove_callback(hf.PrinterCallback)
        trainer.train()
        reached = [entry["eval_accuracy"] for entry in trainer.state.log_history if "eval_accuracy" in entry]
        held_out = trainer.evaluate(rows(data.test))["eval_accuracy"]
    model.to("cpu").eval()
    return reached, float(held_out)


LAYER_PATHS = {  # model type -> path of a layer, and of attention, its projections, MLP and activation inside it
    "distilbert": (
        "distilbert.transformer.layer.{layer}",
        "attention",
        "attention.q_lin",
        "attention.k_lin",
        "ffn",
        "ffn.activation",
    ),
}


def with_sites(model: Any, pad_id: int) -> Any:
    """Hook points for a Hugging Face classifier, padding hidden. Of other types than DistilBERT see `interp.hooked`."""
    kind = model.config.model_type
    if kind not in LAYER_PATHS:
        known = ", ".join(LAYER_PATHS)
        raise DataError(
            f"hook points for a {kind}", f"this study knows the submodules of {known}", "Add its paths to LAYER_PATHS"
        )
    layer, attention, query, key, mlp, activation = LAYER_PATHS[kind]
    at, heads = f"module.{layer}", model.config.num_attention_heads
    sites = {
        "resid_pre": Input(at), "resid_post": at, "mlp_out": f"{at}.{mlp}", "mlp_post": f"{at}.{activation}",
        "attn_out": Output(f"{at}.{attention}", index=0), "pattern": Output(f"{at}.{attention}", index=1),
        "q": Output(f"{at}.{query}", heads=heads), "k": Output(f"{at}.{key}", heads=heads),
    }  # fmt: skip
    return hooked(PadAware(model, pad_id), sites)
