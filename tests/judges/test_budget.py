"""What a server says that its answers cost."""

import pytest

from alignlab.judges.budget import _count


@pytest.mark.parametrize("said", [-5, True, 2.5, "9", None])
def test_a_count_that_is_none_is_not_believed(said):
    assert _count(said) is None
    assert _count(9) == 9
