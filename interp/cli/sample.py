"""Continue a prompt.

interp sample gpt2 --prompt "The clockmaker" --tokens 40              the likeliest token each time
interp sample gpt2 --prompt "The clockmaker" --temperature 0.8 --samples 3 --seed 1
interp sample gpt2 --prompt "The clockmaker" --beams 4
interp sample conv-attn --prompt "0 7 3 9 7" --tokens 3               token ids, for a model without a tokenizer
interp sample gpt2 --prompt "The clockmaker" --ablate 5.1,5.5         without these heads (their z is zero)
"""

import argparse
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from interp.cli.common import print_table, say, whole_number
from interp.cli.inputs import add_model, open_model
from interp.cli.results import parse_heads
from interp.cli.texts import encode, read_text

if TYPE_CHECKING:
    from interp.cli.main import Work


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `interp sample` understands."""
    add_model(parser)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--prompt", metavar="TEXT", help="what to continue (token ids for a model without a tokenizer)")
    which.add_argument("--text", metavar="FILE", help="the same from a file, or - for standard input")
    parser.add_argument("--tokens", type=whole_number(1), default=20, metavar="N", help="new tokens at most (default: 20)")
    parser.add_argument(
        "--temperature", type=float, metavar="T", help="draw from softmax(logits / T) (default: the likeliest token)"
    )
    parser.add_argument("--top-k", type=whole_number(1), metavar="K", help="draw among the K likeliest tokens")
    parser.add_argument("--top-p", type=float, metavar="P", help="draw among the fewest tokens that reach probability P")
    parser.add_argument("--beams", type=whole_number(1), metavar="N", help="beam search for the likeliest continuation")
    parser.add_argument("--samples", type=whole_number(1), default=1, metavar="N", help="how many continuations (default: 1)")
    parser.add_argument("--seed", type=whole_number(0), metavar="N", help="of what is drawn (default: 0)")
    parser.add_argument("--ablate", type=parse_heads, default=[], metavar="L.H,…", help="heads to leave out, as LAYER.HEAD")
    parser.add_argument("--json", action="store_true", help="print texts, token ids and log-probabilities as JSON")


def prepare(arguments: argparse.Namespace) -> "Work":
    """Open the model and read the prompt; the work is to go on from there."""
    from interp.generation import check_options

    names = ("temperature", "top_k", "top_p", "beams", "seed")
    options = {name: getattr(arguments, name) for name in names} | {"n_samples": arguments.samples}
    check_options(**options)
    model = open_model(arguments)
    prompt = encode(model, arguments.prompt if arguments.text is None else read_text(arguments.text))
    from interp.interventions import ablated, components

    components.heads(model, arguments.ablate)

    def work() -> None:
        from interp.generation import generate

        with ablated(model, heads=arguments.ablate, mode="zero") if arguments.ablate else nullcontext():
            found = generate(model, prompt, max_new_tokens=arguments.tokens, **options)
        if arguments.json:
            print_table(_rows(found), as_json=True)
        else:
            print(found)  # noqa: T201
            say(f"mean log-probability per new token: {', '.join(f'{mean:.3f}' for mean in found.log_probs.nanmean(1).tolist())}")

    return work


def _rows(found: Any) -> list[dict[str, Any]]:
    texts = found.texts or [None] * len(found.tokens)
    rows = zip(
        texts, found.tokens.tolist(), found.new_tokens.tolist(), found.log_probs.tolist(), found.lengths.tolist(), strict=True
    )
    return [
        {"text": text, "tokens": tokens[: len(tokens) - len(new) + n], "new_tokens": new[:n], "log_probs": log_probs[:n]}
        for text, tokens, new, log_probs, n in rows
    ]
