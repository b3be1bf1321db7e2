"""A bundle on many hosts, against a real sshd on loopback with keys of its own, and the row of each in the report."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgekd.device import edgekd_runner
from edgekd.errors import InputError, UsageError
from edgekd.exporting.manifest import Bundle
from edgekd.profiling.remote import profile_hosts, ssh_command, subject_of
from edgekd.profiling.visit import HostFailure, HostResult
from edgekd.report.results import Cost

if TYPE_CHECKING:
    from tests.profiling.conftest import Server

Visit = Callable[..., HostResult | HostFailure]


def test_a_host_becomes_a_row_of_the_report_whatever_its_shell_prints(
    visit_host: Visit, product: Bundle, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "Welcome to edgekd-board!"; exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    found = visit_host(threads=2, python=str(python))
    assert isinstance(found, HostResult)
    cost = Cost(parameters=192, macs=192, file_bytes=1000)
    subject = subject_of(product, found, None, cost)
    assert (subject.name, subject.host) == (f"product on {found.host}", found.host)
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


def test_two_hosts_verify_and_time_a_bundle_and_nothing_is_left_there(server: Server, product: Bundle) -> None:
    steps: list[tuple[str, int, int, object]] = []
    found = profile_hosts(
        product.folder,
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


@pytest.mark.parametrize("precision", ["fp16", "fp16-dla"])
def test_an_engine_on_a_device_is_a_row_of_its_own_precision(product: Bundle, precision: str) -> None:
    timed: dict[str, Any] = {"engine": "trtexec", "engine_version": None, "threads": 1, "runs": 50}
    timed["precision"] = precision
    timed |= dict.fromkeys(("mean_ms", "p50_ms", "p95_ms", "p99_ms", "spread_ms", "real_time_factor"), 2.0)
    timed |= {"p50_interval_ms": [1.9, 2.1], "quantiles_ms": [2.0] * 101, "settled": True, "load_average": 0.1}
    timed |= {"front_end_ms": None, "network_ms": None, "memory_bytes": 1, "peak_memory_bytes": 2}
    timed["machine"] = edgekd_runner.machine_state()
    verified = {"agrees": True, "clips": 6, "agreement": 1.0, "largest_difference": 0.01}
    subject = subject_of(product, HostResult("orin", verified, timed), None, Cost(file_bytes=1))
    assert (subject.backend, subject.threads, subject.runtime) == ("tensorrt", None, "TensorRT by trtexec")
    assert (subject.role, subject.precision) == ("student", "float16")


def test_one_host_that_fails_leaves_the_others_alone(server: Server, product: Bundle) -> None:
    hosts = [server.host("nowhere.invalid"), server.host()]
    failed, found = profile_hosts(product.folder, hosts, ssh=server.ssh, python=sys.executable, runs=10)
    assert isinstance(failed, HostFailure)
    assert failed.reason.startswith(f"{hosts[0]}: no host of this name is known")
    assert isinstance(found, HostResult)


def test_a_damaged_bundle_does_not_leave_this_machine(visit_host: Visit, product: Bundle, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(product.folder, tmp_path / "copy"))
    (copy / "model.onnx").write_bytes(b"other")
    with pytest.raises(InputError, match="changed since the bundle was written"):
        visit_host(folder=copy)


@pytest.mark.parametrize("hosts", [["-oProxyCommand=x"], [""], ["a b"]])
def test_what_is_no_host_never_reaches_ssh(product: Bundle, hosts: list[str]) -> None:
    with pytest.raises(UsageError, match="is no host"):
        profile_hosts(product.folder, hosts)


def test_a_host_named_twice_is_refused(product: Bundle) -> None:
    with pytest.raises(UsageError, match="'pi@a' is named twice"):
        profile_hosts(product.folder, ["pi@a", "pi@b", "pi@a"])


def test_a_machine_without_ssh_says_what_to_install(product: Bundle) -> None:
    with pytest.raises(InputError, match=r"no-such-ssh: not installed here\. Next: sudo apt install openssh-client"):
        profile_hosts(product.folder, ["pi"], ssh=["no-such-ssh"])


def test_the_ssh_option_is_split_as_a_shell_would() -> None:
    assert ssh_command("ssh -p 2222 -i 'my key'") == ("ssh", "-p", "2222", "-i", "my key")
    for text in ("", "ssh 'x"):
        with pytest.raises(UsageError, match="--ssh"):
            ssh_command(text)
