from __future__ import annotations

import errno

import pytest

from edgekd.errors import EdgekdError, GateError, InputError, UsageError, check_all, explained, unknown_name


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


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (UsageError("what, where"), "error: what, where", 2),
        (GateError("what, where"), "error: what, where", 4),
        (
            PermissionError(errno.EACCES, "Permission denied", "/srv/run"),
            "error: /srv/run: Permission denied. Check the path, its permissions and the space on its disk.",
            3,
        ),
        (
            OSError("libcudart.so.12: cannot open"),
            "unforeseen failure: OSError: libcudart.so.12: cannot open (EDGEKD_DEBUG=1 shows where)",
            1,
        ),
        (ZeroDivisionError("x"), "unforeseen failure: ZeroDivisionError: x (EDGEKD_DEBUG=1 shows where)", 1),
    ],
)
def test_every_end_of_a_process_has_a_line_and_an_exit_code(error: Exception, line: str, code: int) -> None:
    assert explained(error) == (line, code)


def test_all_wrong_usage_is_told_at_once_and_anything_else_by_itself() -> None:
    def wrong(error: EdgekdError) -> None:
        raise error

    check_all([lambda: None])
    with pytest.raises(UsageError, match=r"^first second$"):
        check_all([lambda: wrong(UsageError("first")), lambda: None, lambda: wrong(UsageError("second"))])
    with pytest.raises(InputError, match="a file"):
        check_all([lambda: wrong(UsageError("first")), lambda: wrong(InputError("a file"))])
