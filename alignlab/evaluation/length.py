"""How much of a margin or of a gain is length: reward models and labels often pay for longer responses."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from alignlab.stats import Interval, clustered_slope, mean_interval, share_interval
from alignlab.stats.groups import Floats


def length_of_pairs(
    name: str, margins: Floats, differences: Floats, groups: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """What an objective's labels and a policy's margins have to do with length.

    `NAME_longer_chosen` is the share of pairs whose better response is the longer one; of equal length counts one half.
    `NAME_margin_length` is the correlation, through the origin, of margin and length difference.

    Args:
        name: the objective.
        margins: score of the better minus the worse response of every pair, shape (n,).
        differences: length of the better minus the worse one, shape (n,).
        groups: the prompt group of every pair.
    """
    longer = np.where(differences == 0, 0.5, differences > 0)
    sizes = [float(np.sqrt(np.square(column).mean())) if len(column) else 0.0 for column in (margins, differences)]
    found = {f"{name}_longer_chosen": share_interval(longer, groups).as_record()}
    if all(sizes):
        slope = clustered_slope(margins / sizes[0], differences / sizes[1], groups)
        found[f"{name}_margin_length"] = slope.as_record()
    return found


def gain_at_equal_length(
    name: str, own: Sequence[Mapping[str, Any]], reference: Sequence[Mapping[str, Any]]
) -> Interval | None:
    """The gain over the reference less what the change of length explains; None where no slope can be told.

    The slope of the score on tokens is that between the reference's own responses to one prompt, so it needs two of
    them. The interval is over prompts, by jackknife, so that it holds the slope's uncertainty too.

    Args:
        name: column of the score.
        own: the policy's rows, with `group`, `tokens` and the score.
        reference: the reference's.
    """
    before, after = _by_prompt(name, reference), _by_prompt(name, own)
    prompts = [prompt for prompt in before if prompt in after]
    if len(prompts) < 2:
        return None
    centred = [before[prompt] - before[prompt].mean(axis=0) for prompt in prompts]
    across_P = np.array([rows[:, 0] @ rows[:, 1] for rows in centred])
    power_P = np.array([np.square(rows[:, 1]).sum() for rows in centred])
    change_P2 = np.array([after[prompt].mean(axis=0) - before[prompt].mean(axis=0) for prompt in prompts])
    if not (power_P.sum() - power_P > 0).all():  # one prompt alone would tell the slope
        return None
    number = len(prompts)
    slopes_P = (across_P.sum() - across_P) / (power_P.sum() - power_P)
    others_P2 = (change_P2.sum(axis=0) - change_P2) / (number - 1)
    without_P = others_P2[:, 0] - slopes_P * others_P2[:, 1]
    whole = change_P2[:, 0].mean() - across_P.sum() / power_P.sum() * change_P2[:, 1].mean()
    pseudo = number * whole - (number - 1) * without_P  # their mean is the jackknife's estimate (Quenouille 1956)
    return mean_interval(pseudo.tolist(), prompts)


def _by_prompt(name: str, rows: Sequence[Mapping[str, Any]]) -> dict[Hashable, Floats]:
    """Prompt -> score and tokens of its responses with a known score, shape (n, 2)."""
    held: dict[Hashable, list[list[float]]] = {}
    for row in rows:
        if row.get(name) is not None and row.get("tokens") is not None:
            held.setdefault(row["group"], []).append([float(row[name]), float(row["tokens"])])
    return {group: np.array(values) for group, values in held.items()}
