import pytest

from alignlab.config.hydra.overrides import quote_paths
from alignlab.errors import ConfigError


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("algorithm.adapter=runs/w=0.5/adapter", "algorithm.adapter='runs/w=0.5/adapter'"),
        ("algorithm.runs=[a/w=0, b]", "algorithm.runs=['a/w=0', b]"),
        ("algorithm.adapter=x/w=0,y/w=1", "algorithm.adapter='x/w=0','y/w=1'"),
        ("w=0.5", "w=0.5"),
        ("w=[0.5,0.5]", "w=[0.5,0.5]"),
        ("algorithm.adapter='a/w=0'", "algorithm.adapter='a/w=0'"),
        ("--config-dir=a=b", "--config-dir=a=b"),
        ("dataset.path=my rows (1).jsonl", "dataset.path='my rows (1).jsonl'"),
        ("dataset.path=a,b", "dataset.path=a,b"),
        ("model.prompt_template=null", "model.prompt_template=null"),
        ("model.prompt_template='USER: {raw_prompt}'", "model.prompt_template='USER: {raw_prompt}'"),
        ("model.name={a}", "model.name={a}"),
    ],
)
def test_only_what_hydra_cannot_read_is_quoted(given, wanted):
    assert quote_paths([given]) == [wanted]


TEMPLATES = [
    "BEGINNING OF CONVERSATION: USER: {raw_prompt} ASSISTANT:",
    "{raw_prompt}",
    "user: {raw_prompt} assistant: ",
    "[INST] {raw_prompt} [/INST]",
    'It\'s "{raw_prompt}", a=b; 100% ~ #1 (é) \\',
    "<|user|>{raw_prompt}, then",
    "\n\nHuman:\n{raw_prompt}\n\nAssistant:\n",
]


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_means_itself_as_typed(runs_of, template):
    for multirun in (False, True):
        given = quote_paths([f"model.prompt_template={template}"])
        (config,) = runs_of(*given, multirun=multirun)
        assert config.model.prompt_template == template


def test_a_line_break_that_is_none_is_refused(runs_of):
    with pytest.raises(ConfigError, match=r"model.prompt_template=.*as two characters"):
        runs_of(*quote_paths([r"model.prompt_template=Q: {raw_prompt}\nA:"]))
