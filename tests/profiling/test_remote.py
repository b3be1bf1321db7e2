"""Hosts of a fleet, against a real sshd on loopback with keys of its own."""

from __future__ import annotations

import ast
import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.config import FrontendConfig
from edgekd.device import edgekd_runner, host_agent
from edgekd.errors import InputError, UsageError
from edgekd.exporting.bundle import Bundle, Classifier, Findings, GoldenExamples, Parity, Provenance, write_bundle
from edgekd.exporting.targets import load_target
from edgekd.exporting.verify import session
from edgekd.profiling.remote import HostFailure, HostResult, profile_hosts, ssh_command, subject_of
from edgekd.report.results import Cost

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/sbin")
SAMPLES = 64


@dataclass(frozen=True)
class Server:
    """An sshd on loopback: how to reach it, and the folder where what it runs makes its temporary ones."""

    ssh: tuple[str, ...]
    port: int
    temporary: Path
    folder: Path

    def host(self, name: str = "127.0.0.1") -> str:
        return f"{getpass.getuser()}@{name}"

    def left(self) -> list[str]:
        return sorted(path.name for path in self.temporary.iterdir())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if SSHD is None or shutil.which("ssh-keygen") is None:
        pytest.skip("needs sshd: sudo apt install openssh-server")
    folder = tmp_path_factory.mktemp("sshd")
    temporary = folder / "tmp"
    temporary.mkdir()
    for name in ("host_key", "key", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    shutil.copyfile(folder / "key.pub", folder / "authorized_keys")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": folder / "host_key",
        "AuthorizedKeysFile": folder / "authorized_keys",
        "PidFile": folder / "pid",
        "StrictModes": "no",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "PermitRootLogin": "yes",
        "SetEnv": f"TMPDIR={temporary}",
    }
    (folder / "sshd_config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd insists on it
    key = (folder / "host_key.pub").read_text()
    names = "\n".join(f"[{name}]:{port} {key}" for name in ("127.0.0.1", "localhost"))
    (folder / "known_hosts").write_text(names)
    process = subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "sshd_config"], stderr=subprocess.PIPE)
    try:
        _until(lambda: _answers(port) or process.poll() is not None, 10)
        if process.poll() is not None:
            assert process.stderr is not None
            pytest.skip(f"sshd does not start here: {process.stderr.read().decode().strip()}")
        ssh = ("ssh", "-F", "none", "-p", str(port), "-i", str(folder / "key"), "-o", "IdentitiesOnly=yes")
        yield Server((*ssh, "-o", f"UserKnownHostsFile={folder / 'known_hosts'}"), port, temporary, folder)
    finally:
        process.terminate()
        process.wait(10)
        assert process.stderr is not None
        process.stderr.close()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _until(true: Callable[[], object], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return _write(tmp_path_factory.mktemp("bundle") / "bundle", "cpu")


def _write(folder: Path, target: str) -> Bundle:
    """A bundle of a classifier that is one product; what the log-mel is does not matter here."""
    weights = np.random.default_rng(0).standard_normal((SAMPLES, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["waveform", "weights"], ["scores"], name="scores"),
            helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1, name="probabilities"),
        ],
        "product",
        [helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["batch", SAMPLES])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8).SerializeToString()
    clips = (np.random.default_rng(1).standard_normal((6, SAMPLES)) * 3000).astype(np.int16)
    scale = np.ones(6, np.float32)
    (expected,) = session(model).run(
        None, {"waveform": clips.astype(np.float32) * (scale / np.float32(32767))[:, None]}
    )
    return write_bundle(
        folder,
        {"int8": model},
        classifier=Classifier(
            student="hltdnn_ds",
            classes=("a", "b", "c"),
            sample_rate=8_000,
            clip_samples=SAMPLES,
            padding="zeros",
            frontend=FrontendConfig(n_fft=128, hop_length=64, n_mels=12, f_min=50.0, f_max=3_900.0),
            gain=1.0,
        ),
        provenance=Provenance(run="run", dataset="folder", fold=None, seed=0, test_accuracy=None),
        findings=Findings(Parity(clips=64, agreement=1.0, largest_difference=0.0)),
        golden=GoldenExamples(clips, scale, expected, np.arange(6) % 3),
        target=load_target(target),
    )


