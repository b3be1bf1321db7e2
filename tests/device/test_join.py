"""The file that ships against the parts it is joined from."""

from __future__ import annotations

import ast

import pytest

from edgekd.device import RUNNER_FILE
from edgekd.device.join import ISOLATED, PARTS, join, sources


def definitions(text: str) -> dict[str, str]:
    """The text of every function, class and constant of a module, by the first line of it."""
    lines = text.splitlines()
    result = {}
    for node in ast.parse(text).body:
        if not isinstance(node, ast.Import | ast.ImportFrom | ast.Expr | ast.Try):
            first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", ()))])
            result[lines[node.lineno - 1]] = "\n".join(lines[first - 1 : node.end_lineno])
    return result


def test_the_file_that_ships_is_its_parts_joined() -> None:
    joined = RUNNER_FILE.read_text(encoding="utf-8")
    assert joined == join(sources()), "its parts were changed: python -m edgekd.device.join writes it anew"


def test_the_file_that_ships_defines_what_its_parts_define_and_nothing_else() -> None:
    parts: dict[str, str] = {}
    for text in sources().values():
        parts |= definitions(text)
    assert len(parts) > 60
    joined = definitions(RUNNER_FILE.read_text(encoding="utf-8"))
    first = next(iter(joined))
    assert joined.pop(first) in ISOLATED
    assert joined == parts


def test_no_part_is_imported_by_the_file_that_ships() -> None:
    assert "edgekd.device.runner" not in RUNNER_FILE.read_text(encoding="utf-8")


def test_the_usage_of_the_command_line_opens_the_file_that_ships() -> None:
    text = RUNNER_FILE.read_text(encoding="utf-8")
    assert text.startswith('#!/usr/bin/env python3\n"""Run the classifier in this folder')
    assert ast.get_docstring(ast.parse(text)) == ast.get_docstring(ast.parse(sources()["commands"]))


def test_each_part_has_a_section_in_order() -> None:
    lines = RUNNER_FILE.read_text(encoding="utf-8").splitlines()
    assert [line.strip("# -") for line in lines if line.startswith("# --- ")] == list(PARTS.values())


ONE = '"""One."""\n\nimport os\nfrom typing import Any\n\nimport numpy as np\n\nX: Any = np.pi  # pi\n'
TWO = (
    '"""Two.\n\nMore."""\n\nimport os\nimport abc\nfrom typing import IO\n\n'
    "from edgekd.device.runner.errors import X\n\n# Why.\nY = X\n"
)


def test_imports_are_merged_and_bodies_are_taken_over_with_their_comments() -> None:
    joined = join({"errors": ONE, "bundle": TWO, "commands": ONE.replace("X:", "Z:").replace("One", "Usage")})
    assert joined.count("import os\n") == joined.count("import numpy as np\n") == 1
    assert "import abc\nfrom typing import IO, Any\n" in joined
    assert "# One.\n" in joined
    assert "# Two.\n#\n# More.\n" in joined
    assert "# Why.\nY = X\n" in joined
    assert "X: Any = np.pi  # pi\n" in joined
    assert '"""Usage.\n"""' in joined


def test_a_name_that_two_parts_define_is_refused() -> None:
    with pytest.raises(ValueError, match="defined in more than one part: X"):
        join({"errors": ONE, "bundle": ONE})
