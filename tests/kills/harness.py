"""Commands killed at every event by which they change the disk, and started again.

    python -m tests.kills.harness [SCENARIO ...] [--sample N] [--seed N] [--shard I/N]

Each command is run once unbroken, which counts its events (`events`). Then it is run again from the same beginning as
often as there are kills: it is killed before an event or in the middle of a write, and the same command is started
again; where that is refused, the one that its message names. In the end all files must be what they are after the
unbroken one, but for times. One process has loaded everything and forks for each.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import random
import re
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.kills.events import Events
from tests.kills.scenarios import SCENARIOS, Scenario, contents, folders, write_recordings

MOST_TRIES = 4
LONGEST = 120  # seconds of one command
HEAVY = (
    *("torch", "onnx", "onnxruntime", "matplotlib.figure", "matplotlib.backends.backend_agg", "soundfile"),
    *("edgekd.cli.app", "edgekd.experiments.compare", "edgekd.exporting.export", "edgekd.profiling.profiler"),
    *("edgekd.report.write", "edgekd.checks.prepare", "edgekd.experiments.worker", "edgekd.quantization.qat"),
)


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code (negative: the signal), its last line on standard error, its events."""

    code: int
    said: str
    events: list[str]


@dataclass(frozen=True)
class Trial:
    """One kill, and what came of it: `right`, or what was wrong."""

    scenario: str
    at: int
    half: bool
    event: str
    verdict: str
    left: tuple[str, ...] = ()