@pytest.fixture
def visit_host(server: Server, bundle: Bundle) -> Callable[..., HostResult | HostFailure]:
    def one(host: str | None = None, **settings: Any) -> HostResult | HostFailure:
        settings = {"ssh": server.ssh, "python": sys.executable, "runs": 20} | settings
        folder = settings.pop("folder", bundle.folder)
        (found,) = profile_hosts(folder, [host or server.host()], **settings)
        return found

    return one


Visit = Callable[..., HostResult | HostFailure]


def reason(found: HostResult | HostFailure) -> str:
    """Why a host found nothing: one line that begins with its name."""
    assert isinstance(found, HostFailure), found
    assert found.reason.startswith(f"{found.host}: ")
    assert "\n" not in found.reason
    return found.reason.removeprefix(f"{found.host}: ")


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
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"]["edgekd_runner.py"] = edgekd_runner.file_digest(runner)
    manifest["sha256"] = edgekd_runner.manifest_digest(manifest)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


def test_two_hosts_verify_and_time_a_bundle_and_nothing_is_left_there(server: Server, bundle: Bundle) -> None:
    steps: list[tuple[str, int, int, object]] = []
    found = profile_hosts(
        bundle.folder,
        [server.host(), server.host("localhost")],
        ssh=server.ssh,
        python=sys.executable,
        runs=20,
        progress=lambda stage, done, total, /, **figures: steps.append((stage, done, total, figures["step"])),
    )
    assert [one.host for one in found] == [server.host(), server.host("localhost")]
    for one in found:
        assert isinstance(one, HostResult), one
        assert one.agrees
        assert one.verify["clips"] == 6
        assert (one.bench["runs"], one.bench["engine"]) == (20, "onnxruntime")
        assert one.notes == ()
        own = [step[1:] for step in steps if step[0] == one.host]
        assert own == [
            (0, 3, "connecting"),
            (0, 3, "copying"),
            (1, 3, "verify"),
            (2, 3, "bench"),
            (3, 3, "done"),
        ]
    assert server.left() == []


def test_a_host_becomes_a_row_of_the_report_whatever_its_shell_prints(
    visit_host: Visit, bundle: Bundle, tmp_path: Path
) -> None:
    python = program(tmp_path / "python", f'echo "Welcome to edgekd-board!"; exec {sys.executable} "$@"')
    found = visit_host(threads=2, python=python)
    assert isinstance(found, HostResult)
    cost = Cost(parameters=192, macs=192, file_bytes=1000)
    subject = subject_of(bundle, found, None, cost)
    assert (subject.name, subject.host) == (f"bundle on {found.host}", found.host)
    assert (subject.role, subject.precision, subject.backend, subject.threads) == ("int8", "int8", "onnxruntime", 2)
    assert subject.runtime == f"ONNX Runtime {found.bench['engine_version']}, CPU"
    assert subject.latency.p50_ms == subject.latency.quantiles_ms[50] == found.bench["p50_ms"]
    assert subject.latency.p50_interval_ms[0] <= subject.latency.p50_ms <= subject.latency.p50_interval_ms[1]
    assert subject.cost.macs == 192
    assert subject.cost.peak_process_bytes == found.bench["peak_memory_bytes"]
    assert subject.golden is not None
    assert subject.golden.agrees
    assert subject.machine is not None
    assert subject.machine.cpus == os.cpu_count()


def test_an_engine_on_a_device_is_a_row_of_its_own_precision(bundle: Bundle) -> None:
    timed: dict[str, Any] = {"engine": "trtexec", "engine_version": None, "precision": "fp16", "threads": 1, "runs": 50}
    timed |= dict.fromkeys(("mean_ms", "p50_ms", "p95_ms", "p99_ms", "spread_ms", "real_time_factor"), 2.0)
    timed |= {"p50_interval_ms": [1.9, 2.1], "quantiles_ms": [2.0] * 101, "settled": True, "load_average": 0.1}
    timed |= {"front_end_ms": None, "network_ms": None, "memory_bytes": 1, "peak_memory_bytes": 2}
    timed["machine"] = edgekd_runner.machine_state()
    verified = {"agrees": True, "clips": 6, "agreement": 1.0, "largest_difference": 0.01}
    subject = subject_of(bundle, HostResult("orin", verified, timed), None, Cost(file_bytes=1))
    assert (subject.backend, subject.threads, subject.runtime) == ("tensorrt", None, "TensorRT by trtexec")
    assert (subject.role, subject.precision) == ("student", "float16")


