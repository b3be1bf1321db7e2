"""Names from users and files (classes, hosts, paths, data sets) as plain letters, in each medium of a report.

A name may hold anything a file system or a CSV file can. In every medium, line breaks and tabs become spaces, so that a
name cannot end a row or a message; other control characters, and those that turn the direction of writing, become their
codes (`\\x1b`), so that none can recolour a terminal or hide what a reader copies. Each medium's function does this,
and then takes the meaning from what the medium itself takes for markup.
"""

from __future__ import annotations

import html
import re
import sys

_SPACES = re.compile("[\t\n\x0b\x0c\r\x1c-\x1f\x85\u2028\u2029]")
_SPACES_BUT_LINES = re.compile("[\t\x0b\x0c\r\x1c-\x1f\x85\u2028\u2029]")
_CODES = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_MARKDOWN = re.compile(r"[\\`*_\[\]<>|#~$&]|^[-+](?=\s)")
_NUMBERED = re.compile(r"^(\d+)([.)])(?=\s)")  # would begin a list
_FORMULA = ("=", "+", "-", "@")


def terminal_text(content: str) -> str:
    """`content` as one line for standard output: nothing in it moves the cursor, and what its encoding has no letter
    for is a question mark, a minus sign a hyphen."""
    shown = _plain(content)
    encoding = sys.stdout.encoding or "utf-8"
    try:
        shown.encode(encoding)
    except UnicodeEncodeError:
        shown = shown.replace("\N{MINUS SIGN}", "-").encode(encoding, "replace").decode(encoding)
    return shown


def html_text(content: str) -> str:
    """`content` as text or as the value of an attribute in HTML and SVG."""
    return html.escape(_plain(content), quote=True)


def html_command(content: str) -> str:
    """A command for a `<pre>`: its line breaks are part of it."""
    return html.escape(_plain(content, lines=True), quote=True)


def markdown_text(content: str) -> str:
    """`content` in a paragraph, a list or a cell of GitHub's Markdown."""
    return _NUMBERED.sub(r"\1\\\2", _MARKDOWN.sub(r"\\\g<0>", _plain(content).strip()))


def markdown_command(content: str) -> str:
    """A command as a fenced block, the fence longer than any run of backticks in it."""
    fence = "`" * (3 + content.count("`"))
    return f"{fence}sh\n{_plain(content, lines=True)}\n{fence}"


def csv_text(content: str) -> str:
    """`content` as a cell. A spreadsheet would run what begins like a formula, so an apostrophe is set before that."""
    plain = _plain(content)
    return f"'{plain}" if plain.lstrip().startswith(_FORMULA) else plain


def shortened(name: str, letters: int) -> str:
    """`name` in at most `letters`; what is left out is in the middle, as names tell most at their ends."""
    if len(name) <= letters:
        return name
    head = (letters - 1) // 2
    return f"{name[:head]}…{name[len(name) - (letters - 1 - head) :]}"


def _plain(content: str, lines: bool = False) -> str:
    spaced = (_SPACES_BUT_LINES if lines else _SPACES).sub(" ", content)
    return _CODES.sub(lambda match: _code(ord(match[0])), spaced)


def _code(point: int) -> str:
    return f"\\x{point:02x}" if point < 0x100 else f"\\u{point:04x}"
