"""The sentences and words that prompt pairs are made of. Ours; what is not one token in a tokenizer is left out there."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# {A} and {B} are the two people in either order, {S} is the one of them who acts, {P} a place, {O} an object. Between the names
# and the place always stand four words, so that in most tokenizers all sentences have one length.
TWO_PEOPLE: tuple[str, ...] = (
    "After {A} and {B} had arrived at the {P}, {S} handed the {O} to",
    "While {A} and {B} were waiting at the {P}, {S} passed the {O} to",
    "Once {A} and {B} had walked to the {P}, {S} offered the {O} to",
    "As {A} and {B} were coming from the {P}, {S} showed the {O} to",
    "When {A} and {B} sat down near the {P}, {S} sold the {O} to",
    "Because {A} and {B} got lost near the {P}, {S} gave the {O} to",
    "Before {A} and {B} had found the right {P}, {S} returned the {O} to",
    "Since {A} and {B} were already at the {P}, {S} brought the {O} to",
)
NAMES: tuple[str, ...] = _words(
    "Adam Alan Alex Alice Amy Anna Anthony Ben Brian Carl Charles Chris Claire Daniel David Emily Emma Eric Frank George "
    "Grace Helen Henry Ian Jack James Jane Jason John Julia Karen Kate Kevin Laura Linda Lisa Louis Lucy Maria Mark Martin Mary "
    "Michael Nancy Neil Nick Oliver Oscar Paul Peter Rachel Richard Robert Rose Ruth Sam Sarah Simon Stephen Susan Thomas Tom "
    "Victor Walter William"
)
PLACES: tuple[str, ...] = _words(
    "airport bank bridge castle church cinema farm garden harbor hospital hotel library market museum office park river school "
    "station store theater village"
)
OBJECTS: tuple[str, ...] = _words(
    "apple bag ball book bottle box camera coat cup drum flag hat key lamp letter map package pen phone picture ring rope "
    "ticket watch"
)
YEARS = "The {noun} lasted from the year {century}{year}"
YEARS_END = " to the year {century}"
EVENTS: tuple[str, ...] = _words(
    "alliance campaign conflict crisis debate drought expedition famine festival journey occupation peace project rebellion "
    "reign revolt siege strike trial truce voyage war"
)
