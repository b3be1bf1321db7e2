"""One command that shows on a GPU what edgekd is there: right, how fast, and where the time goes.

    python -m tests.benchmarks.gpu --minutes 8 --out DIR [--esc10 DIR] [--yamnet FILE] [--continue DIR]

One process, no network. The parts run in the order below, each in its share of the minutes; one that fails or whose
time is up loses nothing of the others, and `gpu.json` in the folder is written whole after each. `--continue` takes up
what an earlier call left, in its folder where there is no `--out`: parts that were done are kept, the others are run
again, and the study goes on. With `--device cpu` shapes are small: it shows that the script runs.

    card         the machine, and what it was seen to do at best
    correctness  steps against the CPU's, bf16, compiled, stored answers, int8, a run killed and resumed
    training     clips a second against `naive`, floors, a trace
    memory       batches that do not fit
    profile      latencies by the device's events
    chain        `edgekd demo`, and profiles of its run
    study        students, methods, folds and seeds on ESC-10, as far as the time goes
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

BEGAN = time.monotonic()
SETTLING = 8.0  # seconds for what is written at the end
SHARES = {
    "card": 0.04,
    "correctness": 0.26,
    "training": 0.34,
    "memory": 0.04,
    "profile": 0.05,
    "chain": 0.27,
    "study": 0.3,
}
MOST_SHOWN = 11_000  # characters: what is printed before is lost where only so much of it is kept


def main(arguments: list[str] | None = None) -> None:
    from edgekd.process_setup import keep_freed_memory, set_up_threads

    set_up_threads()  # before anything loads torch
    keep_freed_memory()
    options = _options(arguments)
    with tempfile.TemporaryDirectory(prefix="edgekd-gpu-", ignore_cleanup_errors=True) as scratch:
        os.environ["EDGEKD_CACHE_DIR"] = str(Path(scratch) / "cache")
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path(scratch) / "inductor"))
        found = run(options, Path(scratch))
    print(_fitting("\n".join(show(found))))
    if any(part["state"] == "failed" for part in found["parts"].values()):
        sys.exit(1)


def run(options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Everything that was asked for; what `gpu.json` holds."""
    from tests.benchmarks.gpu.parts import RESULTS, Task, run_parts, save_results

    parts = [part for part in _parts() if part.name in _wanted(options)]
    without_data = options.esc10 is None and any(part.name == "study" for part in parts)
    if without_data:  # the others have its time
        parts = [part for part in parts if part.name != "study"]
    found: dict[str, Any] = {
        "version": 1,
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": options.device,
        "minutes": options.minutes,
        "parts": {},
    }
    shared: dict[str, Any] = {}
    if options.continued is not None:
        parts = _take_up(options.continued, options.out, found, parts, RESULTS)
        shared["ceilings"] = found["parts"].get("card", {}).get("result", {}).get("ceilings")
    with open(options.out / "gpu.log", "a", encoding="utf-8") as log:

        def say(line: str) -> None:
            told = f"{time.monotonic() - BEGAN:6.1f} s  {line}"
            print(told, file=log, flush=True)
            print(told, file=sys.stderr, flush=True)

        def make(seconds: float) -> Task:
            return Task(
                device=options.device,
                small=options.device == "cpu",
                scratch=scratch,
                out=options.out,
                seconds=seconds,
                log=say,
                data=options.esc10,
                weights=options.yamnet,
                shared=shared,
            )

        deadline = BEGAN + 60 * options.minutes - min(SETTLING, 6 * options.minutes)
        run_parts(parts, deadline, make, found["parts"], lambda: save_results(options.out, found), say)
        if without_data:
            found["parts"].setdefault("study", {"state": "not here", "why": "no --esc10 DIR"})
            save_results(options.out, found)
        for name, part in found["parts"].items():
            if "traceback" in part:
                print(f"\n{name}:\n{part['traceback']}", file=log)
            for check, said in part.get("result", {}).get("checks", {}).items():
                if "traceback" in said:
                    print(f"\n{name}, {check}:\n{said['traceback']}", file=log)
    return found


def show(found: Mapping[str, Any]) -> Iterator[str]:
    """The tables, line by line."""
    shown = {part.name: part.show for part in _parts()}
    for name, part in sorted(found["parts"].items(), key=lambda pair: list(SHARES).index(pair[0])):
        why = f": {part['why']}" if part.get("why") else ""
        yield f"== {name}: {part['state']}{why} ({part.get('seconds', 0):.0f} s)"
        try:
            yield from shown[name](part.get("result", {}))
        except Exception as failure:  # what a part left half done must not hide the rest
            yield f"could not be shown: {type(failure).__name__}: {failure}"


