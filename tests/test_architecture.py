"""The house rules of the design, read off the source: who imports whom, who prints, what a command loads."""

from __future__ import annotations

import ast
import graphlib
import os
import re
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

import edgekd
from edgekd.device.join import PARTS

PACKAGE = Path(edgekd.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

FOUNDATIONS = (
    *("errors", "escaping", "section", "task", "toml_files", "front_end", "front_end_presets", "recordings"),
    *("teacher_settings", "config"),
    "json_files",
    *("layers_of_settings", "own_code"),
    *("number_formats", "progress", "resources", "process_setup", "optional_modules", "_torchaudio"),
)
ROOMS = (
    *(
        "files",
        "neighbours",
        "processes",
        "exact_float32",
        "dft_factors",
        "log_mel",
        "audio",
        "events",
        "data",
        "checks",
        "models",
        "losses",
        "runs",
        "scoring",
        "training",
    ),
    *("quantization", "microcontrollers", "exporting", "detection", "experiments", "report", "profiling", "doctor"),
    *("demo", "cli"),
)
ENTRIES = {"cli/app.py", "experiments/worker.py"}  # where a process begins, and turns what ends it into a line

ALLOWED: dict[str, set[str]] = {
    **{room: {*FOUNDATIONS, *ROOMS[:place], room} for place, room in enumerate(ROOMS)},
    **{name: {*FOUNDATIONS[:place], name} for place, name in enumerate(FOUNDATIONS)},
    "device": {"device"},
    "__init__": {*FOUNDATIONS, *ROOMS},  # for type checkers, and when a name is first used
    "ssatkd": {"losses"},
    "__main__": {"cli"},
}
for room in ("audio", "models", "microcontrollers", "exporting", "detection", "profiling", "cli"):
    ALLOWED[room].add("device")  # it resamples, runs bundles, and is copied into them; it needs nobody

# Inside a room: which of its other parts, modules or folders in it, a part imports.
INSIDE: dict[str, dict[str, set[str]]] = {
    "files": {
        **{name: set() for name in ("locks", "caches", "threads", "spelling")},
        "table_text": {"spelling"},
        "csv_table": {"spelling", "table_text"},
        "whole": {"locks"},
        "tables": {"whole"},
        "folders": {"locks", "whole"},
        "row_table": {"caches", "threads"},
    },
    "events": {
        **{name: set() for name in ("event", "names", "matching")},
        "placing": {"event", "names"},
        "columns": {"event"},
        **{name: {"event", "columns"} for name in ("raven", "audacity")},
        "tables": {"event", "names", "columns", "raven", "audacity"},
    },
    "data": {
        "fourier": set(),
        **{name: set() for name in ("disjoint_groups", "index")},
        "walk": {"index"},
        "clip_length": {"index"},
        "simulation": {"fourier"},
        "label_sets": {"index", "background"},
        "layouts": {
            *("index", "label_sets", "walk", "fourier", "simulation", "background"),
            *("deployments", "recording_times", "times_in_names"),
        },
        **{name: set() for name in ("times_in_names", "time_zones", "background")},
        "recording_times": {"index", "times_in_names"},
        "deployments": {"index", "walk", "times_in_names", "time_zones", "recording_times"},
        "unread_tables": {"index", "walk", "layouts"},
        "grouping": {"disjoint_groups", "index", "layouts", "recording_times", "unread_tables"},
        "folds": {"index"},
        "file_names": {"index", "walk", "layouts"},
        "load": {"index", "walk", "layouts", "folds", "grouping", "background"},
        "splits": {"index", "folds"},
        "unlabelled": {"index", "walk", "layouts", "recording_times", "times_in_names", "grouping", "load"},
        "clip_store": {"index"},
    },
    "microcontrollers": {"integer": set(), "c": {"integer"}},
    "models": {
        **{name: set() for name in ("outputs", "checkpoints", "download", "histogram")},
        "weights": {"checkpoints"},
        "factories": {"outputs"},
        "blocks": {"histogram"},
        "tracing": {"histogram", "factories", "blocks"},
        "teachers": {"outputs", "histogram", "blocks", "factories", "checkpoints", "weights", "download"},
        "students": {"outputs", "histogram", "blocks", "factories", "tracing", "teachers"},
        "build": {"factories", "weights", "students", "teachers"},
        "student_costs": {"students", "teachers", "build"},
    },
}

HEAVY = {
    *("torch", "torchaudio"),
    *("onnx", "onnxruntime", "onnxsim", "onnxscript"),
    *("matplotlib", "rich", "transformers"),
}


def name_of(module: Path) -> str:
    return module.relative_to(PACKAGE).as_posix()


def room_of(module: Path) -> str:
    parts = module.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else module.stem


@pytest.fixture(scope="module", autouse=True)
def let_go() -> Iterator[None]:
    yield
    tree_of.cache_clear()  # a worker's later tests would pay for so many objects


@cache  # each is read by many tests, and changed by none
def tree_of(module: Path) -> ast.Module:
    return ast.parse(module.read_text(encoding="utf-8"))


def imported(tree: ast.AST) -> Iterator[str]:
    """Dotted names of everything that is imported anywhere in `tree`, `a.b.name` for `from a.b import name`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def at_import(tree: ast.AST) -> Iterator[str]:
    """What is imported when the module is: not inside functions, not for type checkers alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from imported(ast.Module([node], []))
        else:
            yield from at_import(node)


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_a_room_imports_only_rooms_to_its_left(module: Path) -> None:
    room = room_of(module)
    assert room in ALLOWED, f"{room} is in no plan of the house"
    rooms = {name.split(".")[1] for name in imported(tree_of(module)) if name.split(".")[0] == "edgekd"}
    rooms.discard("__version__")
    assert rooms <= ALLOWED[room], f"{module} imports {sorted(rooms - ALLOWED[room])}"


ON_DEVICE = {*sys.stdlib_module_names, "numpy", "onnxruntime", "tensorrt"}


@pytest.mark.parametrize("name", ["edgekd_runner", "host_agent"])
def test_what_ships_needs_only_numpy_and_a_runtime(name: str) -> None:
    assert {module.split(".")[0] for module in imported(tree_of(PACKAGE / "device" / f"{name}.py"))} <= ON_DEVICE


@pytest.mark.parametrize("name", PARTS)
def test_a_part_of_the_runner_needs_only_what_ships_and_the_parts_before_it(name: str) -> None:
    names = set(imported(tree_of(PACKAGE / "device" / "runner" / f"{name}.py")))
    parts = {module for module in names if module.split(".")[0] == "edgekd"}
    assert {module.split(".")[0] for module in names - parts} <= ON_DEVICE
    before = {f"edgekd.device.runner.{part}" for part in list(PARTS)[: list(PARTS).index(name)]}
    assert {module.rpartition(".")[0] for module in parts} <= before


def test_every_module_of_the_runner_is_a_part_of_what_ships() -> None:
    assert {path.stem for path in (PACKAGE / "device" / "runner").glob("*.py")} == {*PARTS, "__init__"}


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_nobody_imports_the_joined_runner(module: Path) -> None:
    # Two copies of its classes in a process are two kinds of `RunnerError`: one would be raised and the other caught.
    assert not [name for name in imported(tree_of(module)) if name.startswith("edgekd.device.edgekd_runner")]


def without_docstrings(tree: ast.Module) -> Iterator[ast.AST]:
    """Every node but constants that are a statement."""
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return (node for node in ast.walk(tree) if not (isinstance(node, ast.Constant) and id(node) in alone))


def text_of(node: ast.AST) -> str:
    """The constant parts of a text, `{}` for what is put into it; empty for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) or "{}" for part in node.values)
    return ""


def started(tree: ast.Module) -> Iterator[str]:
    """The modules that commands in `tree` start: what follows `-m`, in one text or as the next element of a list."""
    for node in without_docstrings(tree):
        words = text_of(node).split()
        if isinstance(node, ast.Tuple | ast.List | ast.Call):
            elements = node.args if isinstance(node, ast.Call) else node.elts
            words = [text_of(element) or "{}" for element in elements]
        yield from (module for flag, module in pairwise(words) if flag == "-m")


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_a_room_starts_only_rooms_to_its_left(module: Path) -> None:
    """A process that is started is a dependency like an import: there is no circle through one either."""
    room = room_of(module)
    for name in started(tree_of(module)):
        assert "{}" not in name, f"{module} starts a module that cannot be read here: {name}"
        package, *parts = name.split(".")
        if package == "edgekd":
            begun = PACKAGE.joinpath(*parts)
            assert begun.with_suffix(".py").is_file() or (begun / "__main__.py").is_file(), f"no module {name}"
            assert (parts[0] if parts else "cli") in ALLOWED[room], f"{module} starts {name}"


@pytest.mark.parametrize(
    ("code", "modules"),
    [
        ("COMMAND = (sys.executable, '-P', '-m', 'edgekd.experiments.worker')", {"edgekd.experiments.worker"}),
        ("run([python, '-m', 'edgekd', 'distill'])", {"edgekd"}),
        ("run([python, '-m', module])", {"{}"}),
        ("os.execlp('python', 'python', '-m', f'edgekd.{name}')", {"edgekd.{}"}),
        ("f'torchrun --nproc-per-node {count} -m edgekd {command}'", {"edgekd"}),
        ("def f():\n    'As python -m edgekd does.'", set()),
    ],
)
def test_commands_that_start_modules_are_recognised(code: str, modules: set[str]) -> None:
    assert set(started(ast.parse(code))) == modules


ISOLATED = {"-I", "-P"}


def unsafe(tree: ast.Module) -> Iterator[str]:
    """Commands in `tree` that start a Python with the current folder, which may be a data set, on its path.

    A Python is `sys.executable`, `{python}` or a name with `python` in it; after it comes one of `ISOLATED`, an
    `edgekd_runner.py`, which isolates itself, or what is not ours: pip and venv. `torchrun -m` starts such ones too.
    """
    for node in without_docstrings(tree):
        if isinstance(node, ast.Tuple | ast.List):
            words = [spelled(element) for element in node.elts]
        elif isinstance(node, ast.JoinedStr | ast.Constant):
            words = spelled(node).split()
        else:
            continue
        for place, word in enumerate(words):
            program = word.strip("'\"()`").rpartition("/")[2]
            flag, argument = (each.strip("'\"`") for each in [*words[place + 1 : place + 3], "", ""][:2])
            if program == "torchrun" and "-m" in words[place:]:
                yield " ".join(words)
            if re.fullmatch(r"\{sys\.executable\}|\{?[\w.]*python\}?|\$?python[\d.]*|\$candidate", program):
                fine = flag in ISOLATED or flag.endswith(("edgekd_runner.py", "{RUNNER}"))
                fine = fine or (flag == "-m" and argument in {"pip", "venv"}) or flag == "--version"
                runs = flag.startswith("-") or flag.endswith(".py") or (flag and program == "{sys.executable}")
                if runs and not fine:
                    yield " ".join(words)


def test_no_command_of_the_documents_starts_a_python_with_the_current_folder_on_its_path() -> None:
    root = PACKAGE.parent
    for document in (root / "README.md", *(root / "docs").rglob("*.md")):
        text = document.read_text(encoding="utf-8") if document.is_file() else ""
        assert not re.search(r"-m edgekd(\.\w+)* [a-z]", text), document


def spelled(node: ast.AST) -> str:
    """A text, with `{name}` for what is put into it; of anything else its code in the same brackets."""
    if isinstance(node, ast.JoinedStr):
        return "".join(spelled(part) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return spelled(node.value)
    constant = node.value if isinstance(node, ast.Constant) else None
    return constant if isinstance(constant, str) else f"{{{ast.unparse(node).replace(' ', '')}}}"


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_no_python_is_started_with_the_current_folder_on_its_path(module: Path) -> None:
    assert not list(unsafe(tree_of(module)))


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("COMMAND = (sys.executable, '-m', 'edgekd.experiments.worker')", True),
        ("COMMAND = (sys.executable, '-P', '-m', 'edgekd.experiments.worker')", False),
        ("run([sys.executable, str(file)])", True),
        ("run = ('{python}', RUNNER)", False),
        ("run = ('{python}', 'classify.py')", True),
        ("f'{self._python} -c \"{START}\"'", True),
        ("f'{self._python} -I -c \"{START}\"'", False),
        ("print(host, python, sent)", False),
        ('SCRIPT = \'"$candidate" -c "import sys"\'', True),
        ("SCRIPT = '\"$python\" edgekd_runner.py choose'", False),
        ("f'torchrun --nproc-per-node {count} -m edgekd {command}'", True),
        ("f'torchrun --nproc-per-node {count} --no-python edgekd {command}'", False),
        ("'Next: python3 -m pip install numpy'", False),
    ],
)
def test_a_python_with_the_current_folder_on_its_path_is_recognised(code: str, found: bool) -> None:
    assert bool(list(unsafe(ast.parse(code)))) == found


@pytest.mark.parametrize("module", [each for each in MODULES if room_of(each) in INSIDE], ids=name_of)
def test_a_part_of_a_room_imports_only_what_the_plan_says(module: Path) -> None:
    room, part = (*module.relative_to(PACKAGE).with_suffix("").parts,)[:2]
    parts = {name.split(".")[2] for name in imported(tree_of(module)) if name.startswith(f"edgekd.{room}.")}
    if part == "__init__":
        assert not parts
        return
    assert part in INSIDE[room], f"{part} has no place in the plan of {room}"
    if module.parent.name == part:
        parts.discard(part)
    assert parts <= INSIDE[room][part], f"{module} imports {sorted(parts - INSIDE[room][part])}"


@pytest.mark.parametrize("room", INSIDE)
def test_the_plan_of_a_room_has_no_circle(room: str) -> None:
    order = graphlib.TopologicalSorter(INSIDE[room])
    assert set(order.static_order()) == set(INSIDE[room])


# The runner is a command line too.
SILENT = [
    each
    for each in MODULES
    if room_of(each) not in {"cli", "device"} and "terminal" not in each.stem and name_of(each) not in ENTRIES
]


@pytest.mark.parametrize("module", SILENT, ids=name_of)
def test_only_the_command_line_prints(module: Path) -> None:
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"print", "sys.stdout.write", "sys.stderr.write", "typer.echo"}, f"line {node.lineno}"


ESCAPING = {"terminal_text", "json_text", "to_toml", "plan_text", "describe"}  # what they return ends no line unasked


def printed(tree: ast.Module) -> Iterator[ast.Call]:
    """The calls in `tree` that write to a terminal."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"print", "typer.echo"}:
            yield node


def is_escaped(node: ast.AST) -> bool:
    """Whether a text is a constant, what one of `ESCAPING` returns, or put together from such."""
    if isinstance(node, ast.JoinedStr):
        return all(is_escaped(part) for part in node.values)
    if isinstance(node, ast.BinOp):
        return is_escaped(node.left) and is_escaped(node.right)
    if isinstance(node, ast.FormattedValue):
        return is_escaped(node.value)
    if isinstance(node, ast.Call):
        return ast.unparse(node.func).rpartition(".")[2] in ESCAPING
    return isinstance(node, ast.Constant) or ast.unparse(node) == "__version__"


PRINTING = [
    each
    for each in MODULES
    if room_of(each) == "cli" or name_of(each) in {*ENTRIES, "report/terminal_data.py", "report/terminal_models.py"}
]


@pytest.mark.parametrize("module", PRINTING, ids=name_of)
def test_what_reaches_a_terminal_is_escaped(module: Path) -> None:
    for call in printed(tree_of(module)):
        assert is_escaped(call.args[0]), f"line {call.lineno}: print it with edgekd.report.terminal.line"


@pytest.mark.parametrize(
    ("code", "escaped"),
    [
        ("typer.echo('plain')", True),
        ("typer.echo(f'edgekd {__version__}')", True),
        ("print(terminal_text(f'edgekd: {line}', sys.stderr), file=sys.stderr)", True),
        ("typer.echo(config.describe() + to_toml(values))", True),
        ("typer.echo(f'{path}: there')", False),
        ("print(line)", False),
        ("typer.echo('Run: ' + str(path))", False),
    ],
)
def test_what_is_not_escaped_is_recognised(code: str, escaped: bool) -> None:
    assert [is_escaped(call.args[0]) for call in printed(ast.parse(code))] == [escaped]


CATCHING = {*ENTRIES, "optional_modules.py"}  # what others raise when they are imported may be of any class


@pytest.mark.parametrize("module", [module for module in MODULES if name_of(module) not in CATCHING], ids=name_of)
def test_only_where_a_process_begins_everything_is_caught(module: Path) -> None:
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.ExceptHandler):
            caught = "everything" if node.type is None else ast.unparse(node.type)
            assert caught not in {"everything", "Exception", "BaseException"}, f"line {node.lineno}"


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_no_module_or_room_has_a_name_of_the_standard_library(module: Path) -> None:
    parts = module.relative_to(PACKAGE).with_suffix("").parts
    assert not {part for part in parts if not part.startswith("_")} & sys.stdlib_module_names


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_a_module_opens_with_what_it_is_for(module: Path) -> None:
    assert name_of(module) == "__init__.py" or ast.get_docstring(tree_of(module))


