"""What `--help` prints: how to call alignlab, the groups with their choices, every setting. Imports no torch."""

from collections.abc import Sequence

from hydra import compose
from omegaconf import OmegaConf

from alignlab.config.hydra.compose import choices_of, config_groups

_USAGE = """\
alignlab: balance a language model's helpfulness and safety, and see what the balance costs.

  python -m alignlab                                    MODPO at w=0.5 on the embedded default, on a CPU
  python -m alignlab algorithm=modpo w=0.3 seed=1       settings are key=value, groups are group=choice
  python -m alignlab -m w=0.1,0.5,0.9                   a sweep: a run for each value, then a front
  python -m alignlab --config-name w_front              a sweep from sweeps/

  --cfg job          print the settings of a run and stop
  --config-name X    a preset: {presets}
  --config-dir DIR   a folder of your own choices, laid out as conf/
  -m, --multirun     run every combination of the values given
  --hydra-help       Hydra's own flags
"""


def help_text(config_name: str, overrides: Sequence[str]) -> str:
    """The whole help. Needs Hydra to be set up."""
    presets = ", ".join(name for name in choices_of("") if name != "config")
    groups = "\n".join(f"  {group:<11}{', '.join(choices_of(group))}" for group in config_groups())
    plain = OmegaConf.to_yaml(compose(config_name, overrides=list(overrides)))
    settings = "\n".join(f"  {line}" for line in plain.splitlines())
    return f"{_USAGE.format(presets=presets)}\nGroups:\n{groups}\n\nSettings:\n{settings}"
