"""Names from users and files (classes, tensors, hosts, paths, cells) as plain letters, in each medium that shows them.

A name may hold anything a file system or a CSV file can. In every medium, line breaks and tabs become spaces, so that a
name cannot end a row or a message; other control characters, and those that turn the direction of writing, become their
codes (`\\x1b`), so that none can recolour a terminal or hide what a reader copies. Each medium's function does this,
and then takes the meaning from what the medium itself takes for markup. In tables that edgekd reads back, line breaks
have codes too, and `from_csv_text` gives back what was written.
"""

from __future__ import annotations

import html
import json
import re
import sys
from typing import Any, TextIO

_SPACES = re.compile("[\t\n\x0b\x0c\r\x1c-\x1f\x85\u2028\u2029]")
_SPACES_BUT_LINES = re.compile("[\t\x0b\x0c\r\x1c-\x1f\x85\u2028\u2029]")
_CODES = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# An underscore within a word begins nothing: what is copied from a page that is not rendered stays right.
_MARKDOWN = re.compile(r"[\\`*\[\]<>|#~$&]|(?<![^\W_])_|_(?![^\W_])|^[-+](?=\s)")
_NUMBERED = re.compile(r"^(\d+)([.)])(?=\s)")  # would begin a list
_CODED = re.compile(f"{_SPACES.pattern}|{_CODES.pattern}".replace("]|[", ""))
_OBEYED = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_LIKE_A_CODE = re.compile(r"\\(?=x[0-9a-f]{2}|u[0-9a-f]{4})")
_CODE = re.compile(r"\\x([0-9a-f]{2})|\\u([0-9a-f]{4})")
_FORMULA = re.compile(r"'*\s*[=+\-@＝＋－＠]")  # noqa: RUF001 (a spreadsheet reads the wide ones alike)


def terminal_text(content: str, stream: TextIO | None = None) -> str:
    """`content` as one line for a terminal: nothing in it moves the cursor, and what the encoding of `stream` (standard
    output where None) has no letter for is a question mark, a minus sign a hyphen."""
    shown = plain_text(content)
    encoding = (stream or sys.stdout).encoding or "utf-8"
    try:
        shown.encode(encoding)
    except UnicodeEncodeError:
        shown = shown.replace("\N{MINUS SIGN}", "-").encode(encoding, "replace").decode(encoding)
    return shown


def html_text(content: str) -> str:
    """`content` as text or as the value of an attribute in HTML and SVG."""
    return html.escape(plain_text(content), quote=True)


def html_command(content: str) -> str:
    """A command for a `<pre>`: its line breaks are part of it."""
    return html.escape(plain_text(content, lines=True), quote=True)


def markdown_text(content: str) -> str:
    """`content` in a paragraph, a list or a cell of GitHub's Markdown."""
    return _NUMBERED.sub(r"\1\\\2", _MARKDOWN.sub(r"\\\g<0>", plain_text(content).strip()))


def markdown_command(content: str) -> str:
    """A command as a fenced block, the fence longer than any run of backticks in it."""
    fence = "`" * (3 + content.count("`"))
    return f"{fence}sh\n{plain_text(content, lines=True)}\n{fence}"


def csv_text(content: str) -> str:
    """`content` as a cell. A spreadsheet would run what begins like a formula, so an apostrophe is set before that."""
    coded = _CODED.sub(lambda match: _code(ord(match[0])), _LIKE_A_CODE.sub(r"\\x5c", content))
    return f"'{coded}" if _FORMULA.match(coded) else coded


def from_csv_text(cell: str) -> str:
    """What `csv_text` made `cell` of."""
    coded = cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
    return _CODE.sub(lambda match: chr(int(match[1] or match[2], 16)), coded)


def json_text(value: Any, indent: int | None = None) -> str:
    """`value` as JSON, in letters as they are but for those that a terminal would obey and JSON leaves alone."""
    written = json.dumps(value, indent=indent, ensure_ascii=False)
    return _OBEYED.sub(lambda match: f"\\u{ord(match[0]):04x}", written)


def shortened(name: str, letters: int) -> str:
    """`name` in at most `letters`; what is left out is in the middle, as names tell most at their ends."""
    if len(name) <= letters:
        return name
    head = (letters - 1) // 2
    return f"{name[:head]}…{name[len(name) - (letters - 1 - head) :]}"


def legible(text: str) -> str:
    """`text`, where a byte of a file's name that is no UTF-8 (a surrogate, to Python) is its code: `\\udce9`, as in
    JSON."""
    return text.encode("utf-8", "backslashreplace").decode()


def is_utf8(name: str) -> bool:
    """Whether a file's name can stand in a table, an archive or a page: whether it is `legible` as it is."""
    return name == legible(name)


def plain_text(content: str, lines: bool = False) -> str:
    """`content` with nothing in it that is no letter; with `lines` its line breaks stay."""
    spaced = (_SPACES_BUT_LINES if lines else _SPACES).sub(" ", content)
    return _CODES.sub(lambda match: _code(ord(match[0])), spaced)


def _code(point: int) -> str:
    return f"\\x{point:02x}" if point < 0x100 else f"\\u{point:04x}"
