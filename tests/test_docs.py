"""What the documents say is there: links, anchors, commands and options, settings, Python, files."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
from typer.core import TyperGroup

import edgekd
from edgekd.cli.app import COMMANDS
from edgekd.cli.options import combine
from edgekd.config import DistillConfig, parse
from edgekd.errors import UsageError
from edgekd.exporting.targets import Target
from edgekd.microcontrollers.c.cores import CORES
from edgekd.microcontrollers.c.folder import makefile
from edgekd.quantization.calibration import CalibrationRecipe

ROOT = Path(edgekd.__file__).parents[1]
if not (ROOT / "README.md").is_file():
    pytest.skip("edgekd is installed, not a checkout", allow_module_level=True)

HISTORY = ROOT / "CHANGELOG.md"  # tells of names that are gone
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PRESENT = [document for document in DOCUMENTS if document != HISTORY]
README_LINES = 156
Refused = typer.BadParameter.__mro__[2]  # ClickException: typer's own, or that of click


def name_of(document: Path) -> str:
    return document.relative_to(ROOT).as_posix()


class Block(NamedTuple):
    """A code block: its language (empty for an indented one), its text and the line it begins in."""

    language: str
    text: str
    line: int


def blocks(document: Path) -> list[Block]:
    found: list[Block] = []
    language: str | None = None
    lines: list[str] = []
    began = 0
    for number, line in enumerate(document.read_text(encoding="utf-8").splitlines(), 1):
        fence = re.match(r"```(\w*)\s*$", line)
        if fence and language is None:
            _close(found, "", lines, began)
            language, lines, began = fence[1], [], number + 1
        elif fence:
            _close(found, language or "text", lines, began)
            language, lines = None, []
        elif language is not None:
            lines.append(line)
        elif line.startswith("    ") or (lines and not line.strip()):
            began = began if lines else number
            lines.append(line.removeprefix("    "))
        else:
            _close(found, "", lines, began)
            lines = []
    _close(found, "", lines, began)
    return found


def _close(found: list[Block], language: str, lines: list[str], began: int) -> None:
    if any(line.strip() for line in lines):
        found.append(Block(language, "\n".join(lines) + "\n", began))


def prose(document: Path) -> str:
    """The text without its code blocks."""
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"^    .*$", "", text, flags=re.MULTILINE)


# Links


def anchors(document: Path) -> set[str]:
    """Of the headings, as GitHub makes them."""
    found: list[str] = []
    for heading in re.findall(r"^#+ +(.*)$", prose(document), flags=re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower().strip()
        found.append(re.sub(r"[^\w\- ]", "", plain).replace(" ", "-"))
    return set(found)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_relative_link_and_anchor_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        where = document.parent / path if path else document
        assert where.exists(), f"{target}: no such file"
        if anchor:
            assert anchor in anchors(where), f"{target}: no such heading; there are {sorted(anchors(where))}"


# Commands


def commands(document: Path) -> Iterator[list[str]]:
    """What is typed in the code blocks, as words, without comments, redirections and what stands before the program."""
    for block in blocks(document):
        if block.language not in ("", "sh"):
            continue
        text = re.sub(r"\$\(.*?\)(?=\s|$)", "", block.text.replace("\\\n", " "), flags=re.MULTILINE)
        for line in text.splitlines():
            if not re.search(r"\b(edgekd|edgekd_runner\.py|make|python3?)\b", line):
                continue
            try:
                words = shlex.split(line, comments=True)
            except ValueError:  # a line of something else, with an apostrophe in it
                continue
            for piece in _pieces(words):
                if piece:
                    yield piece


def _pieces(words: list[str]) -> Iterator[list[str]]:
    """The commands of a pipeline, without what is redirected."""
    piece: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in ("|", "&&", "||", ";"):
            yield piece
            piece = []
        elif word in (">", ">>", "<"):
            skip = True
        else:
            piece.append(word)
    yield piece


def _called(document: Path, program: str) -> Iterator[list[str]]:
    """The arguments that `program` is called with; `python -m PROGRAM` and what starts it count too."""
    for words in commands(document):
        starters = ("python", "python3") if program.endswith(".py") else (program, "torchrun", "srun", "python")
        if words[0] in starters and program in words:
            yield [word for word in words[words.index(program) + 1 :] if word != "..."]


@cache
def command_of(name: str) -> Any:
    """A command of the real command line, built and not run."""
    command = COMMANDS[name]
    if isinstance(command, typer.Typer):
        return typer.main.get_group(command)
    alone = typer.Typer(add_completion=False)
    alone.command(name)(command)
    return typer.main.get_command(alone)


def check_call(arguments: list[str]) -> None:
    """Raise `AssertionError` for a command, an option or a value that the command line would refuse."""
    if not arguments or arguments[0] in ("--help", "-h", "--version"):
        return
    name, *rest = arguments
    assert name in COMMANDS, f"edgekd {name}: no such command"
    command = command_of(name)
    while isinstance(command, TyperGroup) and rest and not rest[0].startswith("-"):
        context = typer.Context(command, info_name=name)
        name, inner, rest = command.resolve_command(context, rest)
        assert inner is not None
        command = inner
    if "--help" in rest:
        return
    try:
        command.make_context(name or "", list(rest))
    except Refused as refused:
        raise AssertionError(f"edgekd {' '.join(arguments)}: {refused.format_message()}") from None
    sets = [value for option, value in pairwise(rest) if option == "--set"]
    combine(None, {}, sets)  # raises `UsageError` for a setting that there is not


@pytest.mark.parametrize("document", PRESENT, ids=name_of)
def test_every_command_parses(document: Path) -> None:
    for arguments in _called(document, "edgekd"):
        check_call(arguments)


def test_the_commands_are_found() -> None:
    """So that no change of how code is marked makes the tests here pass over it."""
    calls = [arguments for document in PRESENT for arguments in _called(document, "edgekd")]
    assert len(calls) > 50
    assert {name for name, *_ in calls} >= set(COMMANDS) - {"doctor", "demo"}
    assert sum(block.language == "python" for document in PRESENT for block in blocks(document)) > 5


def test_a_command_that_would_be_refused_is_seen() -> None:
    for wrong in (
        "distil",
        "distill --data-dirr x",
        "export RUN",
        "export RUN --targets cpu",
        "profile RUN --threads x",
    ):
        with pytest.raises(AssertionError):
            check_call(wrong.split())
    with pytest.raises(UsageError, match=r"unknown key 'loss\.bandwith'"):
        check_call(["distill", "--set", "loss.bandwith=paper"])


@cache
def runner_help(command: str) -> str:
    """`--help` of a command of the on-device runner."""
    runner = ROOT / "edgekd" / "device" / "edgekd_runner.py"
    done = subprocess.run([sys.executable, runner, command, "--help"], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("document", PRESENT, ids=name_of)
def test_every_command_of_the_runner_is_there(document: Path) -> None:
    for name, *rest in _called(document, "edgekd_runner.py"):
        for option in (word for word in rest if word.startswith("--")):
            assert re.search(rf"{option}\b", runner_help(name)), f"edgekd_runner.py {name} {option}"
        assert runner_help(name)


@pytest.mark.parametrize("document", PRESENT, ids=name_of)
def test_every_make_target_and_module_that_is_run_is_there(document: Path) -> None:
    makefiles = [(ROOT / "Makefile").read_text()]
    if document.name == "microcontrollers.md":  # a bundle of C has its own
        makefiles.append(makefile(CORES["cortex-m4"]))
    targets = set(re.findall(r"^(\w+):", "".join(makefiles), flags=re.MULTILINE))
    for words in commands(document):
        if words[0] == "make":
            assert set(words[1:]) <= targets
        if words[0].startswith("python") and words[1:2] == ["-m"]:
            assert words[2] in ("pytest", "pip", "venv") or is_there(words[2]), f"python -m {words[2]}"


@pytest.mark.parametrize("document", PRESENT, ids=name_of)
def test_every_command_and_option_named_in_the_text_is_there(document: Path) -> None:
    known = all_options()
    for inline in re.findall(r"`([^`\n]+)`", prose(document)):
        named = re.match(r"(edgekd|edgekd_runner\.py) ([a-z][a-z-]*)", inline)
        if named:
            assert named[2] in (COMMANDS if named[1] == "edgekd" else RUNNER_COMMANDS), f"`{inline}`"
        for option in re.findall(r"(?<!\S)--[a-z][a-z-]*", inline):
            assert option in known, f"`{inline}`"


RUNNER_COMMANDS = ("verify", "predict", "detect", "stream", "bench", "choose")
OTHERS = {"--max-restarts", "--no-python", "--nproc-per-node", "--slow", "--no-deps"}
"""Of torchrun, of pytest with this project's conftest."""


