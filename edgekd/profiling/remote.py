"""A bundle verified and timed on other machines, over ssh, many at once.

All that a device needs is sshd and what the bundle's runner needs. The program is the system's own `ssh`, so
`~/.ssh/config`, keys and jump hosts work as they do by hand; it never asks for anything, and notices within half a
minute that a host has died. What goes over the connection: `visit`.
"""

from __future__ import annotations

import shlex
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from edgekd.errors import InputError, UsageError
from edgekd.escaping import legible
from edgekd.exporting.manifest import Bundle, read_bundle
from edgekd.exporting.runtimes import RUNTIMES
from edgekd.models.build import sized
from edgekd.profiling.backends import ENGINE_PRECISIONS, ENGINES
from edgekd.profiling.host_answers import golden_of, latency_of
from edgekd.profiling.machine import from_bench
from edgekd.profiling.visit import SECONDS, HostFailure, HostResult, Visit, request
from edgekd.progress import Progress, silent
from edgekd.report.results import Cost, Subject
from edgekd.scoring.scored import AnyScores

AT_ONCE = 8


def ssh_command(text: str) -> tuple[str, ...]:
    """`--ssh` as a command and its options: `ssh -p 2222 -i key`. Raises `UsageError`."""
    try:
        words = tuple(shlex.split(text))
    except ValueError as failure:
        raise UsageError(f"--ssh: {text}: {str(failure).lower()}.") from None
    if not words:
        raise UsageError("--ssh: no command. Name one, e.g. --ssh 'ssh -p 2222'.")
    return words


def profile_hosts(
    bundle_folder: Path,
    hosts: Sequence[str],
    *,
    ssh: Sequence[str] = ("ssh",),
    python: str = "python3",
    threads: int = 1,
    runs: int = 200,
    seconds: Mapping[str, int] = SECONDS,
    progress: Progress = silent,
) -> list[HostResult | HostFailure]:
    """Verify and time a bundle on each of `hosts` (`user@device`), and build its TensorRT engines where that can be.

    `ssh`: the command, with options. `python`: as the shell there understands it, `~/venv/bin/python` for one.
    `seconds`: after which a step has hung. The results are in the order of the hosts; one that fails does not take the
    others down. Raises `InputError` for a bundle that is damaged, has no runner or one that is too old, and where there
    is no ssh; `UsageError` for a host that is none or named twice.
    """
    check_hosts(hosts, ssh)
    bundle = read_bundle(bundle_folder)
    sent = request(bundle, threads, runs, seconds)
    lock = threading.Lock()

    def report(stage: str, done: int, total: int, /, **figures: float | str) -> None:
        with lock:
            progress(stage, done, total, **figures)

    visits = [Visit(host, tuple(ssh), python, sent, report, seconds) for host in hosts]
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="ssh") as pool:
        results = [pool.submit(one.result, bundle) for one in visits]
        try:
            return [result.result() for result in results]
        finally:  # after Ctrl-C some are still there
            pool.shutdown(wait=False, cancel_futures=True)
            for one in visits:
                one.hang_up()
            end = time.monotonic() + 10
            for one in visits:
                one.wait(end - time.monotonic())


def subject_of(bundle: Bundle, found: HostResult, scores: AnyScores | None, cost: Cost) -> Subject:
    """What a host found, as a subject of the report; the memory in `cost` becomes the host's."""
    verified, timed, classifier = found.verify, found.bench, bundle.manifest.classifier
    engine, version = ENGINES[timed["engine"]], timed["engine_version"]
    title = RUNTIMES[engine.runtime].title
    runtime = f"{title} {version}" if version else f"{title} by {timed['engine']}"
    return Subject(
        name=f"{bundle.folder.resolve().name} on {found.host}",
        kind="bundle",
        role="int8" if timed["precision"] == "int8" else "student",
        source=legible(str(bundle.folder)),
        host=found.host,
        architecture=sized(classifier.student, classifier.width),
        precision=ENGINE_PRECISIONS[timed["precision"]],
        backend=engine.runtime,
        runtime=f"{runtime}, CPU" if engine.on_cpu else runtime,
        threads=timed["threads"] if engine.on_cpu else None,
        scores=scores,
        latency=latency_of(timed),
        cost=cost.model_copy(
            update={"process_bytes": timed["memory_bytes"], "peak_process_bytes": timed["peak_memory_bytes"]}
        ),
        golden=golden_of(verified),
        machine=from_bench(timed),
    )


def check_hosts(hosts: Sequence[str], ssh: Sequence[str]) -> None:
    """Raise `UsageError` for a host that is none or named twice, `InputError` where there is no ssh."""
    for host in hosts:
        if not host or host.startswith("-") or not host.isprintable() or " " in host:
            raise UsageError(f"--host: '{host}' is no host. Name one as for ssh: user@device.")
        if hosts.count(host) > 1:
            raise UsageError(f"--host: '{host}' is named twice: its times would spoil each other.")
    if shutil.which(ssh[0]) is None:
        raise InputError(f"{ssh[0]}: not installed here. Next: sudo apt install openssh-client, or name it with --ssh.")