def _fitting(text: str) -> str:
    if len(text) <= MOST_SHOWN:
        return text
    return (
        f"{text[:MOST_SHOWN]}\n... {len(text) - MOST_SHOWN} characters more: python -m tests.benchmarks.gpu --show DIR"
    )


def _parts() -> list[Any]:
    from tests.benchmarks.gpu import card, chain, correctness, memory, profiles, speed, studied
    from tests.benchmarks.gpu.parts import Part

    modules: dict[str, Any] = {
        "card": card,
        "correctness": correctness,
        "training": speed,
        "memory": memory,
        "profile": profiles,
        "chain": chain,
        "study": studied,
    }
    return [Part(name, SHARES[name], module.run, module.show) for name, module in modules.items()]


def _wanted(options: argparse.Namespace) -> list[str]:
    return [name for name in options.only or SHARES if name not in options.skip]


def _take_up(before: Path, out: Path, found: dict[str, Any], parts: list[Any], results: str) -> list[Any]:
    """Put what an earlier call found into `found`, its study into `out`; the parts that remain."""
    old = json.loads((before / results).read_text())
    found["parts"] |= old["parts"]  # each until it is run again
    done = {name for name, part in old["parts"].items() if part["state"] == "done" and name != "study"}
    if (before / "study").is_dir() and before.resolve() != out.resolve():
        shutil.copytree(before / "study", out / "study", dirs_exist_ok=True)
    return [part for part in parts if part.name not in done]


class _Parser(argparse.ArgumentParser):
    """A mistake is one line; what there is to choose from says `--help`."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (--help: all options)\n")


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = _Parser(
        prog="python -m tests.benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="in all, from the start of the process; default: 8")
    parser.add_argument("--out", type=Path, metavar="DIR", help="for gpu.json, gpu.log, pictures and the study")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda", help="default: cuda")
    parser.add_argument("--continue", type=Path, dest="continued", metavar="DIR", help="what an earlier call left")
    parser.add_argument("--only", nargs="+", choices=SHARES, metavar="PART", default=[], help="these parts")
    parser.add_argument("--skip", nargs="+", choices=SHARES, metavar="PART", default=[], help="all parts but these")
    parser.add_argument("--esc10", type=Path, metavar="DIR", help="the study's data; without it the study is left out")
    parser.add_argument("--yamnet", type=Path, metavar="FILE", help="weights of the study's teacher")
    parser.add_argument("--show", type=Path, metavar="DIR", help="print the tables of an earlier call, and do nothing")
    options = parser.parse_args(arguments)
    if options.show is not None:
        print(*show(_earlier(parser, "--show", options.show)), sep="\n")
        sys.exit()
    if options.out is None:
        options.out = options.continued
    if options.out is None:
        parser.error("--out: which folder?")
    if not 0 < options.minutes <= 600:
        parser.error("--minutes: more than 0, at most 600")
    if not _wanted(options):
        parser.error("--only, --skip: no part is left")
    if options.continued is not None:
        before = _earlier(parser, "--continue", options.continued).get("device")
        if before != options.device:
            parser.error(f"--continue: {options.continued} is of --device {before}, not {options.device}")
    _check_study(parser, options)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        parser.error(f"--out: {options.out}: {failure.strerror}")
    if options.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            parser.error("--device cuda: torch finds no CUDA device here; --device cpu tries the script")
    return options


def _check_study(parser: _Parser, options: argparse.Namespace) -> None:
    if options.esc10 is not None and not options.esc10.is_dir():
        parser.error(f"--esc10: no folder {options.esc10}")
    if options.yamnet is not None and not options.yamnet.is_file():
        parser.error(f"--yamnet: no file {options.yamnet}")
    if options.esc10 is None and _wanted(options) == ["study"]:
        parser.error("--only study: needs --esc10 DIR")


def _earlier(parser: _Parser, option: str, folder: Path) -> dict[str, Any]:
    """The `gpu.json` of an earlier call."""
    try:
        found = json.loads((folder / "gpu.json").read_text())
    except OSError:
        parser.error(f"{option}: no gpu.json in {folder}")
    except ValueError:
        parser.error(f"{option}: {folder / 'gpu.json'} is damaged")
    if (
        not isinstance(found, dict)
        or not isinstance(found.get("parts"), dict)
        or not found["parts"].keys() <= SHARES.keys()
    ):
        parser.error(f"{option}: {folder / 'gpu.json'} is not of this script")
    return found


if __name__ == "__main__":
    main()
