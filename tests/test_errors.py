from __future__ import annotations

import pytest

from edgekd.errors import EdgekdError, GateError, InputError, UsageError, unknown_name


@pytest.mark.parametrize(("error", "code"), [(EdgekdError, 1), (UsageError, 2), (InputError, 3), (GateError, 4)])
def test_each_kind_of_error_has_its_exit_code(error: type[EdgekdError], code: int) -> None:
    assert error("line").exit_code == code
    assert isinstance(error("line"), EdgekdError)
    assert str(error("line")) == "line"


def test_unknown_name_suggests_the_nearest_and_lists_all() -> None:
    error = unknown_name("student", "hltdn", ("hltdnn_ds", "hltdnn"))
    assert isinstance(error, UsageError)
    assert str(error) == "Unknown student 'hltdn'. Did you mean 'hltdnn'? Valid: hltdnn, hltdnn_ds."


def test_unknown_name_suggests_nothing_where_nothing_is_near() -> None:
    assert str(unknown_name("teacher", "zzz", ["yamnet"])) == "Unknown teacher 'zzz'. Valid: yamnet."
