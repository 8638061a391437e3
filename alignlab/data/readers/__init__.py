"""The closed table of sources: dataset.kind -> how its rows are read."""

from typing import Any

from alignlab.data.readers.forums import SHP, STACK_EXCHANGE_PAIRED, SUMMARIZE_FROM_FEEDBACK
from alignlab.data.readers.hh import HH_RLHF
from alignlab.data.readers.pairs import PAIRS
from alignlab.data.readers.pku import PKU_SAFERLHF
from alignlab.data.readers.prompts import PROMPTS
from alignlab.data.readers.ranked import C2_SYN, RANKED, SCORED
from alignlab.data.readers.single import BEAVERTAILS, HELPSTEER
from alignlab.data.readers.source import Source
from alignlab.data.readers.ultrafeedback import ULTRAFEEDBACK

SOURCES: dict[str, Source[Any]] = {
    "toy": PKU_SAFERLHF,
    "pku_saferlhf": PKU_SAFERLHF,
    "c2_eval": PKU_SAFERLHF,
    "beavertails": BEAVERTAILS,
    "hh_rlhf": HH_RLHF,
    "shp": SHP,
    "stack_exchange_paired": STACK_EXCHANGE_PAIRED,
    "summarize_from_feedback": SUMMARIZE_FROM_FEEDBACK,
    "ultrafeedback": ULTRAFEEDBACK,
    "helpsteer": HELPSTEER,
    "pairs": PAIRS,
    "ranked": RANKED,
    "scored": SCORED,
    "c2_syn": C2_SYN,
    "prompts": PROMPTS,
}
"""dataset.kind -> source."""