class Bench:
    """A folder in which commands are run and killed."""

    def __init__(self, root: Path) -> None:
        self.root, self.trial = root, root / "trial"
        os.environ.update(OMP_NUM_THREADS="1", EDGEKD_CACHE_DIR=str(self.trial / "cache"))
        for name in HEAVY:
            importlib.import_module(name)
        import torch

        torch.set_num_threads(1)
        write_recordings(root / "data")
        self._states: dict[str, Path] = {}

    def run(self, command: list[str], kill_at: int | None = None, *, half: bool = False) -> Ended:
        """Run a command of edgekd in a child, in the folder of the trial."""
        told = self.root / "told.json"
        told.unlink(missing_ok=True)
        child = os.fork()
        if child == 0:
            self._be_the_command(command, kill_at, half, told)
        code = _wait(child)
        said = (self.root / "stderr").read_text(errors="replace")
        events = []
        if told.is_file():
            answer = json.loads(told.read_text())
            events = answer["events"]
            for name in answer["modules"]:  # so that the next child has them
                with suppress(Exception):
                    importlib.import_module(name)
        lines = [line for line in said.splitlines() if line.strip()]
        return Ended(code, lines[-1] if lines else "", events)

    def _be_the_command(self, command: list[str], kill_at: int | None, half: bool, told: Path) -> None:
        code = 70
        try:
            for number, name in ((1, "stdout"), (2, "stderr")):
                file = os.open(self.root / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(file, number)
            os.chdir(self.trial)
            sys.argv = ["edgekd", *command]
            _make_quick(self.root / "graphs")
            before = set(sys.modules)
            events = Events(self.trial, kill_at, half=half)
            events.install()
            from edgekd.cli.app import main

            try:
                main()
                code = 0
            except SystemExit as ending:
                code = int(ending.code or 0)
            modules = sorted(set(sys.modules) - before)
            told.write_text(json.dumps({"events": events.seen, "modules": modules}))
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def restore(self, state: Path | None) -> None:
        """Have the folder of the trial as it was."""
        shutil.rmtree(self.trial, ignore_errors=True)
        if state is None:
            self.trial.mkdir()
        else:
            shutil.copytree(state, self.trial, symlinks=True)

    def state_before(self, scenario: Scenario) -> Path | None:
        """The folder as `scenario` finds it."""
        state: Path | None = None
        for number, command in enumerate(scenario.before):
            cut = scenario.cut if number == len(scenario.before) - 1 else None
            key = json.dumps([scenario.before[: number + 1], cut])
            if key not in self._states:
                self.restore(state)
                done = self.run(command)
                assert done.code == 0, done
                if cut is not None:
                    self.restore(state)
                    assert self.run(command, int(cut * len(done.events))).code == -signal.SIGKILL
                self._states[key] = Path(shutil.copytree(self.trial, self.root / f"state{len(self._states)}"))
            state = self._states[key]
        return state

    def trials(self, name: str, sample: int | None, seed: int, shard: tuple[int, int]) -> Iterator[Trial | int]:
        """How many events an unbroken command has, then its trials: all, or `sample` drawn by `seed`."""
        scenario = SCENARIOS[name]
        state = self.state_before(scenario)
        self.restore(state)
        unbroken = self.run(scenario.command)
        assert unbroken.code == 0, unbroken
        wanted, wanted_folders = contents(self.trial), folders(self.trial)
        yield len(unbroken.events)
        kills = [(at, False) for at in range(len(unbroken.events))]
        kills += [(at, True) for at, event in enumerate(unbroken.events) if event.startswith(("write ", "pwrite "))]
        kills.sort()
        if sample is not None:
            chosen = random.Random(f"{seed} {name}").sample(range(len(kills)), min(sample, len(kills)))
            kills = [kills[number] for number in sorted(chosen)]
        for at, half in kills[shard[0] :: shard[1]]:
            self.restore(state)
            killed = self.run(scenario.command, at, half=half)
            verdict, left = "it did not come to be killed", ()
            if killed.code == -signal.SIGKILL:
                verdict = scenario.keeps(self.trial) or self._again(scenario.command)
                if verdict == "right":
                    verdict, left = self._compared(wanted, wanted_folders)
            yield Trial(name, at, half, unbroken.events[at], verdict, left)

    def _again(self, command: list[str]) -> str:
        """Run the command again, or what the messages name, until it is done."""
        tries, said = [command], ""
        for number in range(MOST_TRIES):
            if number == len(tries):
                break
            done = self.run(tries[number])
            if done.code == 0:
                return "right"
            said = done.said
            tries += [each for each in named_in(said, tries[number]) if each not in tries]
        return f"stuck: {said}"

    def _compared(self, wanted: dict[str, str], wanted_folders: set[str]) -> tuple[str, tuple[str, ...]]:
        found = contents(self.trial)
        wrong = sorted(name for name in wanted if found.get(name) != wanted[name])
        left = sorted((set(found) - set(wanted)) | (folders(self.trial) - wanted_folders))
        return (f"other: {', '.join(wrong)}" if wrong else "right"), tuple(left)


def named_in(said: str, command: list[str]) -> list[list[str]]:
    """The commands that a message names, in its order: whole ones, and this one with another option."""
    found: list[tuple[int, list[str]]] = []
    for match in re.finditer(r"edgekd ((?:distill|quantize|export|profile|compare|data) [^;]*)", said):
        words = match[1].strip().rstrip(".")
        found.append((match.start(), shlex.split(re.split(r"[.,] [A-Z]|\)|'", words)[0])))
    kept = [word for word in command if word not in ("--resume", "--overwrite")]
    for match in re.finditer(r"(?:\(|with )(--resume|--overwrite)|the same command", said):
        found.append((match.start(), [*kept, match[1]] if match[1] else kept))
    return [words for _, words in sorted(found, key=lambda pair: pair[0])]


def _make_quick(graphs: Path) -> None:
    """Leave out what takes long and has no part in it: drawing, starting workers, and tracing a student a second time,
    whose graph is kept in the folder `graphs`."""
    from matplotlib.figure import Figure

    from edgekd.experiments import compare as comparing
    from edgekd.experiments.grid import Job
    from edgekd.experiments.worker import train
    from edgekd.exporting import graph

    def remembered(trace: Callable[..., bytes]) -> Callable[..., bytes]:
        def traced(*of: Any, **more: Any) -> bytes:
            modules = [each for each in of if hasattr(each, "state_dict")]
            key = hashlib.sha256(repr([each for each in (*of, more) if each not in modules]).encode())
            for tensor in (tensor for module in modules for tensor in module.state_dict().values()):
                key.update(tensor.numpy().tobytes())
            kept = graphs / f"{trace.__name__}-{key.hexdigest()}"
            if not kept.is_file():
                graphs.mkdir(exist_ok=True)
                whole = kept.with_suffix(f".{os.getpid()}")
                whole.write_bytes(trace(*of, **more))
                whole.replace(kept)
            return kept.read_bytes()

        return traced

    for name in ("float_onnx", "quantized_onnx"):
        setattr(graph, name, remembered(getattr(graph, name)))
    Figure.savefig = lambda _figure, out, **_: out.write(b"a picture")  # type: ignore[method-assign,assignment]

    class InThisProcess:
        def __init__(self, *_: object) -> None: ...

        def do(self, job: str, /) -> None:
            train(Job.from_line(job))

        def close(self) -> None: ...

    assert comparing.compare.__kwdefaults__ is not None
    comparing.compare.__kwdefaults__["start"] = InThisProcess


def _wait(child: int) -> int:
    """The exit code of a child; one that takes too long is ended."""
    limit = time.monotonic() + LONGEST
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > limit:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return -signal.SIGALRM
        time.sleep(0.002)


def main() -> None:
    """Run the trials; a line of JSON each, and a table at the end on standard error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--sample", type=int, help="so many kills a command, drawn by --seed; all where left out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shard", default="0/1", help="I/N: every N-th kill from I on, to share the work out")
    options = parser.parse_args()
    shard = tuple(map(int, options.shard.split("/")))
    rows = []
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        bench = Bench(Path(folder))
        for name in options.scenarios or SCENARIOS:
            started, trials, events = time.monotonic(), [], 0
            for trial in bench.trials(name, options.sample, options.seed, (shard[0], shard[1])):
                if isinstance(trial, int):
                    events = trial
                    continue
                trials.append(trial)
                print(json.dumps(asdict(trial)), flush=True)
            right = sum(trial.verdict == "right" for trial in trials)
            clean = sum(trial.verdict == "right" and not trial.left for trial in trials)
            seconds = time.monotonic() - started
            rows.append((name, events, len(trials), right, clean, round(seconds)))
            print(f"{rows[-1]}", file=sys.stderr, flush=True)
    print(f"{'command':22}{'events':>8}{'kills':>8}{'right':>8}{'clean':>8}{'s':>6}", file=sys.stderr)
    for name, *figures in rows:
        print(f"{name:22}" + "".join(f"{figure:>8}" for figure in figures[:4]) + f"{figures[4]:>6}", file=sys.stderr)


if __name__ == "__main__":
    main()
