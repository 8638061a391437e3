"""Texts of the toy's grammar and a classifier trained on them for a few steps, once for all tests."""

import random

import pytest

from alignlab.data.records import Pair
from alignlab.data.worlds import toy


@pytest.fixture(scope="session")
def texts():
    """(prompt, response) of different lengths."""
    rng = random.Random(1)
    return [(prompt, toy.demonstration(prompt, rng)) for prompt in toy.all_prompts()[:24]]


@pytest.fixture(scope="session")
def pairs():
    """Pairs whose longer response is the better one."""
    rng = random.Random(2)
    found = []
    for index, prompt in enumerate(toy.all_prompts()[:64]):
        short, long = sorted((toy.demonstration(prompt, rng), toy.demonstration(prompt, rng)), key=len)
        found.append(Pair(f"pair{index}", prompt, long, short, prompt, "long"))
    return found
