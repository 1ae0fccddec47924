"""A generated world of facts: people, and for each their home, trade, meal and game, each said in four ways.

Who stands where is drawn from a seed, so truth is known. Every sentence has eight tokens. A fact is trained on in all of its
wordings but one: that one, and the neighbours' facts, tell whether the model knows facts or has learnt sentences by heart.
"""

from itertools import product
from typing import Literal

import torch
from jaxtyping import Int
from pydantic import model_validator
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from interp.config import setting, settings
from interp.data import DATA, TokenData
from interp.data.tokens import tokens_fingerprint
from interp.interventions import EditCase, EditRequest
from interp.seeds import seed_for

BOS, UNKNOWN = "<bos>", "<unk>"
FIRST = ["Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gia", "Hugo", "Ines", "Jan", "Kira", "Leo", "Mia", "Nils", "Olga", "Paul"]
LAST = ["Ash", "Birch", "Cedar", "Elm", "Fir", "Hazel", "Larch", "Maple", "Oak", "Pine", "Rowan", "Yew"]
RELATIONS = {
    "home": (
        "{} lives in the city,the home of {} is,{} has a house in,you can find {} in",
        "Rome Oslo Lima Kyiv Cairo Delhi Quito Seoul",
    ),
    "trade": (
        "{} works here as a,the trade of {} is,{} earns money as a,we know {} as a",
        "baker nurse pilot tailor judge miner clown monk",
    ),
    "meal": (
        "{} likes to eat only,the meal of {} is,{} always asks waiters for,we cook {} some fresh",
        "rice soup fish beans bread curry pasta cake",
    ),
    "game": (
        "{} plays on sundays only,the game of {} is,{} is quite good at,we saw {} playing some",
        "chess tennis golf darts polo rugby cards squash",
    ),
}
WORDINGS = 4
SENTENCE = 8  # tokens of a sentence, the full stop included


@DATA.register
@settings
class FactsConfig:
    """The world and the text about it: rows of `sentences` sentences, each about a fact and in a wording drawn at random."""

    kind: Literal["facts"] = "facts"
    n_people: int = setting(32, "people in the world")
    world: int = setting(0, "seed of who is what")
    sentences: int = setting(2, "sentences in a row of text")
    n_train: int = setting(48_000, "rows of training text")
    n_held_out: int = setting(64, "rows of validation and of test text, each")

    @model_validator(mode="after")
    def _fits(self) -> "FactsConfig":
        most = len(FIRST) * len(LAST)
        if not 16 <= self.n_people <= most:
            raise ValueError(f"n_people must be between 16 and {most}, the names there are")
        if min(self.sentences, self.n_train, self.n_held_out) < 1:
            raise ValueError("sentences, n_train and n_held_out must be at least 1")
        return self

    def load(self) -> TokenData:
        """Three splits of text; a fact's held-out wording occurs in none."""
        world = World(self)
        sizes = {"train": self.n_train, "validation": self.n_held_out, "test": self.n_held_out}
        splits = {split: world.text(n, seed_for("facts text", self.world, split)) for split, n in sizes.items()}
        return TokenData(
            train=splits["train"],
            validation=splits["validation"],
            test=splits["test"],
            d_vocab=len(world.tokenizer),
            tokenizer=world.tokenizer,
            bos_id=world.tokenizer.bos_token_id,
            fingerprint=tokens_fingerprint(*splits.values()),
            description=f"{self.n_people} people with {len(RELATIONS)} facts each, in {WORDINGS} wordings, world {self.world}",
        )


class World:
    """Who is what, and how it is said."""

    def __init__(self, config: FactsConfig):
        self.config = config
        generator = torch.Generator().manual_seed(seed_for("facts world", config.world))
        names = [f"{first} {last}" for first, last in product(FIRST, LAST)]
        self.people = [names[i] for i in torch.randperm(len(names), generator=generator)[: config.n_people].tolist()]
        self.wordings = {name: told.split(",") for name, (told, _) in RELATIONS.items()}
        self.objects = {name: objects.split() for name, (_, objects) in RELATIONS.items()}
        keys = list(product(self.people, RELATIONS))
        answers, held_out = (torch.randint(n, (len(keys),), generator=generator).tolist() for n in (8, WORDINGS))
        self.answers = {key: self.objects[key[1]][answer] for key, answer in zip(keys, answers, strict=True)}
        self.held_out = dict(zip(keys, held_out, strict=True))
        self.tokenizer = self._tokenizer()

    def prompt(self, person: str, relation: str, wording: int) -> str:
        """A sentence up to its last word, the answer."""
        return self.wordings[relation][wording].replace("{}", person)

    def text(self, n_rows: int, seed: int, without: tuple[str, ...] = ()) -> Int[Tensor, "sequence pos"]:
        """Rows of sentences about facts drawn at random, in wordings drawn among those trained on; none about `without`."""
        generator = torch.Generator().manual_seed(seed)
        sentences = [
            f"{self.prompt(*key, wording)} {answer} ."
            for key, answer in self.answers.items()
            for wording in range(WORDINGS)
            if wording != self.held_out[key] and key[0] not in without
        ]
        ids = torch.tensor(self.tokenizer(sentences)["input_ids"])
        drawn = ids[torch.randint(len(ids), (n_rows, self.config.sentences), generator=generator)].flatten(1)
        return torch.cat([torch.full((n_rows, 1), self.tokenizer.bos_token_id), drawn], dim=1)

    def cases(self, n: int, seed: int, n_neighbours: int = 6) -> list[EditCase]:
        """`n` facts to be changed into another answer of their kind, each with its other wordings and with neighbours.

        Neighbours are facts of other people with the same true answer, in the wording of the edit: those an edit that has learnt
        "after these words say the new answer" breaks.
        """
        generator = torch.Generator().manual_seed(seed)
        keys = [key for key in self.answers if len(self.neighbours(*key)) >= n_neighbours // 2]
        chosen = [keys[i] for i in torch.randperm(len(keys), generator=generator)[:n].tolist()]
        return [self._case(person, relation, generator, n_neighbours) for person, relation in chosen]

    def neighbours(self, person: str, relation: str) -> list[str]:
        """Other people with the same answer."""
        answer = self.answers[person, relation]
        return [other for other in self.people if other != person and self.answers[other, relation] == answer]

    def _case(self, person: str, relation: str, generator: torch.Generator, n_neighbours: int) -> EditCase:
        true = self.answers[person, relation]
        others = [answer for answer in self.objects[relation] if answer != true]
        new = others[int(torch.randint(len(others), (), generator=generator))]
        trained = [wording for wording in range(WORDINGS) if wording != self.held_out[person, relation]]
        wording = trained[int(torch.randint(len(trained), (), generator=generator))]
        near = self.neighbours(person, relation)[:n_neighbours]
        request = EditRequest(self.wordings[relation][wording], person, new)
        return EditCase(
            prompt=request.text,
            new=new,
            true=true,
            paraphrases=tuple(self.prompt(person, relation, other) for other in range(WORDINGS) if other != wording),
            neighbours=tuple((self.prompt(other, relation, wording), true) for other in near),
            request=request,
        )

    def _tokenizer(self) -> PreTrainedTokenizerFast:
        told = " ".join(" ".join(RELATIONS[name]) for name in RELATIONS).replace(",", " ").replace("{}", " ")
        words = sorted({*FIRST, *LAST, *told.split(), "."})
        vocabulary = {word: number for number, word in enumerate([BOS, UNKNOWN, *words])}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS, unk_token=UNKNOWN)