LIGHT = [
    *(f"{name}.py" for name in FOUNDATIONS if name != "_torchaudio"),
    *("data/layouts/table.py", "exporting/__init__.py"),
]


@pytest.mark.parametrize("name", LIGHT)
def test_light_modules_import_nothing_heavy(name: str) -> None:
    assert not {module.split(".")[0] for module in at_import(tree_of(PACKAGE / name))} & HEAVY


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_pictures_and_graphs_are_imported_where_they_are_made(module: Path) -> None:
    optional = {"matplotlib", "onnx", "onnxruntime", "onnxsim", "onnxscript", "tensorrt", "transformers", "h5py"}
    assert not {name.split(".")[0] for name in at_import(tree_of(module))} & optional


@pytest.mark.parametrize("name", ["edgekd.cli.app", "edgekd.data.layouts.table", "edgekd.exporting", "edgekd.config"])
def test_importing_is_quick_because_nothing_heavy_is_loaded(name: str) -> None:
    code = f"import sys, {name}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert loaded.stdout.split() == []


def test_the_wheel_holds_boards_and_recipes(tmp_path: Path) -> None:
    hatchling = pytest.importorskip("hatchling.builders.wheel")
    root = PACKAGE.parent
    if not (root / "pyproject.toml").is_file():
        pytest.skip("edgekd is installed, not a checkout")
    wheel = next(hatchling.WheelBuilder(os.fspath(root)).build(directory=os.fspath(tmp_path), versions=["standard"]))
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    for kind in ("targets", "calibration"):
        shipped = {f"edgekd/_resources/{kind}/{path.name}" for path in (root / kind).glob("*.toml")}
        assert shipped
        assert shipped <= held
    sources = {path.relative_to(PACKAGE).as_posix() for path in (PACKAGE / "device" / "c").rglob("*") if path.is_file()}
    assert {f"edgekd/{name}" for name in sources if "__pycache__" not in name} <= held
    assert {"edgekd/py.typed", *(f"edgekd/{name_of(module)}" for module in MODULES)} <= held
    assert not {name.split("/")[0] for name in held} & {"tests", "targets", "calibration"}


