"""The closed tables: which losses, programs and schedules exist, and why the other losses do not fit."""

PROGRAMS = {
    "brief": "alignlab.rewards.programs:brief",
    "complete": "alignlab.rewards.programs:complete",
    "distinct": "alignlab.rewards.programs:distinct",
    "refusal": "alignlab.rewards.programs:refusal",
}
"""reward.function -> where it is. An installed package adds its own through the entry-point group below."""

PROGRAM_GROUP = "alignlab.rewards"

PAIR_STRATEGIES = ("all", "adjacent", "best_worst", "principle_1", "principle_2")
"""Which pairs of a synthesised set are taken: alignlab.data.rankings."""

RANKED_FILE = "ranked.jsonl"
"""What a synthesis run leaves for training, in its folder."""

WORDINGS = ("direct", "contrast")
"""The wordings of a judge's prompt, in alignlab.judges.wording."""

TILTABLE_LOSSES = ("sigmoid", "hinge", "robust", "exo_pair", "discopop")
"""TRL's DPO losses of the difference of the responses' log-ratios: rewards may tilt the reference (modpo)."""

PER_TOKEN_LOSSES = ("ipo", "sigmoid_norm")
"""Losses that divide each response's log-ratio by its own length, so for plain DPO alone.

A constant that is added to both rewards of a prompt, which no reward model fixes, would change them.
"""

REGRESSION_LOSSES = ("squared", "huber", "clipped")
"""algorithm.loss of rebel: losses of how far a pair's log-ratios are from its reward difference. They take no label."""

CONDITIONED_LOSSES = ("sigmoid", "hinge", "discopop", *REGRESSION_LOSSES)
"""algorithm.loss of modpo_conditioned: MODPO's, on the labels of the objective that is heaviest at w, or REBEL's."""

LOSSES = (*TILTABLE_LOSSES, *PER_TOKEN_LOSSES)
"""TRL's DPO losses that alignlab trains."""

_PER_RESPONSE = "scores each response on its own, but a reward is known only up to a constant per prompt"
REFUSED_LOSSES = {
    "nca_pair": _PER_RESPONSE,
    "bco_pair": _PER_RESPONSE,
    "sppo_hard": _PER_RESPONSE,
    "apo_zero": _PER_RESPONSE,
    "apo_down": _PER_RESPONSE,
    "aot_unpaired": _PER_RESPONSE,
    "aot": "sorts the policy's and the reference's differences apart, so a pair loses its own margin",
    "sft": "has no reference and no rejected response, so there is nothing to balance",
}
"""TRL's other DPO losses, with the reason why alignlab does not train on them."""

SMOOTHED_LOSSES = ("robust", "exo_pair")
"""Losses that need algorithm.label_smoothing > 0; every other one refuses it."""

SCHEDULES = (
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
)
"""transformers' learning-rate schedules that need no settings of their own."""

MOST_ROUNDS = 50
"""Largest algorithm.rounds."""
ROUNDS_PICTURE = "rounds.png"
"""Picture of a run's rounds, in its folder."""

MADE_REWARDS = ("implicit", "classifier", "cost", "probe")
"""Kinds of reward that a reward_model run makes where none is named."""

PROBE_PROMPTS = 3
"""Fewest prompts whose pairs a probe is fitted to: cross-validation within cross-validation takes three."""

JOINS = ("mean", "min", "uncertainty")
"""scorers.OBJECTIVE.join: what several scorers of one objective, scorers.OBJECTIVE.members, come to."""

HELD_OUT = "held_out"
"""`scorers.OBJECTIVE.held_out` is a second scorer, which nothing is trained on; its column is OBJECTIVE_held_out."""


def first_scorer(name: str) -> str:
    """The objective of a scorer's column, whether it is the first scorer or the held-out one."""
    return name.removesuffix(f"_{HELD_OUT}")


QUALITY_FILES = ("benign_generations.jsonl", "benign.jsonl", "text_loss.jsonl")
"""Of an evaluation on dataset.benign and dataset.text: responses, whether they refuse, and the loss of each chunk."""