def test_one_host_that_fails_leaves_the_others_alone(server: Server, bundle: Bundle) -> None:
    hosts = [server.host("nowhere.invalid"), server.host()]
    failed, found = profile_hosts(bundle.folder, hosts, ssh=server.ssh, python=sys.executable, runs=10)
    assert "no host of this name is known" in reason(failed)
    assert isinstance(found, HostResult)


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
        f'exec {sys.executable} -c "import sys; sys.version_info = (3, 6, 9); exec(sys.argv[1])" "$2"',
    )
    assert reason(visit_host(python=old)).startswith("Python 3.6 there is too old: the runner needs 3.8 or later.")


def test_a_python_without_numpy(visit_host: Visit, server: Server, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv")
    told = reason(visit_host(python=str(tmp_path / "venv" / "bin" / "python")))
    assert told.startswith("verify: numpy is not installed. Next: python3 -m pip install numpy onnxruntime")
    assert "--remote-python" in told
    assert server.left() == []


def test_a_python_without_onnxruntime(visit_host: Visit, tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError\n")
    python = program(tmp_path / "python", f'PYTHONPATH={tmp_path} exec {sys.executable} "$@"')
    assert reason(visit_host(python=python)).startswith("verify: onnxruntime is not installed. Next: ")


def test_a_disk_that_is_full(visit_host: Visit, server: Server, tmp_path: Path) -> None:
    python = program(tmp_path / "python", f'ulimit -f 1; exec {sys.executable} "$@"')  # no file over 512 bytes
    assert reason(visit_host(python=python)).startswith("the bundle could not be copied: ")
    assert server.left() == []


def test_a_host_that_disagrees_is_a_result(visit_host: Visit, bundle: Bundle, tmp_path: Path, server: Server) -> None:
    other = "_softmax = np.load; np.load = lambda *a, **k: _Turned(_softmax(*a, **k))"
    code = f"{other}\n    class _Turned(dict):\n        __enter__ = lambda self: {{**self.whole, 'probabilities': "
    code += "self.whole['probabilities'][:, ::-1]}\n        __exit__ = lambda *_: None\n"
    code += "        def __init__(self, whole): self.whole = dict(whole)"
    found = visit_host(folder=in_its_runner(bundle, tmp_path / "other", code))
    assert isinstance(found, HostResult)
    assert not found.agrees
    assert any("does not agree with the golden examples" in note for note in found.notes)
    subject = subject_of(bundle, found, None, Cost(parameters=1, macs=1, file_bytes=1))
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
def test_a_host_that_dies_half_way(visit_host: Visit, bundle: Bundle, server: Server, tmp_path: Path) -> None:
    found: list[HostResult | HostFailure] = []
    folder = sleeping(bundle, tmp_path)
    thread = threading.Thread(target=lambda: found.append(visit_host(folder=folder)))
    thread.start()
    _until(lambda: (tmp_path / "step").exists() and (tmp_path / "step").read_text(), 20)
    started = time.monotonic()
    os.kill(session_of(tmp_path), signal.SIGKILL)
    thread.join(20)
    assert time.monotonic() - started < 15
    assert reason(found[0]).startswith("the connection was lost during bench")
    _until(lambda: not server.left(), 10)  # the other side has noticed too
    _until(lambda: not Path(f"/proc/{(tmp_path / 'step').read_text()}").exists(), 10)


@needs_proc
def test_the_folder_of_a_killed_visit_is_removed_by_another_connection(
    visit_host: Visit, bundle: Bundle, server: Server, tmp_path: Path
) -> None:
    found: list[HostResult | HostFailure] = []
    folder = sleeping(bundle, tmp_path)
    thread = threading.Thread(target=lambda: found.append(visit_host(folder=folder)))
    thread.start()
    _until(lambda: (tmp_path / "step").exists() and (tmp_path / "step").read_text(), 20)
    step = int((tmp_path / "step").read_text())
    program_there = int(Path(f"/proc/{step}/stat").read_text().rpartition(") ")[2].split()[1])
    os.kill(program_there, signal.SIGKILL)  # as where memory runs out
    thread.join(20)
    os.kill(step, signal.SIGKILL)
    assert "during bench" in reason(found[0])
    assert "left there" not in reason(found[0])
    assert server.left() == []


def test_a_step_that_hangs_is_stopped(
    visit_host: Visit, bundle: Bundle, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules["edgekd.profiling.remote"].SECONDS, "bench", 1)
    told = reason(visit_host(folder=sleeping(bundle, tmp_path)))
    assert told == "bench had not ended after 1 s and was stopped."
    assert server.left() == []


def test_ctrl_c_ends_what_runs_there(bundle: Bundle, server: Server, tmp_path: Path) -> None:
    def strike() -> None:
        _until((tmp_path / "step").exists, 20)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=strike)
    try:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            profile_hosts(sleeping(bundle, tmp_path), [server.host()], ssh=server.ssh, python=sys.executable)
    finally:
        signal.signal(signal.SIGINT, before)
        thread.join()
    assert server.left() == []


def test_a_damaged_bundle_does_not_leave_this_machine(visit_host: Visit, bundle: Bundle, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle.folder, tmp_path / "copy"))
    (copy / "model.onnx").write_bytes(b"other")
    with pytest.raises(InputError, match="changed since the bundle was written"):
        visit_host(folder=copy)


