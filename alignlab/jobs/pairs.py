"""Pairs: sample answers of the policy, score them by objective, and write preference pairs of them."""

from alignlab.config.plan import Plan
from alignlab.config.schema import PairsConfig
from alignlab.data.sources import load_prompts
from alignlab.engine.cache.scores import shared_scores
from alignlab.pairs.answers import answers_of, fitting_prompts, sample_answers
from alignlab.pairs.comparable import comparable
from alignlab.pairs.export import PairCounts, count_pairs, export, pairs_card
from alignlab.prerequisites.models import prompt_encoder
from alignlab.prerequisites.own_pairs import answering_base, card_settings, pair_rows, sampler_of, score_answers
from alignlab.prerequisites.rewards import RewardParts
from alignlab.prerequisites.rows import data_name
from alignlab.runs.folder import RunFolder
from alignlab.runs.progress import say
from alignlab.runs.result import Outcome


def run(plan: Plan[PairsConfig], run: RunFolder, outcome: Outcome) -> None:
    """Sample what no run has sampled, score what no run has scored, and write the pairs.

    Args: every job's, see `alignlab.jobs`.
    """
    algorithm, max_length = plan.algorithm, plan.recipe.trainer.max_length
    with run.stage("prompts"):
        encoder = prompt_encoder(plan.model)
        prompts, too_long = fitting_prompts(
            load_prompts(plan.rows.settings),
            encoder,
            max_length=max_length,
            max_new_tokens=plan.generator.max_new_tokens,
        )
    outcome.inputs |= {"dataset": data_name(plan.rows)}
    with run.stage("answers"):
        sampler = sampler_of(plan.model, plan.generator, algorithm.sources, seed=plan.seed, max_length=max_length)
        file, num_drawn = sample_answers(prompts, encoder, sampler, plan.cache)
    answers = comparable(answers_of(file), algorithm.near_duplicates)
    with run.stage("scores"):
        base = answering_base(plan.model, plan.generator)
        parts = RewardParts(base, shared_scores(plan.cache), run.make_run)
        scored = score_answers(plan.scorers, parts, answers, run.path, adapters=algorithm.sources)
    rows = pair_rows(algorithm, plan.objectives.weights, answers, scored, seed=plan.seed)
    counts = PairCounts(
        len(prompts), len(prompts) * len(algorithm.sources or [None]) * plan.generator.samples, answers.left_out
    )
    counts.left_out["prompts that are too long"] = too_long
    count_pairs(rows, counts)
    card = pairs_card(counts, card_settings(plan.record, plan.inputs), scored.notes)
    outcome.artifacts |= export(rows, run.path, card=card)
    outcome.extra |= {"pairs": counts.as_record(), "sampled": num_drawn, "scored": scored.asked, **scored.notes}
    ranked = ", ".join(f"{count} ranked by {name}" for name, count in counts.labelled.items())
    say(f"made {counts.pairs} pairs of {counts.answers} answers to {counts.prompts} prompts: {ranked}")
