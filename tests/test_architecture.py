"""The house rules of the design, read off the source: who imports whom, who prints, what a command loads."""

from __future__ import annotations

import ast
import graphlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgekd

PACKAGE = Path(edgekd.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

FOUNDATIONS = ("errors", "config", "progress", "resources", "_torchaudio")
ROOMS = (
    *("files", "processes", "log_mel", "data", "models", "losses", "runs", "scoring", "training", "quantization"),
    *("exporting", "experiments", "report", "profiling", "cli"),
)
ALLOWED: dict[str, set[str]] = {
    **{room: {*FOUNDATIONS, *ROOMS[:place], room} for place, room in enumerate(ROOMS)},
    **{name: {*FOUNDATIONS[:place], name} for place, name in enumerate(FOUNDATIONS)},
    "device": set(),
    "__init__": {*FOUNDATIONS, *ROOMS},  # for type checkers, and when a name is first used
    "ssatkd": {"losses"},
    "__main__": {"cli"},
}
for last in ("exporting", "profiling", "cli"):
    ALLOWED[last].add("device")  # read or copied as it is, and it needs nobody

# Inside a room: which of its other parts, modules or folders in it, a part imports.
INSIDE: dict[str, dict[str, set[str]]] = {
    "files": {"whole": set(), "caches": set(), "threads": set(), "row_table": {"caches", "threads"}},
    "data": {
        "fourier": set(),
        "index": set(),
        "audio": set(),
        "simulation": {"fourier"},
        "layouts": {"index", "audio", "fourier", "simulation"},
        "load": {"index", "audio", "layouts"},
        "splits": {"index"},
        "clip_store": {"index", "audio"},
        "checks": {"fourier", "index", "audio", "clip_store"},
    },
    "models": {
        **{name: set() for name in ("outputs", "weights", "download", "histogram", "factories")},
        "blocks": {"histogram"},
        "tracing": {"histogram", "factories"},
        "students": {"outputs", "histogram", "blocks", "factories", "tracing"},
        "teachers": {"outputs", "histogram", "blocks", "factories", "weights", "download"},
        "build": {"factories", "weights", "students", "teachers"},
    },
}

HEAVY = {
    *("torch", "torchaudio", "lightning_fabric"),
    *("onnx", "onnxruntime", "onnxsim", "onnxscript"),
    *("matplotlib", "rich", "transformers"),
}


def name_of(module: Path) -> str:
    return module.relative_to(PACKAGE).as_posix()


def room_of(module: Path) -> str:
    parts = module.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else module.stem


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


def test_the_runner_needs_only_numpy_and_a_runtime() -> None:
    outside = {name.split(".")[0] for name in imported(tree_of(PACKAGE / "device" / "edgekd_runner.py"))}
    assert outside - set(sys.stdlib_module_names) <= {"numpy", "onnxruntime", "tensorrt", "cuda", "pycuda"}


# The runner is a command line too.
SILENT = [each for each in MODULES if room_of(each) not in {"cli", "device"} and "terminal" not in each.stem]


@pytest.mark.parametrize("module", SILENT, ids=name_of)
def test_only_the_command_line_prints(module: Path) -> None:
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"print", "sys.stdout.write", "sys.stderr.write", "typer.echo"}, f"line {node.lineno}"


@pytest.mark.parametrize("module", [module for module in MODULES if name_of(module) != "cli/app.py"], ids=name_of)
def test_only_the_command_line_catches_everything(module: Path) -> None:
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.ExceptHandler):
            caught = "everything" if node.type is None else ast.unparse(node.type)
            assert caught not in {"everything", "Exception", "BaseException"}, f"line {node.lineno}"


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
    assert {f"edgekd/{name_of(module)}" for module in MODULES} <= held
    assert not {name.split("/")[0] for name in held} & {"tests", "targets", "calibration"}