@cache
def all_options() -> set[str]:
    found = set(OTHERS)
    pending = [command_of(name) for name in COMMANDS]
    while pending:
        command = pending.pop()
        found |= {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        if isinstance(command, TyperGroup):
            pending += command.commands.values()
    for name in RUNNER_COMMANDS:
        found |= set(re.findall(r"--[a-z-]+", runner_help(name)))
    return found


# Settings


@pytest.mark.parametrize("document", PRESENT, ids=name_of)
def test_every_toml_block_is_valid(document: Path) -> None:
    kinds = (DistillConfig, Target, CalibrationRecipe)
    for block in blocks(document):
        if block.language != "toml":
            continue
        values, refusals = tomllib.loads(block.text), []
        for kind in kinds:
            try:
                parse(kind, values, kind.__name__)
            except UsageError as refusal:
                refusals.append(str(refusal))
        assert len(refusals) < len(kinds), f"line {block.line}: {refusals}"


@pytest.mark.parametrize("document", PRESENT, ids=name_of)
def test_every_setting_named_in_the_text_is_there(document: Path) -> None:
    sections = {name for name, field in DistillConfig.model_fields.items() if hasattr(field.annotation, "model_fields")}
    for inline in re.findall(r"`([^`\n]+)`", prose(document)):
        setting = re.match(r"([a-z]+)\.([a-z_]+)(?: = .*)?$", inline)
        if setting and setting[1] in sections and setting[2] not in ("toml", "json", "py"):
            fields = DistillConfig.model_fields[setting[1]].annotation.model_fields  # type: ignore[union-attr]
            assert setting[2] in fields, f"`{inline}`"


# Python


def module_file(dotted: str) -> Path | None:
    """The file of a module of this checkout."""
    path = ROOT.joinpath(*dotted.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((candidate for candidate in candidates if candidate.is_file()), None)


@cache
def defined(module: Path) -> set[str]:
    """The names at the top of a module."""
    names: set[str] = set()
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return names


def is_there(dotted: str) -> bool:
    """Whether `edgekd.a.b` is a module, a folder of modules, or `b` a name in `edgekd.a`; read, not imported."""
    module, _, name = dotted.rpartition(".")
    if dotted == "edgekd" or module_file(dotted) is not None:
        return True
    if module == "edgekd":
        return name in edgekd.__all__
    file = module_file(module)
    if file is not None:
        return name in defined(file)
    return module.rpartition(".")[2][:1].isupper() and is_there(module)  # a method: is its class there?


@pytest.mark.parametrize("document", PRESENT, ids=name_of)
def test_python_blocks_compile_and_their_imports_are_there(document: Path) -> None:
    for block in blocks(document):
        if block.language != "python":
            continue
        tree = ast.parse(block.text, f"{name_of(document)}, line {block.line}")
        new = {path.removesuffix(".py").replace("/", ".") for path in written_by_the_reader(document)}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "edgekd":
                for alias in node.names:
                    named = f"{node.module}.{alias.name}"
                    assert {node.module, named} & new or is_there(named), (
                        f"line {block.line + node.lineno - 1}: {named}"
                    )
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "edgekd":
                assert is_there(f"edgekd.{node.attr}"), f"line {block.line + node.lineno - 1}"


def written_by_the_reader(document: Path) -> set[str]:
    """Files that a page has the reader write: their names are comments at the top of code blocks."""
    first = (block.text.splitlines()[0] for block in blocks(document))
    return {line.removeprefix("# ") for line in first if line.startswith("# ")}


@pytest.mark.parametrize("document", PRESENT, ids=name_of)
def test_every_file_and_name_of_the_package_is_there(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    new = written_by_the_reader(document)
    for path in re.findall(r"\b(?:edgekd|tests|targets|calibration|examples|docs)/[\w./-]*\w", text):
        file = path.rstrip("/.")
        if Path(file).suffix in (".py", ".toml", ".md") and file not in new:
            assert (ROOT / file).is_file(), file
    for dotted in re.findall(r"`(edgekd(?:\.\w+)+)[`(]", prose(document)):
        assert is_there(dotted), dotted


@pytest.mark.parametrize("script", sorted((ROOT / "examples").glob("*.py")), ids=name_of)
def test_the_examples_name_what_is_there(script: Path) -> None:
    tree = ast.parse(script.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "edgekd":
            assert all(is_there(f"{node.module}.{alias.name}") for alias in node.names), ast.unparse(node)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "edgekd":
            assert is_there(f"edgekd.{node.attr}"), node.attr


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < README_LINES


def test_the_lazy_names_of_the_readme_are_the_public_ones() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in edgekd.__all__:
        assert f"edgekd.{name}" in text, name


def test_every_page_is_linked_from_the_readme() -> None:
    linked = set(re.findall(r"\]\((docs/[^)#]+)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert {name_of(page) for page in (ROOT / "docs").rglob("*.md")} == linked
