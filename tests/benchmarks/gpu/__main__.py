"""One command that shows on a GPU what edgekd is there: right, how fast, and where the time goes.

    python -m tests.benchmarks.gpu --minutes 8 --out DIR [--esc10 DIR] [--yamnet FILE] [--continue DIR]

No network, and one process on the device: the parts run in it in the order below, each in its share of the minutes.
One that fails or whose time is up loses nothing of the others, and `gpu.json` in the folder is written whole after each
of its checks. Where the process dies or does not come back, another does the rest (`attempts`). `--continue` takes up
what an earlier call left, in its folder where there is no `--out`: what came to its end on the same card is kept, the
rest is done, and the study goes on. With `--device cpu` shapes are small: it shows that the script runs. The exit code
is 1 where a part or a check failed or was lost, or does not hold; bars that are missed do not count.

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

SETTLING = 8.0  # seconds for what is written at the end
SHARES = {
    "card": 0.03,
    "correctness": 0.3,
    "training": 0.4,
    "memory": 0.03,
    "profile": 0.04,
    "chain": 0.2,
    "study": 0.15,
}
RESULTS = "gpu.json"
MOST_SHOWN = 11_000  # characters: what is printed before is lost where only so much of it is kept


def main(arguments: list[str] | None = None) -> None:
    from edgekd.files.whole import write_json
    from edgekd.process_setup import keep_freed_memory, set_up_threads

    set_up_threads()  # before anything loads torch
    keep_freed_memory()
    options = _options(arguments)
    if options.call is None:
        sys.exit(_in_processes(sys.argv[1:] if arguments is None else arguments, options))
    if options.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            print("--device cuda: torch finds no CUDA device here; --device cpu tries the script", file=sys.stderr)
            sys.exit(2)
    os.environ["EDGEKD_CACHE_DIR"] = str(options.scratch / "cache")
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(options.scratch / "inductor"))
    found = run(options, options.scratch)
    print(_fitting("\n".join(show(found))), flush=True)
    write_json(options.out / RESULTS, found | {"exit_code": int(any(map(_is_wrong, found["parts"].values())))})


def _in_processes(arguments: list[str], options: argparse.Namespace) -> int:
    """Have the work done in a process of its own; its exit code."""
    from tests.benchmarks.gpu import attempts

    began = time.time()
    with tempfile.TemporaryDirectory(prefix="edgekd-gpu-", ignore_cleanup_errors=True) as scratch:
        command = [sys.executable, "-m", "tests.benchmarks.gpu", *arguments, "--call", str(began), "--scratch", scratch]
        return attempts.work(command, options.out / RESULTS, str(began), began + 60 * options.minutes)


def run(options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Everything that was asked for; what `gpu.json` holds."""
    from edgekd.files.whole import write_json
    from tests.benchmarks.gpu.parts import Task, run_parts

    parts = [part for part in _parts() if part.name in _wanted(options)]
    without_data = options.esc10 is None and any(part.name == "study" for part in parts)
    if without_data:  # the others have its time
        parts = [part for part in parts if part.name != "study"]
    found: dict[str, Any] = {
        "version": 1,
        "call": str(options.call),
        "began": datetime.fromtimestamp(options.call, UTC).isoformat(timespec="seconds"),
        "device": options.device,
        "card": _card(options.device),
        "minutes": options.minutes,
        "parts": {},
    }
    parts, kept = _take_up(options.continued, options.out, found, parts)
    shared: dict[str, Any] = {"ceilings": found["parts"].get("card", {}).get("result", {}).get("ceilings")}
    with open(options.out / "gpu.log", "a", encoding="utf-8") as log:

        def say(line: str) -> None:
            told = f"{time.time() - options.call:6.1f} s  {line}"
            print(told, file=log, flush=True)
            print(told, file=sys.stderr, flush=True)

        def save() -> None:
            for part in found["parts"].values():
                part.setdefault("card", found["card"])
            write_json(options.out / RESULTS, found)

        def make(part: str, seconds: float) -> Task:
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
                result=kept.get(part, {}),
                save=save,
            )

        save()
        left = options.call + 60 * options.minutes - min(SETTLING, 6 * options.minutes) - time.time()
        run_parts(parts, time.monotonic() + left, make, found["parts"], save, say)
        if without_data:
            found["parts"].setdefault("study", {"state": "not here", "why": "no --esc10 DIR"})
        found["parts"] = {name: found["parts"][name] for name in SHARES if name in found["parts"]}
        save()
        for name, part in found["parts"].items():
            if "traceback" in part:
                print(f"\n{name}:\n{part['traceback']}", file=log)
            for check, said in part.get("result", {}).get("checks", {}).items():
                if "traceback" in said:
                    print(f"\n{name}, {check}:\n{said['traceback']}", file=log)
    return found


def _card(device: str) -> str:
    """What the device calls itself."""
    if device == "cpu":
        return device
    import torch

    return torch.cuda.get_device_name()


def _is_wrong(part: Mapping[str, Any]) -> bool:
    """Whether a part, or a check of it, failed, was lost or does not hold."""
    checks = part.get("result", {}).get("checks", {}).values()
    return any(each["state"] in ("failed", "lost") or each.get("holds") is False for each in (part, *checks))


def show(found: Mapping[str, Any]) -> Iterator[str]:
    """The tables, line by line."""
    shown = {part.name: part.show for part in _parts()}
    for name, part in found["parts"].items():
        why = f": {part['why']}" if part.get("why") else ""
        yield f"== {name}: {part['state']}{why} ({part.get('seconds', 0):.0f} s, {part.get('card')})"
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


def _take_up(
    before: Path | None, out: Path, found: dict[str, Any], parts: list[Any]
) -> tuple[list[Any], dict[str, dict[str, Any]]]:
    """Put what an earlier process of this call, or an earlier call, found into `found`, and the study of `before` into
    `out`; the parts that remain, and checks of theirs that are not done again."""
    from tests.benchmarks.gpu import attempts

    earlier = attempts.read_results(out / RESULTS, found["call"])
    same_call = earlier is not None
    if earlier is None and before is not None:
        earlier = json.loads((before / RESULTS).read_text())
        if (before / "study").is_dir() and before.resolve() != out.resolve():
            shutil.copytree(before / "study", out / "study", dirs_exist_ok=True)
    if earlier is None:
        return parts, {}
    found["parts"] |= earlier["parts"]
    left, kept = [], {}
    for part in parts:
        old = found["parts"].get(part.name)
        if old is None:
            left.append(part)
            continue
        old["earlier"] = old.get("earlier", not same_call)  # until it is begun in this call
        goes_on = old["earlier"] and (part.name == "study" or old.get("card") != found["card"])
        if goes_on or (attempts.unfinished(old) if old["earlier"] else old["state"] == attempts.AT_WORK):
            left.append(part)
            if old.get("card") == found["card"]:
                kept[part.name] = attempts.known(old, same_call=not old["earlier"])
    return left, kept


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
    parser.add_argument("--call", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
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
        _earlier(parser, "--continue", options.continued)
    _check_study(parser, options)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        parser.error(f"--out: {options.out}: {failure.strerror}")
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
        found = json.loads((folder / RESULTS).read_text())
    except OSError:
        parser.error(f"{option}: no {RESULTS} in {folder}")
    except ValueError:
        parser.error(f"{option}: {folder / RESULTS} is damaged")
    if (
        not isinstance(found, dict)
        or not isinstance(found.get("parts"), dict)
        or not found["parts"].keys() <= SHARES.keys()
    ):
        parser.error(f"{option}: {folder / RESULTS} is not of this script")
    return found


if __name__ == "__main__":
    main()
