"""What alignlab allows on a command line beyond Hydra's own grammar."""

import re
from collections.abc import Sequence

_NEW_REWARD = re.compile(r"algorithm\.rewards\.\w+\.\w+=")


def admit_new_rewards(argv: Sequence[str]) -> list[str]:
    """Lets `algorithm.rewards.safer.beta=0.1` add an objective's reward without Hydra's `++` prefix.

    The mapping starts empty, because its names come from the dataset; Hydra would call the key unknown.
    """
    return [f"++{argument}" if _NEW_REWARD.match(argument) else argument for argument in argv]