def test_an_old_runner_is_refused_before_anything_is_sent(visit_host: Visit, bundle: Bundle, tmp_path: Path) -> None:
    copy = in_its_runner(bundle, tmp_path / "old", "pass")
    runner = copy / "edgekd_runner.py"
    runner.write_text(runner.read_text().replace('"quantiles_ms"', '"q"'))
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"]["edgekd_runner.py"] = edgekd_runner.file_digest(runner)
    manifest["sha256"] = edgekd_runner.manifest_digest(manifest)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"its runner is older than this edgekd\. Export the bundle again"):
        visit_host(folder=copy)


@pytest.mark.parametrize("hosts", [["-oProxyCommand=x"], [""], ["a b"]])
def test_what_is_no_host_never_reaches_ssh(bundle: Bundle, hosts: list[str]) -> None:
    with pytest.raises(UsageError, match="is no host"):
        profile_hosts(bundle.folder, hosts)


def test_a_host_named_twice_is_refused(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="'pi@a' is named twice"):
        profile_hosts(bundle.folder, ["pi@a", "pi@b", "pi@a"])


def test_a_machine_without_ssh_says_what_to_install(bundle: Bundle) -> None:
    with pytest.raises(InputError, match=r"no-such-ssh: not installed here\. Next: sudo apt install openssh-client"):
        profile_hosts(bundle.folder, ["pi"], ssh=["no-such-ssh"])


def test_the_ssh_option_is_split_as_a_shell_would() -> None:
    assert ssh_command("ssh -p 2222 -i 'my key'") == ("ssh", "-p", "2222", "-i", "my key")
    for text in ("", "ssh 'x"):
        with pytest.raises(UsageError, match="--ssh"):
            ssh_command(text)


def test_without_trtexec_a_tensorrt_bundle_runs_on_onnxruntime_and_says_so(
    visit_host: Visit, server: Server, tmp_path: Path
) -> None:
    if Path(host_agent.TRTEXEC).exists():
        pytest.skip("this machine has trtexec")
    found = visit_host(folder=_write(tmp_path / "jetson", "jetson").folder)
    assert isinstance(found, HostResult)
    assert any("no engine was built (it has no trtexec), so onnxruntime ran" in note for note in found.notes)
    assert any("the bundle is for NVIDIA Jetson" in note for note in found.notes)


def test_engines_are_built_there_where_trtexec_is_found(visit_host: Visit, server: Server, tmp_path: Path) -> None:
    if Path(host_agent.TRTEXEC).exists():
        pytest.skip("this machine has trtexec")
    log = tmp_path / "calls"
    (tmp_path / "bin").mkdir()
    program(tmp_path / "bin" / "trtexec", f'echo "$@" >>{log}\nexit 1')
    python = program(tmp_path / "python", f'PATH={tmp_path / "bin"}:$PATH exec {sys.executable} "$@"')
    steps: list[object] = []
    found = visit_host(
        folder=_write(tmp_path / "jetson", "jetson").folder,
        python=python,
        progress=lambda stage, done, total, /, **figures: steps.append(figures["step"]),
    )
    assert isinstance(found, HostResult)
    assert "--onnx=model.onnx" in log.read_text()
    assert "building model-int8.engine" in steps
    assert any("no engine was built (int8 could not be built and is left out" in note for note in found.notes)
    assert server.left() == []


def test_what_is_sent_needs_no_more_than_it_says() -> None:
    assert not set(host_agent.START) & set('"$`!\\\n')  # so that every login shell hands it on as it is
    ast.parse(Path(host_agent.__file__).read_text(), feature_version=(3, 8))
