"""What the metrics of a front mean: a label with its unit, and which way is better."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Meaning:
    """What one metric says."""

    label: str
    better: int
    """1: higher is better, -1: lower is better, 0: not known."""

    def as_record(self, name: str) -> dict[str, Any]:
        """For the page."""
        return {"name": name, **asdict(self)}


_KNOWN = {
    "kl": Meaning("KL to the reference (nats)", -1),
    "kl_per_token": Meaning("KL to the reference (nats/token)", -1),
    "kl_to_optimum": Meaning("KL to the optimum (nats)", -1),
    "attained_share": Meaning("attained share of the possible gain", 1),
    "well_formed": Meaning("share of well-formed answers", 1),
    "length": Meaning("length (tokens)", -1),
    "tokens": Meaning("response length (tokens)", 0),
    "cut": Meaning("share cut at the length limit", -1),
    "empty": Meaning("share of empty responses", -1),
    "over_refusal": Meaning("over-refusal (share of harmless requests refused)", -1),
    "repetition": Meaning("repeated runs of four words (share)", -1),
    "text_loss": Meaning("loss on held-out text (nats/token)", -1),
    "training_seconds": Meaning("training (seconds)", -1),
    "exact_ess": Meaning("effective samples behind the exact figures", 1),
}
CHANGE = "_change"
"""How the name of a paired difference to the reference ends."""
_ENDINGS = (
    ("_accuracy", "{}: share of pairs ranked right", 1),
    ("_margin", "{}: reward margin", 1),
    ("_slope", "{}: slope against the true reward", 1),
    ("_held_out_reward", "{}: mean reward by the held-out scorer", 1),
    ("_reward", "{}: mean reward", 1),
    ("_gain", "{}: gain over the reference", 1),
    ("_gain_at_equal_length", "{}: gain over the reference at equal length", 1),
    ("_longer_chosen", "{}: share of pairs whose preferred response is the longer one", 0),
    ("_margin_length", "{}: correlation of margin and difference in length", 0),
    ("_refusal", "{}: share refused", -1),
    ("_cut", "{}: share cut at the length limit", -1),
    ("_length", "{}: length (tokens)", -1),
    ("_cost", "{}: cost", -1),
    ("_win_rate", "{}: win rate", 1),
)


def meaning(metric: str, *, is_axis: bool = False) -> Meaning:
    """The meaning of a metric by its name; an axis of a front is better higher, whatever it is called.

    Args:
        metric: its name in result.json.
        is_axis: whether an objective is measured by it.
    """
    if metric.endswith(CHANGE):
        whole = meaning(metric.removesuffix(CHANGE))
        return Meaning(f"{whole.label}: change from the reference", whole.better)
    known = _KNOWN.get(metric)
    if known is None:
        found = next((one for one in _ENDINGS if metric.endswith(one[0])), None)
        if found is not None:
            known = Meaning(found[1].format(metric.removesuffix(found[0]).replace("_", " ")), found[2])
    if known is None:
        known = Meaning(metric.replace("_", " "), 0)
    return Meaning(known.label, 1) if is_axis else known
