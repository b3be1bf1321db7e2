"""One host's turn: a bundle goes there over ssh, and what `verify` and `bench` found comes back.

One connection carries everything: a small program (`edgekd.device.host_agent`) that Python there reads from standard
input, the bundle's files after it, and the answers on the way back. It works in a temporary folder, which it removes
when it has finished and also when the connection breaks.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from edgekd.device import host_agent
from edgekd.errors import NO_SPACE, InputError
from edgekd.exporting.golden import GoldenExamples
from edgekd.exporting.manifest import Bundle
from edgekd.exporting.runtimes import RUNTIMES
from edgekd.exporting.runtimes.onnx_bundle import RUNNER
from edgekd.exporting.runtimes.tensorrt import BUILD_SCRIPT
from edgekd.profiling.backends import ENGINES
from edgekd.profiling.host_answers import answer_in, news_in
from edgekd.progress import Progress

SECONDS = {"build": 3600, "verify": 900, "bench": 900}  # after which a step has hung
_STEPS = {"build": "building engines", "verify": "verify", "bench": "bench"}

_OPTIONS = (
    *("-T", "-x", "-a", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"),
    *("-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=5"),
    *("-o", "ClearAllForwardings=yes", "-o", "RemoteCommand=none"),
)
_SSH_FAILED = 255
_SHELL_FOUND_NOTHING = (126, 127)

# What ssh says -> what that means, and what to do; {by_hand} is the command that shows it.
_TROUBLE = (
    ("could not resolve hostname", "no host of this name is known. Check its spelling, or give its address."),
    (
        "host identification has changed",
        "its host key is not the one known here: another machine, or set up anew. Next, if you trust it: ssh-keygen -R"
        " its name, then {by_hand}",
    ),
    ("host key", "its host key is not known here yet. Next: {by_hand} once, and accept the key"),
    ("permission denied|too many authentication", "no key of yours is accepted there. Next: ssh-copy-id {host}"),
    ("connection refused", "refuses the connection. Is sshd running there, and on this port?"),
    ("no route to host|network is unreachable", "there is no route to it. Is it switched on, and in this network?"),
    ("timed out", "does not answer. Is it switched on, and in this network?"),
)


@dataclass(frozen=True)
class HostResult:
    """What a host found: the JSON of the runner's `verify` and `bench`."""

    host: str
    verify: dict[str, Any]
    bench: dict[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool:
        """Whether the host agrees with the bundle's golden examples."""
        return bool(self.verify["agrees"])


@dataclass(frozen=True)
class HostFailure:
    """Why a host found nothing: one line, which begins with the host."""

    host: str
    reason: str


def request(bundle: Bundle, threads: int, runs: int, seconds: Mapping[str, int] = SECONDS) -> bytes:
    """All that is sent: the program, what it is to do, the files. `seconds`: what each step may take at most.

    Raises `InputError` for a bundle that no host can run so, or whose programs are not those of this edgekd: a bundle
    may come from anybody, and they are run there.
    """
    if RUNNER not in bundle.manifest.files:
        target = bundle.manifest.target
        runs_on = RUNTIMES[target.runtime].describe(target)
        raise InputError(f"{bundle.folder}: made for {target.title}, whose {runs_on} no host runs over ssh.")
    files = {name: (bundle.folder / name).read_bytes() for name in (*bundle.manifest.files, "manifest.json")}
    check_programs(bundle, files)
    run = ("{python}", RUNNER)
    common = ("--json", "--threads", str(threads))
    steps = {"verify": (*run, "verify", *common), "bench": (*run, "bench", *common, "--runs", str(runs))}
    if BUILD_SCRIPT in files:
        steps = {"build": ("sh", BUILD_SCRIPT), **steps}
    wanted = {
        "files": {name: len(content) for name, content in files.items()},
        "steps": [(name, seconds[name], *arguments) for name, arguments in steps.items()],
    }
    agent = Path(host_agent.__file__).read_bytes()
    head = json.dumps(wanted).encode()
    return b"%d\n%b%b\n%b" % (len(agent), agent, head, b"".join(files.values()))


def check_programs(bundle: Bundle, files: Mapping[str, bytes]) -> None:
    """Raise `InputError` where what is run of the `files` of a bundle on a host is not what this edgekd puts into one:
    a bundle may come from anybody."""
    runtime, golden = RUNTIMES[bundle.manifest.target.runtime], GoldenExamples.read(bundle.folder)
    for name, program in runtime.device_files(bundle.manifest, files, golden).items():
        if files.get(name) != program:
            raise InputError(
                f"{bundle.folder}: its {name} is not that of this edgekd (another version's?), and only that is run "
                "on a host. Export the bundle again, or copy it there and run it yourself."
            )


@dataclass
class _News:
    """What has been heard from a host."""

    folder: str | None = None
    machine: str | None = None
    trtexec: bool = False
    step: str | None = None
    ended: dict[str, dict[str, Any]] = field(default_factory=dict)
    failure: dict[str, Any] | None = None
    removed: bool = False

    def add(self, news: Mapping[str, Any]) -> None:
        if "ended" in news:
            self.ended[news["ended"]] = dict(news)
        elif "failure" in news:
            self.failure = dict(news)
        else:
            for name in ("folder", "machine", "trtexec", "step", "removed"):
                setattr(self, name, news.get(name, getattr(self, name)))


class _Failed(Exception):
    """Why a host found nothing, without the host."""


class Visit:
    """One host's turn, which runs in a thread; `hang_up` ends it from another."""

    def __init__(
        self,
        host: str,
        ssh: tuple[str, ...],
        python: str,
        sent: bytes,
        progress: Progress,
        seconds: Mapping[str, int] = SECONDS,
    ) -> None:
        """`sent`: what `request` returned, with the same `seconds`."""
        self._host, self._ssh, self._python, self._sent, self._progress = host, ssh, python, sent, progress
        self._seconds = seconds
        self._news = _News()
        self._process: subprocess.Popen[bytes] | None = None
        self._copied = self._cancelled = False
        self._lock = threading.Lock()

    def result(self, bundle: Bundle) -> HostResult | HostFailure:
        """What came of it; `bundle` is the one that is sent."""
        total = 3 + (BUILD_SCRIPT in bundle.manifest.files)
        try:
            code, said = self._talk(total)
            self._complain(code, said)
            verified, timed = (self._answer(step) for step in ("verify", "bench"))
        except _Failed as failure:
            return HostFailure(self._host, f"{self._host}: {failure}{self._cleaned_up()}")
        self._progress(self._host, total, total, step="done")
        left = self._cleaned_up()
        notes = [*self._notes(bundle, verified), *([f"timed{left}"] if left else [])]
        return HostResult(self._host, verified, timed, tuple(f"{self._host}: {note}" for note in notes))

    def hang_up(self) -> None:
        """Have the visit end: the program there notices, ends what it runs and removes its folder."""
        with self._lock:
            self._cancelled = True
            if self._process is None:
                return
            if self._copied and self._process.stdin is not None:
                with suppress(OSError):
                    self._process.stdin.close()
            else:
                self._process.terminate()

    def wait(self, seconds: float) -> None:
        """Until a visit that was hung up has ended, or this long."""
        if self._process is not None:
            try:
                self._process.wait(max(0, seconds))
            except subprocess.TimeoutExpired:
                self._process.kill()

    def _talk(self, total: int) -> tuple[int, str]:
        """Send everything, hear everything; the exit code of ssh, and what it or the shell there said."""
        # Double quotes, and nothing in between that a shell would touch: sh, bash, fish and csh hand it on alike.
        command = [*self._ssh, *_OPTIONS, self._host, f'{self._python} -I -c "{host_agent.START}"']
        self._progress(self._host, 0, total, step="connecting")
        with tempfile.TemporaryFile() as errors:
            with self._lock:
                if self._cancelled:
                    raise _Failed("cancelled")
                self._process = process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
                )
            assert process.stdin is not None
            assert process.stdout is not None
            # Beside the reading: what its start-up files print may fill the pipe before anything is read there.
            sender = threading.Thread(target=self._send, args=(process.stdin,), daemon=True)
            sender.start()
            others = []
            for line in process.stdout:
                news = news_in(line)
                if news is None:
                    others.append(line.decode(errors="replace").strip())
                    continue
                self._news.add(news)
                self._show(news, total)
            code = process.wait()
            sender.join(timeout=5)
            with suppress(OSError):
                process.stdin.close()
            process.stdout.close()
            errors.seek(0)
            return code, errors.read().decode(errors="replace").strip() or "\n".join(others[-1:])

    def _send(self, there: IO[bytes]) -> None:
        with suppress(OSError, ValueError):  # where it has gone, its exit code tells why
            there.write(self._sent)
            there.flush()
        with self._lock:
            self._copied = True

    def _show(self, news: Mapping[str, Any], total: int) -> None:
        if "folder" in news:
            self._progress(self._host, 0, total, step="copying")
        elif "step" in news:
            _, of_script, says = news.get("says", "").rpartition(f"{BUILD_SCRIPT}: ")
            done = min(1 + len(self._news.ended), total - 1)
            self._progress(self._host, done, total, step=says if of_script else _STEPS[news["step"]])

    def _complain(self, code: int, said: str) -> None:
        """Raise `_Failed` where the visit did not come to its end."""
        news, last = self._news, said.splitlines()[-1] if said else f"ssh ended with exit code {code}"
        if news.folder is None and news.failure is None:
            raise _Failed(self._not_begun(code, said, last))
        if news.failure is not None:
            full = news.failure["errno"] in NO_SPACE
            next_step = "Make room there" if full else "Is its temporary folder writable?"
            raise _Failed(f"the bundle could not be copied: {news.failure['failure'].lower()}. {next_step}")
        if "bench" not in news.ended and code:
            doing = "while the bundle was copied" if news.step is None else f"during {_STEPS[news.step]}"
            raise _Failed(f"the connection was lost {doing}{f' ({last})' * bool(said)}. Is it still up?")

    def _not_begun(self, code: int, said: str, last: str) -> str:
        by_hand = shlex.join((*self._ssh, self._host))
        if code == _SSH_FAILED:
            for pattern, meaning in _TROUBLE:
                if re.search(pattern, said, re.IGNORECASE):
                    return meaning.format(by_hand=by_hand, host=self._host)
            return f"ssh: {last}. Next: {by_hand}"
        if code in _SHELL_FOUND_NOTHING:
            return f"no {self._python} there ({last}). Name the Python with --remote-python."
        old = re.search(r"edgekd-visit: too old: (\S+)", said)
        if old:
            return (
                f"Python {old[1]} there is too old: the runner needs 3.8 or later. Name another with --remote-python."
            )
        return f"{self._python} could not be started there: {last}. Next: {by_hand} {self._python} --version"

    def _answer(self, step: str) -> dict[str, Any]:
        """The JSON that a step printed."""
        ended = self._news.ended.get(step)
        if ended is None:
            raise _Failed(f"the visit ended before {step}.")
        if ended["late"]:
            raise _Failed(f"{step} had not ended after {self._seconds[step]} s and was stopped.")
        if ended["code"] < 0:
            raise _Failed(f"{step} was ended by signal {-ended['code']}. Is there enough memory?")
        lines = [line for line in ended["output"].splitlines() if line.startswith("{")]
        if ended["code"] not in host_agent.GOES_ON or not lines:
            said = ended["said"][-1] if ended["said"] else f"exit code {ended['code']}"
            reason = said.removeprefix("edgekd_runner: ")
            other = " (or another Python with --remote-python)" if "is not installed" in reason else ""
            raise _Failed(f"{step}: {reason}{other}")
        try:
            return answer_in(step, lines[-1])
        except InputError as failure:
            raise _Failed(f"{step} {failure}") from None

    def _notes(self, bundle: Bundle, verified: Mapping[str, Any]) -> Iterator[str]:
        """What a reader of this host's row should know."""
        news, target = self._news, bundle.manifest.target
        if news.machine != target.architecture:
            yield f"it is {news.machine}, and the bundle is for {target.title} ({target.architecture})"
        if not verified["agrees"]:
            yield (
                f"does not agree with the golden examples: same class on {verified['agreement']:.1%}, largest"
                f" difference {verified['largest_difference']:.2g}. Do not rely on its answers"
            )
        build = news.ended.get("build", {"said": ["it has no trtexec"], "late": False})
        trouble = [line.partition(f"{BUILD_SCRIPT}: ")[2] or line for line in build["said"]]
        trouble = [
            line for line in trouble if not line.startswith(("building ", "built:", "no engine", "edgekd_runner: "))
        ]
        if build["late"]:
            trouble.append(f"it had not ended after {self._seconds['build']} s and was stopped")
        ran = ENGINES[verified["engine"]]
        if ran.runtime != target.runtime:
            yield f"no engine was built ({'; '.join(trouble)}), so {ran.runtime} ran the bundle on the CPU"
        elif "build" in news.ended:
            yield from trouble
        said = [line for step in ("verify", "bench") for line in news.ended[step]["said"]]
        for line in dict.fromkeys(said):
            about = line.removeprefix("edgekd_runner: ")
            if about != line and "no engine here" not in about and "golden examples" not in about:
                yield about

    def _cleaned_up(self) -> str:
        """Remove the folder there where its program had no time to; says so where that cannot be."""
        folder = self._news.folder
        if folder is None or self._news.removed or self._cancelled:
            return ""
        if re.fullmatch(r"/[\w./+-]*/edgekd-\w+", folder):
            command = [*self._ssh, *_OPTIONS, self._host, f"rm -rf {folder}"]
            with suppress(subprocess.TimeoutExpired):
                done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=30, check=False)
                if not done.returncode:
                    return ""
        return f" (the folder {folder} may be left there)"
