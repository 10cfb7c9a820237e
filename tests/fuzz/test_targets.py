"""A slice of the search for hostile bytes: the corpus, mutations of a fixed seed, and everything found before.

`python -m tests.fuzz.run` searches for hours with atheris; what it finds becomes a line of `FOUND`.
"""

from __future__ import annotations

import random

import pytest

from pacs_node.dicom.stack import quiet
from tests.fuzz.seeds import mutated, seeds
from tests.fuzz.targets import TARGETS

SEED = 20261122
MUTATIONS = {
    "negotiation": 4_000,
    "commands": 10_000,
    "p_data": 10_000,
    "header": 5_000,
    "commitment": 5_000,
    "conversation": 3_000,
}

FOUND: dict[str, tuple[bytes, ...]] = {}
"""By target: bytes that once failed."""


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_bears_mutations_of_what_good_peers_say(target: str) -> None:
    quiet()
    corpus = seeds(target)
    chance = random.Random(SEED)
    for one in (*corpus, *FOUND.get(target, ()), b""):
        TARGETS[target](one)
    for _ in range(MUTATIONS[target]):
        TARGETS[target](mutated(chance, corpus))
