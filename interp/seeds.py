"""Seeds for independent random streams.

Two parts of a run that both call `manual_seed(0)` draw the same numbers: the rows chosen to be repeated would be the rows seen
first. Every stream therefore has a name, and its seed is a hash of name and number.
"""

import hashlib


def seed_for(stream: str, *numbers: int | str) -> int:
    """A seed for the named stream, the same on every machine; different names or numbers give unrelated seeds."""
    described = "\0".join([stream, *map(str, numbers)])
    return int.from_bytes(hashlib.sha256(described.encode()).digest()[:7], "big")
