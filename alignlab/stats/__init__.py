"""Every mean, share, difference and interval of alignlab. Imports no other part of it, and no torch.

Values of one group (samples of one prompt) are alike, so every interval knows its groups and none is given below two.
"""

from alignlab.stats.crossed import FEWEST_SEEDS, Estimate, crossed_means
from alignlab.stats.differences import Difference, holm, paired_difference, records_by_holm
from alignlab.stats.groups import bootstrap_weights, percentile_bounds
from alignlab.stats.interval import Bounds, Interval
from alignlab.stats.judge_errors import JudgeErrors, corrected_shares
from alignlab.stats.means import clustered_slope, mean_interval, perplexity, ratio_interval, token_loss
from alignlab.stats.shares import groups_needed, pair_accuracy, pooled_share, share_interval

__all__ = [
    "FEWEST_SEEDS",
    "Bounds",
    "Difference",
    "Estimate",
    "Interval",
    "JudgeErrors",
    "bootstrap_weights",
    "clustered_slope",
    "corrected_shares",
    "crossed_means",
    "groups_needed",
    "holm",
    "mean_interval",
    "pair_accuracy",
    "paired_difference",
    "percentile_bounds",
    "perplexity",
    "pooled_share",
    "ratio_interval",
    "records_by_holm",
    "share_interval",
    "token_loss",
]
