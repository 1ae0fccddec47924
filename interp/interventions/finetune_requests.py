"""What an edit asks for: a prompt and the answer it shall get, as text or as token ids, and how text becomes ids.

A target's ids are those that stand behind the prompt's when both are tokenized as one text. So a leading space is there exactly
where the tokenizer needs one: GPT-2 gets " Rome" as one token, a tokenizer that marks or drops spaces itself gets no second one.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

from jaxtyping import Int
from torch import Tensor

from interp.errors import DataError, nearest

Encode = Callable[[str], list[int]]
FIELDS = ("prompt", "subject", "target_new")


@dataclass(frozen=True)
class EditRequest:
    """`target_new` shall follow `prompt`, in which "{}" stands for `subject`.

    Raises `DataError` when the prompt has not exactly one "{}", or a part is no text or empty.
    """

    prompt: str
    subject: str
    target_new: str

    def __post_init__(self) -> None:
        for name in FIELDS:
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip():
                raise DataError(f"an edit request with {name} {value!r}", "it must be a text", 'Give for example "{} is in"')
        if self.prompt.count("{}") != 1:
            raise DataError(
                f"an edit request with prompt {self.prompt!r}",
                f'it has {self.prompt.count("{}")} places "{{}}" for the subject',
                'Write "{}" once, where the subject stands',
            )

    @property
    def text(self) -> str:
        """The prompt with its subject."""
        return self.prompt.replace("{}", self.subject)


@dataclass(frozen=True)
class TokenRequest:
    """`target` shall follow `prompt`, both token ids: for models without a tokenizer, or to say exactly what is meant.

    `known` says of each target token whether it counts (tokens unknown to the tokenizer do not); empty means all.
    Raises `DataError` for ids that are no whole numbers, an empty part, or a target none of which counts.
    """

    prompt: tuple[int, ...]
    target: tuple[int, ...]
    known: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        for name in ("prompt", "target"):
            ids = tuple(getattr(self, name))
            if not ids or not all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in ids):
                raise DataError(f"a token request with {name} {ids}", "it must be one token id or more", "Give whole numbers")
            object.__setattr__(self, name, ids)
        object.__setattr__(self, "known", tuple(self.known) or (True,) * len(self.target))
        if len(self.known) != len(self.target):
            raise DataError(
                f"a token request for {len(self.target)} tokens", f"known has {len(self.known)} entries", "Give one for each"
            )
        if not any(self.known):
            raise DataError(
                f"a target of the tokens {self.target}", "the tokenizer knows none of them", "Use words it was made with"
            )


Request = EditRequest | TokenRequest | Mapping[str, Any]


def requests_from_batch(
    input_ids: Int[Tensor, "batch pos"], attention_mask: Int[Tensor, "batch pos"], targets: Sequence[Sequence[int]]
) -> list[TokenRequest]:
    """Requests from prompts that were padded together, on the left or on the right, as a tokenizer gives them.

    The prompt of a row is what the mask lets stand. Raises `DataError` for a mask that is not one run of ones in each row, or
    another number of targets.
    """
    if input_ids.shape != attention_mask.shape or len(targets) != len(input_ids):
        told = f"ids are {tuple(input_ids.shape)}, the mask {tuple(attention_mask.shape)}, targets {len(targets)}"
        raise DataError("requests from a padded batch", told, "Give a mask of the ids' shape and one target per row")
    prompts = []
    for row, (ids, mask) in enumerate(zip(input_ids.tolist(), attention_mask.tolist(), strict=True)):
        places = [place for place, here in enumerate(mask) if here]
        if not set(mask) <= {0, 1} or not places or places[-1] - places[0] + 1 != len(places):
            raise DataError(f"row {row} of a padded batch", f"its attention mask is {mask}", "Pad at one end, with zeros")
        prompts.append(tuple(ids[places[0] : places[-1] + 1]))
    return [TokenRequest(prompt, tuple(target)) for prompt, target in zip(prompts, targets, strict=True)]


def tokenized(requests: Iterable[Request], model: Any, tokenizer: Any = None) -> list[TokenRequest]:
    """The requests as token ids, by `tokenizer` or the model's own.

    Raises `DataError` for requests that cannot be read, none at all, and text for a model without a tokenizer.
    """
    if isinstance(requests, Mapping | str | EditRequest | TokenRequest) or not isinstance(requests, Iterable):
        raise DataError("edit requests", f"a {type(requests).__name__} was given", "Give a list of them, also for one")
    read = [_read(request) for request in requests]
    if not read:
        raise DataError("edit requests", "there is none", "Give at least one")
    encode = encoder_of(model, tokenizer) if any(isinstance(one, EditRequest) for one in read) else None
    unknown = getattr(tokenizer or getattr(model, "tokenizer", None), "unk_token_id", None)
    return [one if isinstance(one, TokenRequest) else with_target(encode, one.text, one.target_new, unknown) for one in read]  # type: ignore[arg-type]


def _read(request: Any) -> EditRequest | TokenRequest:
    if isinstance(request, EditRequest | TokenRequest):
        return request
    if not isinstance(request, Mapping):
        raise DataError("an edit request", f"it is a {type(request).__name__}", "Give prompt, subject and target_new")
    missing = [name for name in FIELDS if name not in request]
    if missing:
        mistaken = [key for key in map(str, request) if key not in FIELDS and nearest(key, missing)]
        no_key = f", and {mistaken[0]!r} is none of its keys" if mistaken else ""
        hint = nearest(mistaken[0], missing) if mistaken else ""
        raise DataError(
            f"an edit request with {', '.join(map(str, request)) or 'nothing'}",
            f"it lacks {', '.join(missing)}{no_key}",
            f"{hint}Give {FIELDS[0]}, {FIELDS[1]} and {FIELDS[2]}",
        )
    target: Any = request["target_new"]
    words: Any = target.get("str") if isinstance(target, Mapping) else target  # {"str": …} as CounterFact has it
    return EditRequest(request["prompt"], request["subject"], words)


def encoder_of(model: Any, tokenizer: Any = None) -> Encode:
    """Text to ids as `model` reads it: BOS in front where its `to_tokens`, or the tokenizer, puts one; nothing cut off."""
    own = getattr(model, "tokenizer", None)
    if tokenizer is not None and tokenizer is not own:
        return lambda text: list(tokenizer(text)["input_ids"])
    if own is None:
        raise DataError(
            f"edit requests in words for a {type(model).__name__}", "it has no tokenizer", "Give tokenizer=, or TokenRequest"
        )
    if hasattr(model, "to_tokens"):
        cuts = "truncate" in signature(model.to_tokens).parameters  # and would cut a long prompt's end off
        return lambda text: model.to_tokens(text, **({"truncate": False} if cuts else {}))[0].tolist()
    from interp.data.passages import encode_text

    return lambda text: encode_text(own, text)[0].tolist()


def with_target(encode: Encode, prompt: str, target: str, unknown: int | None = None) -> TokenRequest:
    """`prompt` and the `target` that shall follow it, parted by a space unless one of them has it, as ids.

    Spaces at the end of the prompt are counted to the target, as tokenizers do. Ids equal to `unknown` do not count. Raises
    `DataError` when the target is empty, or when the prompt's last token changes as the target follows it.
    """
    if not isinstance(target, str) or not target.strip():
        raise DataError(f"a target {target!r}", "there is nothing to predict", "Give a word or more")
    kept = prompt.rstrip(" ")
    gap = prompt[len(kept) :] or ("" if target[0].isspace() else " ")
    before, both = encode(kept), encode(kept + gap + target)
    ids = both[len(before) :]
    if both[: len(before)] != before or not ids:
        raise DataError(
            f"a target {target!r} after {prompt!r}",
            "the tokenizer joins the end of the prompt and the target into other tokens",
            "Reword the prompt, or give ids as a TokenRequest",
        )
    return TokenRequest(tuple(before), tuple(ids), tuple(one != unknown for one in ids))
