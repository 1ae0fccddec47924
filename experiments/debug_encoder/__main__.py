"""Can bugs in a transformer be found by looking at it? `python -m experiments.debug_encoder --help`; the question is in README.md."""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace

import torch

from experiments.debug_encoder import page
from experiments.debug_encoder.answers import CORRECT, VARIANTS, Found, headline, verdicts
from experiments.debug_encoder.baseline import bag_of_words
from experiments.debug_encoder.config import PRESETS, DebugConfig
from experiments.debug_encoder.measure import attention_on, curve, healthy, is_found, planted, rates, table
from experiments.debug_encoder.planted import BUGS
from experiments.debug_encoder.train import Job, accuracy, encoded, fine_tune, hugging_face_model, sized, train_all, with_sites
from interp.cli import end_study, run_study, study_command
from interp.data.sentiment import CUES, SentimentData, cue_count, encode_padded, load_sentiment, word_tokenizer
from interp.errors import DataError
from interp.probes.health import diagnose
from interp.provenance import provenance_of
from interp.report import Page
from interp.result import Result

QUESTION = "Can bugs in a transformer be found by looking at its attention, its stream and its gradients?"


def main(argv: Sequence[str] | None = None) -> None:
    """Calibrate, train broken beside correct, fine-tune the practical way, and write the report."""
    command = study_command("experiments.debug_encoder", QUESTION, PRESETS, argv)
    study, started = command.config, time.perf_counter()
    torch.set_num_threads(1)  # small tensors are slower on more
    data = load_sentiment(study.data)
    tokenizer = word_tokenizer(data, study.vocab_size)
    train, validation, test = (encoded(tokenizer, part, study.length) for part in (data.train, data.validation, data.test))
    config = sized(study, data, len(tokenizer))
    batch = padded_batch(test.tokens)
    classifier, its_tokenizer, described = hugging_face_model(study, tokenizer, data)  # refused, if at all, before anything runs
    print(f"{QUESTION}\npreset {command.preset}, seeds {list(study.seeds)}; {data.description}\ncalibrating ...")
    short = calibration_batch(test.tokens, study.calibration_length)
    bugs, sound = planted(config, short, study.calibration_seeds), healthy(config, short, study.calibration_seeds)
    print("training ...")
    jobs = [Job(name, seed, config, study.train, train, validation) for name in VARIANTS for seed in study.seeds]
    done = train_all(jobs, command.workers, command.runs)
    models, curves, held_out = {}, {}, {}
    for name in VARIANTS:
        runs = [run for job, run in zip(jobs, done, strict=True) if job.name == name]
        models[name] = [model for model, _ in runs]
        curves[name] = curve(name, study.seeds, [reached for _, reached in runs], "validation accuracy after so many epochs")
        held_out[name] = [accuracy(model, test) for model in models[name]]
    print("the practical way ...")
    its_batch = padded_batch(encode_padded(its_tokenizer, data.test.texts, study.length), its_tokenizer.pad_token_id)
    before = diagnose(with_sites(classifier.eval(), its_tokenizer.pad_token_id), its_batch, pad_id=its_tokenizer.pad_token_id)
    reached, its_accuracy = fine_tune(classifier, its_tokenizer, data, study)
    after = diagnose(with_sites(classifier, its_tokenizer.pad_token_id), its_batch, pad_id=its_tokenizer.pad_token_id)
    trained = {name: [diagnose(model, batch) for model in group] for name, group in models.items()}
    floor, floor_name = without_attention(data)
    counted = bag_of_words(tokenizer, data)
    found = Found(bugs, sound, trained, held_out, floor, floor_name, counted, its_accuracy, before.found, after.found, described)
    row, words, label = shown_sentence(test.tokens, tokenizer, data)
    cards = verdicts(found)
    report = Page(
        title="Finding bugs in a transformer",
        question=headline(found),
        sections=[
            page.answers_section(cards),
            page.Section("Bug, symptom, evidence", [page.bug_table(bugs), page.alarm_table(sound)]),
            page.trained_section(found, curves, study.seeds),
            page.maps_section(attention_on({name: group[0] for name, group in models.items()}, row), words, label),
            page.practical_section(found, reached, before, after),
            page.method_section(data.description),
        ],
        results=results(study, found, curves, reached),
        command=command.command,
        provenance=replace(
            provenance_of(models[CORRECT][0], test.tokens, time.perf_counter() - started),
            data=f"{data.description}, {data.fingerprint}",
            seed=study.seeds[0],
        ),
        facts={"preset": command.preset, "seeds": ", ".join(map(str, study.seeds)), "texts": data.description},
    )
    end_study(command, report, cards, time.perf_counter() - started)


