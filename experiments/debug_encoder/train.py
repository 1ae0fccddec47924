"""Training: a short loop for our own encoder, and Hugging Face's Trainer for the practical way."""

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from experiments.debug_encoder import planted
from experiments.debug_encoder.config import DebugConfig, Training
from experiments.debug_encoder.planted import build
from interp.config import as_dict
from interp.data.sentiment import Labelled, SentimentData, encode_padded
from interp.errors import ModelError
from interp.files import write_whole
from interp.models import encoder, hooked, parts, residual
from interp.models.encoder import EncoderConfig, PadAware
from interp.models.found import find_sites
from interp.provenance import tensor_hash
from interp.seeds import seed_for
from interp.training.variants import run_name


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

    @property
    def id(self) -> str:
        """Ten characters that change with the settings, the texts or the code."""
        texts = [tensor_hash(tensor) for part in (self.train, self.validation) for tensor in (part.tokens, part.labels)]
        code = [Path(module.__file__ or "").read_text() for module in (planted, encoder, parts, residual)]
        told = [self.name, self.seed, as_dict(self.config), as_dict(self.how), *texts, *code, Path(__file__).read_text()]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:10]


def train_all(jobs: Sequence[Job], workers: int | None, folder: Path) -> list[tuple[Any, list[float]]]:
    """Each job's model, trained, and its validation accuracy before training and after each epoch; several at once.

    Finished ones are kept in `folder`: the same job, of the same code, is opened instead of trained.
    """
    places = [folder / f"{run_name(job.name, job.seed)}-{job.id}.safetensors" for job in jobs]
    todo = [(job, place) for job, place in zip(jobs, places, strict=True) if not place.exists()]
    at_once = min(len(todo), workers or os.cpu_count() or 1)
    with tqdm(total=len(todo), desc="training encoders", leave=False) as bar:
        if at_once > 1:
            with ProcessPoolExecutor(at_once, mp_context=get_context("spawn")) as pool:
                for _ in pool.map(train_and_keep, *zip(*todo, strict=True)):
                    bar.update()
        else:
            for job, place in todo:
                train_and_keep(job, place)
                bar.update()
    return [opened(job, place) for job, place in zip(jobs, places, strict=True)]


def train_and_keep(job: Job, place: Path) -> None:
    """Train, and write weights and accuracies as one file, whole or not at all."""
    weights, reached = train_encoder(job)
    write_whole(place, save(weights, {"reached": json.dumps(reached)}))


def opened(job: Job, place: Path) -> tuple[Any, list[float]]:
    """What `train_and_keep` kept."""
    model = build(job.name, job.config, job.seed)
    model.load_state_dict(load_file(place))
    with safe_open(place, "pt") as file:
        return model, json.loads(file.metadata()["reached"])


def train_encoder(job: Job) -> tuple[dict[str, Tensor], list[float]]:
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
    return {name: weight.contiguous() for name, weight in model.state_dict().items()}, reached


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
        its_tokenizer = hf.AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        told = " ".join(str(error).split())[:160]
        raise ModelError(
            f"the classifier {name!r}",
            f"it cannot be opened ({told})",
            "Give hugging_face.model= a folder written by save_pretrained, or leave it out",
        ) from None
    if its_tokenizer.pad_token_id is None:  # language models are trained without padding
        its_tokenizer.pad_token = its_tokenizer.eos_token
    model.config.pad_token_id = its_tokenizer.pad_token_id
    with_sites(model, its_tokenizer.pad_token_id)
    longest = torch.full((2, study.length), next(n for n in range(9) if n != its_tokenizer.pad_token_id))
    try:
        with torch.no_grad():
            PadAware(model, its_tokenizer.pad_token_id)(longest.to(model.device))
    except (RuntimeError, IndexError) as error:
        told = " ".join(str(error).split())[:160]
        raise ModelError(
            f"the classifier {name!r}", f"it does not read {study.length} tokens ({told})", "Set length lower"
        ) from None
    return model, its_tokenizer, f"{Path(name).name}, pretrained"


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


def with_sites(model: Any, pad_id: int) -> Any:
    """Hook points for a Hugging Face classifier, padding hidden. Raises `ModelError` for one whose layers cannot be made out."""
    visible = PadAware(model, pad_id)
    ids = [token for token in range(model.config.vocab_size) if token != pad_id][:12]
    return hooked(visible, find_sites(visible, torch.tensor(ids).view(2, -1).to(model.device)))
