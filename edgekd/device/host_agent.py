"""What `edgekd profile --host` runs on a device: takes a bundle in, runs commands in it, leaves nothing behind.

It arrives over ssh on standard input and is never installed: `START` is all of the command line, which any login shell
hands on unchanged. Then come, on the same stream,

    a line       the number of bytes of this program, then these bytes
    a line       {"files": {name: bytes}, "steps": [[name, seconds, argument...]]}, then the files' bytes in this order

and back go lines that begin with `MARK`, each with one JSON object, so that what the device's start-up files print does
no harm: where it is, what each step is up to and how it ended, and that the folder is gone. When the other side hangs
up, or a signal comes, the step in work is ended with all it has started and the folder is removed.

Needs Python 3.8 or later and nothing else.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

MARK = "edgekd-visit: "
START = (
    "import os, sys; sys.version_info < (3, 8) and sys.exit('edgekd-visit: too old: %d.%d' % sys.version_info[:2]); "
    "s = os.fdopen(0, 'rb'); g = dict(__name__='edgekd_visit'); exec(s.read(int(s.readline())), g); g['visit'](s)"
)
GOES_ON = (0, 4)  # done, and done with answers that disagree with the golden examples
TRTEXEC = "/usr/src/tensorrt/bin/trtexec"  # where NVIDIA's packages put it, seldom on PATH


def visit(stream: IO[bytes]) -> None:
    """Serve what comes on `stream`, which has been read as far as this program."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    folder: Path | None = None
    try:
        folder = Path(tempfile.mkdtemp(prefix="edgekd-"))
        has_trtexec = os.access(TRTEXEC, os.X_OK) or shutil.which("trtexec") is not None
        _tell(folder=str(folder), machine=platform.machine(), trtexec=has_trtexec)
        request = json.loads(stream.readline())
        for name, size in request["files"].items():
            content = stream.read(size)
            if len(content) < size:
                return  # the other side has gone
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        threading.Thread(target=_leave_when_hung_up, args=(stream,), daemon=True).start()
        for name, seconds, *arguments in request["steps"]:
            if name == "build" and not has_trtexec:
                continue
            if _run(folder, name, seconds, arguments) not in GOES_ON and name != "build":
                break
    except OSError as failure:
        _tell(failure=failure.strerror or str(failure), errno=failure.errno)
    finally:
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
            _tell(removed=not folder.exists())


def _leave_when_hung_up(stream: IO[bytes]) -> None:
    while os.read(stream.fileno(), 1 << 16):  # not through its buffer, whose lock would be held to the end
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _run(folder: Path, name: str, seconds: float, arguments: list[str]) -> int:
    """The exit code of a step, in a process group of its own; an argument `{python}` is the Python that runs this."""
    command = [sys.executable if argument == "{python}" else argument for argument in arguments]
    own = str(Path(sys.executable).parent)  # build_engine.sh takes the first python3 there is
    path = f"{own}:{os.environ.get('PATH', os.defpath)}"
    environment = {**os.environ, "PATH": path, "TMPDIR": str(folder)}  # onnxruntime leaves a file behind in /tmp
    _tell(step=name)
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        encoding="utf-8",
        errors="replace",
    )
    late = threading.Event()

    def stop() -> None:
        late.set()
        _end(process)

    timer = threading.Timer(seconds, stop)
    timer.start()
    said: list[str] = []
    listener = threading.Thread(target=_listen, args=(process, name, said), daemon=True)
    listener.start()
    try:
        assert process.stdout is not None
        output = process.stdout.read()
        code = process.wait()
        listener.join(timeout=5)
    finally:
        timer.cancel()
        _end(process)
    _tell(ended=name, code=code, output=output, said=said[-20:], late=late.is_set())
    return code


def _listen(process: subprocess.Popen[str], name: str, said: list[str]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        said.append(line.rstrip())
        _tell(step=name, says=said[-1])


def _end(process: subprocess.Popen[str]) -> None:
    with suppress(OSError):  # it has ended
        os.killpg(process.pid, signal.SIGKILL)


def _tell(**news: Any) -> None:
    with suppress(OSError):  # nobody listens any more, and there is still the folder to remove
        sys.stdout.write(MARK + json.dumps(news) + "\n")
        sys.stdout.flush()
