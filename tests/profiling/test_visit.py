"""One host's turn, against a real sshd on loopback with keys of its own."""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import socket
import sys
import threading
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgekd.device import edgekd_runner, host_agent
from edgekd.errors import InputError
from edgekd.exporting.manifest import Bundle
from edgekd.profiling.remote import profile_hosts, subject_of
from edgekd.profiling.visit import SECONDS, HostFailure, HostResult
from edgekd.report.results import Cost
from tests.exporting.runtimes.tensorrt import trtexec

if TYPE_CHECKING:
    from tests.profiling.conftest import Server

Visit = Callable[..., HostResult | HostFailure]


def reason(found: HostResult | HostFailure) -> str:
    """Why a host found nothing: one line that begins with its name."""
    assert isinstance(found, HostFailure), found
    assert found.reason.startswith(f"{found.host}: ")
    assert "\n" not in found.reason
    return found.reason.removeprefix(f"{found.host}: ")


def until(true: Callable[[], object], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def program(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def in_its_runner(bundle: Bundle, folder: Path, code: str) -> Path:
    """A copy of a bundle whose runner does something else first."""
    copy = Path(shutil.copytree(bundle.folder, folder))
    runner = copy / "edgekd_runner.py"
    text = runner.read_text()
    runner.write_text(text.replace("import numpy as np\n", f"import numpy as np\n    {code}\n", 1))
    sealed(copy, runner.name)
    return copy


def sealed(folder: Path, name: str) -> None:
    """Have the manifest of a bundle say that the file `name` is as it is."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = edgekd_runner.file_digest(folder / name)
    manifest["sha256"] = edgekd_runner.manifest_digest(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture
def any_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runners that have been changed are run too."""
    monkeypatch.setattr("edgekd.profiling.visit.check_programs", lambda *_: None)


def test_a_key_that_is_not_accepted(visit_host: Visit, server: Server) -> None:
    ssh = tuple(str(server.folder / "stranger") if word.endswith("/key") else word for word in server.ssh)
    assert reason(visit_host(ssh=ssh)) == f"no key of yours is accepted there. Next: ssh-copy-id {server.host()}"


def test_a_port_where_nobody_listens(visit_host: Visit, server: Server) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        ssh = tuple(str(taken.getsockname()[1]) if word == str(server.port) else word for word in server.ssh)
        assert reason(visit_host(ssh=ssh)).startswith("refuses the connection")


def test_a_host_that_does_not_answer(visit_host: Visit, server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ssh = tuple(str(silent.getsockname()[1]) if word == str(server.port) else word for word in server.ssh)
        assert reason(visit_host(ssh=(*ssh, "-o", "ConnectTimeout=1"))).startswith("does not answer")


def test_a_host_key_that_is_not_known_or_has_changed(visit_host: Visit, server: Server, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    ssh = (*server.ssh[:-1], f"UserKnownHostsFile={known}")
    assert "its host key is not known here yet. Next: ssh -F none" in reason(visit_host(ssh=ssh))
    other = (server.folder / "stranger.pub").read_text()
    known.write_text(f"[127.0.0.1]:{server.port} {other}")
    assert "is not the one known here" in reason(visit_host(ssh=ssh))


def test_no_python_there(visit_host: Visit, tmp_path: Path) -> None:
    missing = str(tmp_path / "python9")
    told = reason(visit_host(python=missing))
    assert told.startswith(f"no {missing} there")
    assert told.endswith("--remote-python.")


def test_a_python_that_is_too_old(visit_host: Visit, tmp_path: Path) -> None:
    old = program(
        tmp_path / "python3.6",
        f'exec {sys.executable} -c "import sys; sys.version_info = (3, 6, 9); exec(sys.argv[1])" "$3"',
    )
    assert reason(visit_host(python=old)).startswith("Python 3.6 there is too old: the runner needs 3.8 or later.")


def test_a_python_without_numpy(visit_host: Visit, server: Server, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv")
    told = reason(visit_host(python=str(tmp_path / "venv" / "bin" / "python")))
    assert told.startswith("verify: numpy is not installed. Next: python3 -m pip install numpy onnxruntime")
    assert "--remote-python" in told
    assert server.left() == []


def test_a_python_without_onnxruntime(visit_host: Visit, tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ModuleNotFoundError(name=__name__)\n")
    python = program(tmp_path / "python", f'PYTHONPATH={tmp_path} exec {sys.executable} "$@"')
    assert reason(visit_host(python=python)).startswith("verify: onnxruntime is not installed. Next: ")


def test_a_disk_that_is_full(visit_host: Visit, server: Server, tmp_path: Path) -> None:
    python = program(tmp_path / "python", f'ulimit -f 1; exec {sys.executable} "$@"')  # no file over 512 bytes
    assert reason(visit_host(python=python)).startswith("the bundle could not be copied: ")
    assert server.left() == []


@pytest.mark.usefixtures("any_runner")
def test_a_host_that_disagrees_is_a_result(visit_host: Visit, product: Bundle, tmp_path: Path, server: Server) -> None:
    other = "_softmax = np.load; np.load = lambda *a, **k: _Turned(_softmax(*a, **k))"
    code = f"{other}\n    class _Turned(dict):\n        __enter__ = lambda self: {{**self.whole, 'probabilities': "
    code += "self.whole['probabilities'][:, ::-1]}\n        __exit__ = lambda *_: None\n"
    code += "        def __init__(self, whole): self.whole = dict(whole)"
    found = visit_host(folder=in_its_runner(product, tmp_path / "other", code))
    assert isinstance(found, HostResult)
    assert not found.agrees
    assert any("does not agree with the golden examples" in note for note in found.notes)
    subject = subject_of(product, found, None, Cost(parameters=1, macs=1, file_bytes=1))
    assert subject.golden is not None
    assert not subject.golden.agrees


def session_of(folder: Path) -> int:
    """The process on the server's side that serves the step which has written its id into `folder`."""
    status = Path(f"/proc/{(folder / 'step').read_text()}/status")
    for _ in range(4):
        parent = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("PPid:"))
        status = Path(f"/proc/{parent}/status")
        if status.read_text().splitlines()[0].split()[1].startswith("sshd"):
            return int(parent)
    raise AssertionError("no sshd above the step")


needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")


def sleeping(bundle: Bundle, tmp_path: Path) -> Path:
    """A bundle whose bench writes its process's id and then hangs."""
    code = f"import time; 'bench' in sys.argv and (Path({str(tmp_path / 'step')!r}).write_text(str(os.getpid())), "
    return in_its_runner(bundle, tmp_path / "sleeping", code + "time.sleep(60))")


@needs_proc
@pytest.mark.usefixtures("any_runner")
def test_a_host_that_dies_half_way(visit_host: Visit, product: Bundle, server: Server, tmp_path: Path) -> None:
    found: list[HostResult | HostFailure] = []
    folder = sleeping(product, tmp_path)
    thread = threading.Thread(target=lambda: found.append(visit_host(folder=folder)))
    thread.start()
    until(lambda: (tmp_path / "step").exists() and (tmp_path / "step").read_text(), 20)
    started = time.monotonic()
    os.kill(session_of(tmp_path), signal.SIGKILL)
    thread.join(20)
    assert time.monotonic() - started < 15
    assert reason(found[0]).startswith("the connection was lost during bench")
    until(lambda: not server.left(), 10)  # the other side has noticed too
    until(lambda: not Path(f"/proc/{(tmp_path / 'step').read_text()}").exists(), 10)


@needs_proc
@pytest.mark.usefixtures("any_runner")
def test_the_folder_of_a_killed_visit_is_removed_by_another_connection(
    visit_host: Visit, product: Bundle, server: Server, tmp_path: Path
) -> None:
    found: list[HostResult | HostFailure] = []
    folder = sleeping(product, tmp_path)
    thread = threading.Thread(target=lambda: found.append(visit_host(folder=folder)))
    thread.start()
    until(lambda: (tmp_path / "step").exists() and (tmp_path / "step").read_text(), 20)
    step = int((tmp_path / "step").read_text())
    program_there = int(Path(f"/proc/{step}/stat").read_text().rpartition(") ")[2].split()[1])
    os.kill(program_there, signal.SIGKILL)  # as where memory runs out
    thread.join(20)
    os.kill(step, signal.SIGKILL)
    assert "during bench" in reason(found[0])
    assert "left there" not in reason(found[0])
    assert server.left() == []


@pytest.mark.usefixtures("any_runner")
def test_a_step_that_hangs_is_stopped(visit_host: Visit, product: Bundle, server: Server, tmp_path: Path) -> None:
    told = reason(visit_host(folder=sleeping(product, tmp_path), seconds={**SECONDS, "bench": 1}))
    assert told == "bench had not ended after 1 s and was stopped."
    assert server.left() == []


@pytest.mark.usefixtures("any_runner")
def test_ctrl_c_ends_what_runs_there(product: Bundle, server: Server, tmp_path: Path) -> None:
    def strike() -> None:
        until((tmp_path / "step").exists, 20)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=strike)
    try:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            profile_hosts(sleeping(product, tmp_path), [server.host()], ssh=server.ssh, python=sys.executable)
    finally:
        signal.signal(signal.SIGINT, before)
        thread.join()
    assert server.left() == []


@pytest.mark.parametrize("name", ["edgekd_runner.py", "build_engine.sh"])
def test_programs_that_are_not_edgekds_are_not_sent(
    name: str, write_product: Callable[..., Bundle], visit_host: Visit, tmp_path: Path
) -> None:
    bundle = write_product(tmp_path / "sent", "jetson-orin-nx")
    program = bundle.folder / name
    program.write_text(program.read_text() + "\n# and more\n")
    sealed(bundle.folder, name)
    with pytest.raises(InputError, match=rf"its {name} is not that of this edgekd .* Export the bundle again"):
        visit_host(folder=bundle.folder)


def test_without_trtexec_a_tensorrt_bundle_runs_on_onnxruntime_and_says_so(
    write_product: Callable[..., Bundle], visit_host: Visit, server: Server, tmp_path: Path
) -> None:
    if Path(host_agent.TRTEXEC).exists():
        pytest.skip("this machine has trtexec")
    found = visit_host(folder=write_product(tmp_path / "jetson", "jetson").folder)
    assert isinstance(found, HostResult)
    assert any("no engine was built (it has no trtexec), so onnxruntime ran" in note for note in found.notes)
    assert any("the bundle is for NVIDIA Jetson" in note for note in found.notes)


@pytest.mark.parametrize(
    ("release", "note"),
    [
        ("10.3.0", "no engine was built (int8 could not be built and is left out: Error[2]: "),
        ("11.4.1", "no engine was built (this bundle is made for TensorRT 10.3, and "),
    ],
)
def test_engines_are_built_there_where_trtexec_is_found(
    write_product: Callable[..., Bundle], visit_host: Visit, server: Server, tmp_path: Path, release: str, note: str
) -> None:
    log = tmp_path / "calls"
    trtexec.install(tmp_path / "bin", release)
    fails = json.dumps(dict.fromkeys(("int8", "fp16", "fp32"), "memory"))
    settings = f"PATH={tmp_path / 'bin'}:$PATH TRTEXEC_LOG={log} TRTEXEC_FAILS='{fails}'"
    python = program(tmp_path / "python", f'{settings} exec {sys.executable} "$@"')
    steps: list[object] = []
    found = visit_host(
        folder=write_product(tmp_path / "jetson", "jetson").folder,
        python=python,
        progress=lambda stage, done, total, /, **figures: steps.append(figures["step"]),
    )
    assert isinstance(found, HostResult)
    assert ("--onnx=model.onnx" in log.read_text()) == ("building model-int8.engine" in steps) == (release == "10.3.0")
    assert [each for each in found.notes if note in each], found.notes
    assert server.left() == []


def test_what_is_sent_needs_no_more_than_it_says() -> None:
    assert not set(host_agent.START) & set('"$`!\\\n')  # so that every login shell hands it on as it is
    ast.parse(Path(host_agent.__file__).read_text(), feature_version=(3, 8))