def padded_batch(tokens: torch.Tensor, pad_id: int = 0, n: int = 32) -> torch.Tensor:
    """Texts of all lengths, from the shortest to the longest. Raises `DataError` when there is no padding to look at."""
    lengths = (tokens != pad_id).sum(1)
    rows = tokens[lengths.argsort(stable=True)[torch.linspace(0, len(tokens) - 1, min(n, len(tokens))).long()]]
    if not bool((rows == pad_id).any()):
        raise DataError("a batch to diagnose on", "its texts have equal lengths, so nothing is padded", "Give a larger length=")
    return rows


def calibration_batch(tokens: torch.Tensor, length: int, n: int = 32) -> torch.Tensor:
    """As `padded_batch`; of texts longer than `length`, their beginnings, from a third of it to all of it."""
    if tokens.shape[1] <= length:
        return padded_batch(tokens, n=n)
    rows = tokens[torch.linspace(0, len(tokens) - 1, min(n, len(tokens))).long(), :length]
    kept = torch.linspace(max(1, length // 3), length, len(rows)).long()
    return rows.masked_fill(torch.arange(length) >= kept[:, None], 0)


def without_attention(data: SentimentData) -> tuple[float, str]:
    """What the held-out tenth yields without attention: adding up known cue words, or always saying the most frequent class."""
    labels = data.test.labels.tolist()
    if data.cues:
        guesses = [cue_count(text, CUES) for text in data.test.texts]
        return sum(a == b for a, b in zip(guesses, labels, strict=True)) / len(labels), "Adding up cue words"
    return max(labels.count(kind) for kind in set(labels)) / len(labels), "Most frequent class"


def shown_sentence(tokens: torch.Tensor, tokenizer: object, data: SentimentData) -> tuple[torch.Tensor, list[str], str]:
    """A held-out sentence of middling length with its padding: ids, words, class; at most 40 tokens are shown."""
    lengths, tokens = (tokens != 0).sum(1), tokens[:, :40]
    wanted = int((lengths - 0.6 * tokens.shape[1]).abs().argmin())
    words = tokenizer.convert_ids_to_tokens(tokens[wanted].tolist())  # type: ignore[attr-defined]
    return tokens[wanted : wanted + 1], words, data.classes[int(data.test.labels[wanted])]


def results(
    study: DebugConfig, found: Found, curves: dict[str, Result], reached: Sequence[float]
) -> dict[str, Result | dict[str, Result]]:
    """Everything for results.json."""
    hits = {
        bug.name: (sum(is_found(bug, each) for each in found.planted[bug.name]), len(found.planted[bug.name])) for bug in BUGS
    }
    alarms = {name: (sum(not each.healthy for each in group), len(group)) for name, group in found.healthy.items()}
    return {
        "planted bugs found": rates("planted bugs found", "bug", hits, "by the check meant for the bug"),
        "false alarms": rates("false alarms", "model", alarms, "healthy models that any check blamed"),
        "held-out accuracy": table("accuracy", study.seeds, found.accuracy, "share of texts", "on the held-out tenth"),
        "validation accuracy": curves,
        "bag of words": table(
            "bag of words", study.seeds[:1], {"bag of words": [found.bag_of_words]}, "share of texts", "held out"
        ),
        "practical way": curve(
            "practical way", study.seeds[:1], [[*reached, found.hf_accuracy]], "validation after each epoch; last: held out"
        ),
        "measured, correct encoder": dict(found.trained[CORRECT][0].measured),
    }


if __name__ == "__main__":
    sys.exit(run_study(main))
