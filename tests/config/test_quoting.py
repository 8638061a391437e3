import pytest

from alignlab.config.overrides import quote_paths


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
    ],
)
def test_only_values_with_an_equals_sign_are_quoted(given, wanted):
    assert quote_paths([given]) == [wanted]
