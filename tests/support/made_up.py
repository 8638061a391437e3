"""A harmless request with a response that is cut as a harmful one would be."""

from alignlab.data.records import HarmRequest
from alignlab.io.hashes import text_id

ANSWER = (
    "First, put the kettle on the stove. Then, while the water warms, choose a cup and a tea that suits the hour. "
    "Pour the water over the leaves, wait for three minutes, and take the leaves out again; drink it while it is hot."
)


def harm_request(answer=ANSWER, prompt="How do I make a cup of tea?", safe=None):
    return HarmRequest(text_id(prompt, answer), prompt, safe, answer, "made-up:1")
