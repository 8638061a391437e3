"""Pairs of token rows of many shapes: shared prompts, ranked sets, one inside another."""

import random

from alignlab.models.prompts import Encoded
from support.against_trl import VOCABULARY


def draw(rng, count):
    return [rng.randrange(3, VOCABULARY) for _ in range(count)]


def plain_pairs():
    """Pairs of different lengths that share their prompts."""
    rng = random.Random(0)
    prompts = [draw(rng, rng.randint(2, 12)) for _ in range(12)]
    return [
        (Encoded(prompt, draw(rng, rng.randint(2, 25))), Encoded(prompt, draw(rng, rng.randint(2, 25))))
        for prompt in prompts
    ]


def all_pairs(prompt, responses):
    rows = [Encoded(prompt, response) for response in responses]
    return [(rows[i], rows[j]) for i in range(len(rows)) for j in range(i + 1, len(rows))]


def ranked_pairs():
    """All pairs of five responses: one of a single token, two corrected ones, one inside another."""
    rng = random.Random(0)
    pairs = []
    for _ in range(2):
        prompt, text, end = draw(rng, 5), draw(rng, 16), draw(rng, 6)
        pairs += all_pairs(prompt, [[2], text[:4] + end, text[:8] + end, text[:8], text])
    return pairs


def one_token_pairs():
    rng = random.Random(1)
    return [(Encoded(draw(rng, 4), draw(rng, 1)), Encoded(draw(rng, 4), draw(rng, 1))) for _ in range(8)]


def same_beginning_pairs():
    """Every prompt and every response begins alike."""
    rng = random.Random(2)
    prompt, text = draw(rng, 8), draw(rng, 10)
    return [(Encoded(prompt, text + draw(rng, 3)), Encoded(prompt, text + draw(rng, 5))) for _ in range(8)]


def nested_pairs():
    """Each response is the beginning of the other."""
    rng = random.Random(3)
    texts = [(draw(rng, 6), draw(rng, 14)) for _ in range(8)]
    pairs = [(Encoded(prompt, text[:7]), Encoded(prompt, text)) for prompt, text in texts]
    return [pair[:: -1 if number % 2 else 1] for number, pair in enumerate(pairs)]


DATA = {
    "pairs": plain_pairs,
    "ranked": ranked_pairs,
    "one token": one_token_pairs,
    "same beginning": same_beginning_pairs,
    "nested": nested_pairs,
}