# Sizes


def lines_of(module: Path) -> int:
    return len(module.read_text(encoding="utf-8").splitlines())


LONGEST, LARGEST = 400, 0.15  # lines of a module; share of the package that a room may take
OWN = [module for module in MODULES if name_of(module) != "device/edgekd_runner.py"]  # it is joined from others


def test_no_module_is_longer_than_one_sitting() -> None:
    assert {name_of(module): lines_of(module) for module in OWN if lines_of(module) > LONGEST} == {}


def test_no_room_holds_more_than_a_seventh_of_the_house() -> None:
    rooms: Counter[str] = Counter()
    for module in OWN:
        if len(module.relative_to(PACKAGE).parts) > 1:
            rooms[room_of(module)] += lines_of(module)
    most = LARGEST * sum(map(lines_of, OWN))
    assert {room: lines for room, lines in rooms.items() if lines > most} == {}


# Tests

TESTS = sorted(path for path in Path(__file__).parent.rglob("*.py") if "benchmarks" not in path.parts)


@pytest.mark.parametrize("module", TESTS, ids=lambda path: path.relative_to(Path(__file__).parent).as_posix())
def test_a_test_reaches_no_private_name_of_another_room(module: Path) -> None:
    parts = module.relative_to(Path(__file__).parent).parts
    own = parts[0] if len(parts) > 1 else module.stem.removeprefix("test_")
    tree = ast.parse(module.read_text(encoding="utf-8"))
    modules = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("edgekd")
        for alias in node.names
    }
    reached = {
        f"{modules[node.value.id]}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules
        if node.attr.startswith("_") and not node.attr.startswith("__")
    }
    private = {name for name in modules.values() if re.search(r"\._(?!_|torchaudio)[^.]*$", name)}
    assert {name for name in reached | private if name.split(".")[1] != own} == set()
