"""What a run left: read as it was written, and unknown where it is another thing."""

import json

import pytest

from alignlab.runs.result import RESULT, RunResult, read_result, write_result

DONE = RunResult("done", "modpo", metrics={"kl": {"mean": 0.1}}, files={"adapter/model": "ab"}, extra={"rows": 3})


def test_a_result_comes_back_as_it_was_written(tmp_path):
    write_result(tmp_path, DONE)
    assert read_result(tmp_path) == DONE


@pytest.mark.parametrize("name", ["files", "metrics", "inputs", "artifacts"])
def test_a_field_that_is_no_mapping_makes_it_unreadable(tmp_path, name):
    (tmp_path / RESULT).write_text(json.dumps({**DONE.to_json(), name: ["a", "list"]}))
    assert read_result(tmp_path) is None
    with pytest.raises(ValueError, match=f"{name}: must be an object"):
        RunResult.from_json({**DONE.to_json(), name: ["a", "list"]})
