"""Mix the policies behind the objectives' implicit rewards while decoding: token by token, or response by response."""

from collections.abc import Sequence

import numpy as np

from alignlab.config.plan import Plan
from alignlab.config.schema import JudgedConfig, LogitMixConfig
from alignlab.data.records import Prompt, RankedRow, as_said
from alignlab.engine.cache.scores import shared_scores
from alignlab.engine.sampling.draw import RandomStream
from alignlab.engine.sampling.mixture import Member
from alignlab.errors import ConfigError
from alignlab.evaluation.measure import Policy, measure
from alignlab.evaluation.quality import quality_changes
from alignlab.evaluation.scored import against_reference, held_out_prompts
from alignlab.evaluation.weighted import Floats, PromptSamples, WeightedPrompt, tilted, write_chosen
from alignlab.jobs.scoring import score
from alignlab.jobs.weighing import measure_weighted, reference_prompts
from alignlab.models.adapters import adapter_id
from alignlab.models.prompts import Encoded
from alignlab.prerequisites.rewards import RewardParts, implicit_adapter
from alignlab.prerequisites.rows import model_and_held_out
from alignlab.rewards.implicit import ImplicitReward
from alignlab.runs.folder import RunFolder
from alignlab.runs.result import Outcome

TOKEN_KL = "Rao-Blackwell: KL of the next-token distributions, summed along the mixture's own samples"
SEQUENCE_KL = "self-normalised importance: mean of log(pi/pi_ref) under the weights, low by about 1/ESS"
NEGLIGIBLE = 1e-9
"""Of an exponent: a policy to this power is not read."""


def run(plan: Plan[LogitMixConfig], run: RunFolder, outcome: Outcome) -> None:
    """Find or train the policies, mix them at w, and measure the mixture.

    Args: every job's, see `alignlab.jobs`.
    """
    algorithm, batch_size = plan.algorithm, plan.recipe.trainer.per_device_eval_batch_size
    with run.stage("prerequisites"):
        loaded = model_and_held_out(plan.model, plan.rows, outcome)
        base, held_out = loaded.base, loaded.held_out
        parts = RewardParts(base, shared_scores(plan.cache), run.make_run)
        found = {name: implicit_adapter(source, parts) for name, source in plan.rewards.items()}
    keys = {name: f"{source.key}.adapter" for name, source in plan.rewards.items()}
    outcome.inputs |= {"model": base.id, "revision": base.revision}
    outcome.beta, outcome.recipe = algorithm.beta, {"level": algorithm.level}
    exponents = {name: plan.objectives.weights[name] * beta / algorithm.beta for name, (_, beta) in found.items()}
    outcome.extra["policies"] = {
        name: {"adapter": adapter_id(folder), "beta": beta, "exponent": exponents[name]}
        for name, (folder, beta) in found.items()
    }
    if algorithm.level == "sequence":
        rewards = [
            ImplicitReward(base, folder, beta=beta, cache=parts.cache, batch_size=batch_size, name=name, key=keys[name])
            for name, (folder, beta) in found.items()
        ]
        _by_sequence(plan, run, outcome, rewards, held_out)
        return
    outcome.extra["kl_estimator"] = TOKEN_KL
    members = [Member(folder, exponents[name], keys[name]) for name, (folder, _) in found.items()]
    rest = 1 - sum(exponents.values())
    if abs(rest) > NEGLIGIBLE:
        members.append(Member(None, rest))
    policy = Policy(base, None, algorithm.beta, plan.objectives, parts.cache, batch_size, mixture=tuple(members))
    measure(policy, run, outcome, source=plan.rows, held_out=held_out, sampling=plan.sampling)
    if plan.scorers:
        behind = run.make_run(plan.evaluation(None))
        score(plan, policy, run, outcome, held_out)
        judged = {name for name, source in plan.scorers.items() if isinstance(source.settings, JudgedConfig)}
        against_reference(run.path, behind, outcome, judged)
        outcome.metrics |= quality_changes(run.path, behind, outcome.artifacts)


def _by_sequence(
    plan: Plan[LogitMixConfig],
    run: RunFolder,
    outcome: Outcome,
    rewards: Sequence[ImplicitReward],
    held_out: Sequence[RankedRow],
) -> None:
    """Weigh the reference's samples by exp(w.r/beta), which makes them samples of the optimum.

    Args:
        plan: the run.
        run: its folder.
        outcome: takes the metrics.
        rewards: beta_i * log(pi_i/pi_ref), in the order of plan.rewards.
        held_out: rows of the test split, whose prompts were sampled.
    """
    algorithm = plan.algorithm
    prompts, like = reference_prompts(plan, run, outcome, samples=algorithm.samples)
    known = held_out_prompts(held_out, plan.local_generator.prompts)
    weights = plan.objectives.weights
    with run.stage("log-probabilities"):
        total_N = np.zeros(sum(len(one.rows) for one in prompts))
        for name, reward in zip(plan.rewards, rewards, strict=True):
            total_N += weights[name] * _scores(reward, prompts, known)
    ends = np.cumsum([len(one.rows) for one in prompts])[:-1]
    found = [tilted(total_S / algorithm.beta) for total_S in np.split(total_N, ends)]
    outcome.extra |= {"kl_estimator": SEQUENCE_KL, "least_ess": min(one.ess for one in found)}
    _refuse_few(algorithm, prompts, [one.ess for one in found])
    weighted = [WeightedPrompt(one, each.probability_S, each.kl) for one, each in zip(prompts, found, strict=True)]
    write_chosen(run.path, [(one.samples, _draw(one, plan.seed)) for one in weighted])
    measure_weighted(plan, run, outcome, weighted, like=like, weights=weights, beta=algorithm.beta)


def _scores(reward: ImplicitReward, prompts: Sequence[PromptSamples], known: dict[str, Prompt]) -> Floats:
    """The implicit reward of every sample, prompt by prompt; by its own tokens where these were kept."""
    rows = []
    for prompt in prompts:
        asked = known.get(prompt.group, prompt.group)  # a prompt of the toy is a group of its own
        for row in prompt.rows:
            tokens = row.get("tokens")
            encoder = reward.base.encoder
            rows.append(
                Encoded(encoder.prompt_ids(asked), tokens)
                if tokens
                else encoder.encode(asked, as_said(str(row["response"]), row.get("finish")))
            )
    scores: Floats = reward.score_encoded(rows).double().numpy()
    return scores


def _refuse_few(algorithm: LogitMixConfig, prompts: Sequence[PromptSamples], ess: Sequence[float]) -> None:
    worst = int(np.argmin(ess))
    if ess[worst] < algorithm.min_ess:
        raise ConfigError(
            f"algorithm.min_ess={algorithm.min_ess:g}: {ess[worst]:.1f} of {len(prompts[worst].rows)} samples of a "
            "prompt carry the weight; take more samples (algorithm.samples) or a larger algorithm.beta"
        )


def _draw(prompt: WeightedPrompt, seed: int) -> int:
    """Index of one sample, drawn by the weights: what the policy says, for the page."""
    number = RandomStream(f"resampled/{prompt.samples.group}", seed=seed, count=1).attempt(0)[0]
    ends_S = prompt.probability_S.cumsum()
    return int(np.searchsorted(ends_S, number * ends_S[-1], side="right"))
