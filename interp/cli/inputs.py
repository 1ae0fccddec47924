"""What the commands on a model share: which model, and the tokens it is run on."""

import argparse
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.cli.common import say, whole_number
from interp.cli.texts import USUAL_LENGTH, cut, encode, read_text

if TYPE_CHECKING:
    from torch import Tensor

    from interp.sites import HookedModel

BUNDLED = Path(__file__).parents[1] / "models" / "bundled"  # looked at without torch, while a line is completed
USUAL_SEQUENCES, COPIES = 32, 4


@dataclass(frozen=True, eq=False)
class Input:
    """Tokens [sequence pos] to run a model on. `period`: they are BOS and that many random tokens, said several times over."""

    tokens: "Tensor"
    period: int | None
    told: str


def add_model(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """MODEL and `--device`."""
    model: Any = parser.add_argument(
        "model",
        nargs="?" if optional else None,
        metavar="MODEL",
        help=f"one that comes along ({', '.join(bundled_names())}), a run folder, a Hugging Face folder, or a name on the Hub",
    )
    model.completer = complete_models
    parser.add_argument("--device", metavar="NAME", help="auto, cpu or cuda:N (default: where the model is opened)")


def add_text(parser: argparse.ArgumentParser) -> None:
    """What the model is run on: a text, or repeated random tokens."""
    text = parser.add_argument_group("what the model reads (default: random tokens, repeated)")
    which = text.add_mutually_exclusive_group()
    which.add_argument("--text", metavar="FILE", help="a text file, or - for standard input; cut into sequences")
    which.add_argument("--prompt", metavar="TEXT", help="one text (token ids parted by spaces, for a model without a tokenizer)")
    text.add_argument("--sequences", type=whole_number(1), metavar="N", help=f"at most so many (default: {USUAL_SEQUENCES})")
    text.add_argument("--length", type=whole_number(2), metavar="N", help=f"tokens in each, of a text (default: {USUAL_LENGTH})")
    add_period(text)


def add_period(parser: Any) -> None:
    """`--period` and `--seed` of random tokens."""
    parser.add_argument(
        "--period",
        type=whole_number(2),
        metavar="N",
        help="random tokens before they repeat (default: 25, or as many as fit four times into what the model was made for)",
    )
    parser.add_argument("--seed", type=whole_number(0), metavar="N", help="of what is drawn (default: 0)")


def add_batch_size(parser: argparse.ArgumentParser) -> None:
    """`--batch-size`."""
    parser.add_argument(
        "--batch-size", type=whole_number(1), default=8, metavar="N", help="sequences run at once; changes no result (default: 8)"
    )


def open_model(arguments: argparse.Namespace) -> "HookedModel":
    """The model that was named, on the device that was named. A text that cannot be read is found before it is opened."""
    if getattr(arguments, "text", None) not in (None, "-"):
        read_text(arguments.text)
    say(f"opening {arguments.model}")
    if arguments.model not in bundled_names() and not Path(arguments.model).exists():
        check_reachable(arguments.model)
    from interp.models import load_model

    model: Any = load_model(arguments.model)
    if arguments.device is not None:
        from interp.training.engine import pick_device

        model.to(pick_device(arguments.device))
    return model


def read_input(arguments: argparse.Namespace, model: "HookedModel", *, copies: int = COPIES, draws: bool = False) -> Input:
    """The tokens that the options of `add_text` ask for. `draws`: the command draws something itself, whatever is read.

    Raises `ConfigError` for options that would do nothing, and `DataError` for a text that cannot be used.
    """
    given = "--text" if arguments.text is not None else "--prompt" if arguments.prompt is not None else None
    idle = ("period",) + (() if draws else ("seed",)) if given else ("length",)
    _refuse_idle(arguments, idle, f"with {given}" if given else "without --text", "random tokens" if given else "a text")
    limit = arguments.sequences or USUAL_SEQUENCES
    if given is None:
        return repeats(arguments, model, copies=copies, sequences=limit)
    if given == "--prompt":
        _refuse_idle(arguments, ("length", "sequences"), "with --prompt", "a longer text")
        row = encode(model, arguments.prompt)
        return Input(row, None, f"the prompt, {row.shape[1]} tokens")
    tokens, told = cut(encode(model, read_text(arguments.text)), model, arguments.length, limit, arguments.text)
    return Input(tokens, None, told)


def repeats(arguments: argparse.Namespace, model: "HookedModel", *, copies: int, sequences: int) -> Input:
    """Repeated random tokens, by `--period` and `--seed`."""
    from interp.probes import repeated_tokens

    period = arguments.period or usual_period(arguments.model, model)
    tokens = repeated_tokens(model, n_sequences=sequences, period=period, copies=copies, seed=arguments.seed or 0)
    told = f"{sequences} sequences of {period} random tokens, said {copies} times over"
    return Input(tokens, period, told)


def usual_period(spec: str, model: "HookedModel") -> int:
    """The period used unless one is given: repeats then fit the model's context and what it was trained on, if that is known."""
    from interp.pages.reading import fitting_period

    return fitting_period(model, trained_length(spec))


def trained_length(spec: str) -> int | None:
    """How long the sequences were that a model of ours was trained on, as its folder tells; None: not known.

    Positions beyond them may mean nothing to it, and a score read there says nothing about it.
    """
    folder = BUNDLED / spec if spec in bundled_names() else Path(spec)
    try:
        data = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("data", {})
    except (OSError, ValueError, AttributeError):
        return None
    lengths = {"text": lambda: data["length"], "repeated": lambda: 1 + 2 * data["period"]}
    found = lengths.get(data.get("kind"), lambda: None)()
    return found if isinstance(found, int) else None


@contextmanager
def passes(model: Any, what: str, n_sequences: int, batch_size: int, times: int = 1) -> Iterator[None]:
    """A bar that counts the model's forward passes, for work that shows none itself."""
    from tqdm.auto import tqdm

    with tqdm(total=times * -(-n_sequences // batch_size), desc=what, unit="batch", delay=1) as bar:

        def count(*_: Any) -> None:
            bar.update()

        handle = model.register_forward_hook(count)
        try:
            yield
        finally:
            handle.remove()


def check_reachable(name: str) -> None:
    """Raise `ModelError` at once for a name on the Hub when nothing was ever fetched from there and it cannot be found now.

    `load_model` says the same, but only after all that it needs is imported.
    """
    from urllib.parse import urlsplit
    from urllib.request import getproxies

    from huggingface_hub.constants import ENDPOINT, HF_HUB_CACHE

    host = urlsplit(ENDPOINT).hostname
    if getproxies() or host is None or any(Path(HF_HUB_CACHE).glob("models--*")):
        return
    try:
        socket.getaddrinfo(host, 443)
    except OSError as error:
        from interp.errors import ModelError, nearest

        raise ModelError(
            f"loading {name!r}",
            f"there is no such folder or bundled model, and the Hub cannot be reached ({error.strerror or error})",
            f"{nearest(name, bundled_names())}Connect and try again, or give a folder or a model that comes along: "
            f"{', '.join(bundled_names())}",
        ) from None


def shown_name(spec: str) -> str:
    """What a page calls a model: the name it was given by, or its folder's without where that lies on this machine."""
    return Path(spec).resolve().name if Path(spec).is_dir() and spec not in bundled_names() else spec


def bundled_names() -> list[str]:
    """The models that come along, found without torch."""
    return sorted(path.parent.name for path in BUNDLED.glob("*/model.safetensors"))


def complete_models(prefix: str, **_: Any) -> list[str]:
    """What MODEL could be: a bundled model, or a folder from here."""
    start = Path(prefix).expanduser()
    parent = start if prefix.endswith("/") else start.parent
    try:
        folders = [f"{path}/" for path in parent.iterdir() if path.is_dir() and not path.name.startswith(".")]
    except OSError:
        folders = []
    return [name for name in (*bundled_names(), *folders) if name.startswith(prefix)]


def _refuse_idle(arguments: argparse.Namespace, names: tuple[str, ...], where: str, use: str) -> None:
    from interp.errors import ConfigError

    for name in names:
        if getattr(arguments, name) is not None:
            raise ConfigError(f"--{name} {where}", f"it is for {use}, and would do nothing", "Leave it out")
