"""Run the classifier in this folder: check it, classify WAV files or a live signal, time it.

    python3 edgekd_runner.py verify
    python3 edgekd_runner.py predict FILE... [--top K] [--json]
    python3 edgekd_runner.py detect FILE... [--out TABLE] [--threshold [CLASS=]SCORE]
    arecord -q -f S16_LE -r 32000 -t raw | python3 edgekd_runner.py stream [--events] [--hop SECONDS]
    python3 edgekd_runner.py bench [--threads N] [--json]
    python3 edgekd_runner.py choose

Needs Python 3.8 or later, numpy 1.20 or later, and onnxruntime (1.17 or later for a model in opset 20, as README.md
says); or TensorRT's Python module (8.5 or later) where `build_engine.sh` has built engines; or TensorRT for RTX where
the bundle holds them. Everything else it needs to know is in `manifest.json`.

Exit codes: 0 done; 1 an unforeseen failure; 2 wrong usage; 3 a bad or missing file, or a bundle that has been changed;
4 this device does not agree with the golden examples; 130 interrupted. `EDGEKD_DEBUG=1` shows where an error came from.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from pathlib import Path
from typing import Any, Callable, Sequence

import numpy as np

from edgekd.device.runner.bench import run_bench
from edgekd.device.runner.choose import run_choose
from edgekd.device.runner.classifier import open_runner
from edgekd.device.runner.detect import TABLES, run_detect
from edgekd.device.runner.errors import BAD_INPUT, DISAGREES, INTERRUPTED, RunnerError, complain, plain
from edgekd.device.runner.live import run_stream
from edgekd.device.runner.stream import STREAM_FORMATS
from edgekd.device.runner.wav import open_wav
from edgekd.device.runner.wav_header import RATES


def run_verify(folder: Path, options: argparse.Namespace) -> int:
    """The command `verify`."""
    runner = open_runner(folder, options.threads, options.precision, options.cpu)
    outcome = runner.verify()
    if options.json:
        print(json.dumps({"files": len(runner.manifest["files"]) + 1, **outcome}))
    else:
        tolerance = outcome["tolerance"]
        print(f"files               {len(runner.manifest['files']) + 1} unchanged")
        print(f"golden examples     {outcome['clips']}, run by {plain(runner.engine)} in {runner.precision}")
        same = "same answers" if runner.answers_several else "same top class"
        print(f"{same:<18}  {outcome['agreement']:.1%}   (at least {tolerance['agreement']:.1%})")
        print(f"largest difference  {outcome['largest_difference']:.2g}   (at most {tolerance['probability']:g})")
        if "known_difference" in outcome:
            print(f"how familiar        {outcome['known_difference']:.2g} of the range of its scores")
        if "layers_in_float" in outcome:
            print(f"not in int8         {plain(', '.join(outcome['layers_in_float'])) or 'no layer that is to be'}")
    if outcome["agrees"]:
        return 0
    complain("this device does not agree with the golden examples: do not rely on its answers.")
    return DISAGREES


def run_predict(folder: Path, options: argparse.Namespace) -> int:
    """The command `predict`."""
    runner = open_runner(folder, options.threads, options.precision, options.cpu)
    rows: list[dict[str, Any]] = []
    width = max(len(plain(path)) for path in options.files)
    exit_code = 0
    for path in options.files:
        try:
            with open_wav(path) as wav:
                seconds = wav.frames / wav.rate
                answer, silent = runner.hear(wav.blocks(runner.channel, runner.full_scale), wav.rate)
        except RunnerError as failure:
            complain(f"{path}: {failure}", failure)
            rows.append({"file": str(path), "error": str(failure)})
            exit_code = BAD_INPUT
            continue
        scores, told = answer[: len(runner.classes)], runner.told(answer)
        answered = runner.answered(scores) if runner.answers_several else None
        shown = options.top or (1 if answered is None else len(answered))
        best = np.argsort(-scores, kind="stable")[:shown]
        if answered is not None and not options.top:  # of thresholds that differ it may be none of the best
            best = np.array([runner.classes.index(name) for name in answered], dtype=np.intp)
        top = [{"class": runner.classes[k], "score": round(float(scores[k]), 6)} for k in best]
        several = {} if answered is None else {"classes": answered}
        rows.append({"file": str(path), "seconds": round(seconds, 3), "silent": silent, **told, **several, "top": top})
        if not options.json:
            said = [f"{plain(row['class'])} {row['score']:.3f}" for row in top] or ["none of the classes"]
            said = ["unknown"] * told.get("unknown", False) + said + ["(silent)"] * silent
            print(f"{plain(path):<{width}}  " + "   ".join(said), flush=True)
    if options.json:
        print(json.dumps({"files": rows}))
    return exit_code


def _between(kind: Callable[[str], Any], lowest: float, highest: float) -> Callable[[str], Any]:
    def number(text: str) -> Any:
        value = kind(text)
        if not lowest <= value <= highest:
            raise argparse.ArgumentTypeError(f"{text} is not between {lowest:g} and {highest:g}")
        return value

    return number


def _threshold(text: str) -> tuple[str | None, float]:
    """`SCORE`, of all classes, or `CLASS=SCORE`."""
    name, equals, number = text.rpartition("=")
    if equals and not name:
        raise argparse.ArgumentTypeError(f"{text}: write a number, or CLASS=NUMBER")
    return name or None, _between(float, 0, 1)(number)


def _parser() -> argparse.ArgumentParser:
    count, runs, seconds = _between(int, 1, 1e9), _between(int, 1, 1e6), _between(float, 1e-3, 1e6)
    result = argparse.ArgumentParser(add_help=False)
    result.add_argument("--json", action="store_true", help="the result as one JSON object")
    model = argparse.ArgumentParser(add_help=False)
    model.add_argument(
        "--threads", type=_between(int, 1, 1024), default=1, metavar="N", help="CPU threads for onnxruntime (1)"
    )
    model.add_argument(
        "--precision", metavar="P", help="int8, fp16, fp32 or fp16-dla, where the bundle has it (the chosen one)"
    )
    model.add_argument("--cpu", action="store_true", help="onnxruntime, even where an engine has been built")
    parser = argparse.ArgumentParser(prog="edgekd_runner.py", description="Run the classifier in this folder.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="verify|predict|detect|stream|bench|choose")

    def command(
        name: str, run: Callable[..., int], about: str, *parents: argparse.ArgumentParser
    ) -> Callable[..., Any]:
        added = commands.add_parser(name, parents=parents, help=about, description=about)
        added.set_defaults(run=run)
        return added.add_argument

    command("verify", run_verify, "is the bundle whole, and does this device agree", result, model)

    add = command("predict", run_predict, "classify WAV files of any rate and length", result, model)
    add("files", nargs="+", type=Path, metavar="FILE")
    add(
        "--top",
        type=count,
        metavar="K",
        help="how many classes to show (1; of several at once those that are answered)",
    )

    events = argparse.ArgumentParser(add_help=False)
    events.add_argument("--hop", type=seconds, metavar="S", help="seconds from one window to the next (the bundle's)")
    chosen = "of all classes or one, for an event; with stream alone, SCORE: leave out weaker windows (the bundle's; 0)"
    events.add_argument("--threshold", type=_threshold, action="append", metavar="[CLASS=]SCORE", help=chosen)
    length = _between(float, 0, 1e6)
    events.add_argument("--minimum", type=length, metavar="S", help="leave out shorter events (the bundle's)")
    events.add_argument("--gap", type=length, metavar="S", help="join events no further apart (the bundle's)")
    events.add_argument("--exclusive", action="store_true", help="one class at a time, the surest")

    add = command("detect", run_detect, "events in WAV files: what, from when to when, how surely", model, events)
    add("files", nargs="+", type=Path, metavar="FILE")
    add("--out", type=Path, metavar="TABLE", help="a file ending in .jsonl, .csv or .txt, Raven's (JSON lines, here)")
    add("--format", choices=TABLES, help="of the table, whatever its ending")

    add = command("stream", run_stream, "classify raw PCM on standard input, a JSON line a window", model, events)
    add("--events", action="store_true", help="a JSON line an event, when it has ended, as `detect` has them")
    rate = _between(int, RATES[0], RATES[-1])
    formats = "little-endian samples; arecord's S16_LE, S24_3LE, S32_LE, U8, FLOAT_LE (s16)"
    behind = "slow: skip windows for newer ones, or let the writer wait; auto: wait where nothing is lost by it (auto)"
    add("--rate", type=rate, metavar="HZ", help="of the input; another than the bundle's is resampled (the bundle's)")
    add("--format", choices=STREAM_FORMATS, default="s16", help=formats)
    add("--channels", type=_between(int, 1, 64), default=1, metavar="N", help="interleaved (1)")
    add("--smooth", type=runs, default=1, metavar="N", help="mean of the last N windows' scores (1)")
    add("--top", type=count, metavar="K", help="only the K best classes in `scores` (all)")
    add("--behind", choices=("auto", "skip", "wait"), default="auto", help=behind)
    add("--stall-seconds", type=seconds, default=10, metavar="S", help="say so when nothing comes for S seconds (10)")

    add = command("bench", run_bench, "latency of one clip, memory, clocks, heat", result, model)
    add("--runs", type=runs, default=200, metavar="N", help="timed runs, at most (200)")
    add("--seconds", type=seconds, default=20, metavar="S", help="end after S seconds even so (20)")
    add("--warmup", type=runs, default=20, metavar="N", help="untimed runs at first; more until it settles (20)")

    add = command(
        "choose", run_choose, "verify and time every TensorRT engine here, use the fastest that agrees", result
    )
    add("--runs", type=runs, default=200, metavar="N", help="timed runs of each (200)")
    return parser


def main(arguments: Sequence[str] | None = None, folder: Path | None = None) -> int:
    """Run a command on the bundle in `folder` (where this file is) and return the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that is not in UTF-8, or not in the terminal's letters
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            options = _parser().parse_args(arguments)
            return options.run(folder or Path(__file__).resolve().parent, options)
        finally:
            sys.stdout.flush()  # here, where it can be said that it fails
    except RunnerError as failure:
        complain(str(failure), failure)
        return failure.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # what reads our output has seen enough
        _let_go_of_output()
        return 0
    except OSError as failure:
        complain(f"{failure.filename or 'standard output'}: {failure.strerror}")
        _let_go_of_output()
        return BAD_INPUT


def _let_go_of_output() -> None:
    """Have Python write nothing more to standard output, nor complain of what it holds, when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _one_line(kind: type[BaseException], failure: BaseException, _: Any) -> None:
    complain(f"unforeseen failure: {kind.__name__}: {failure}. EDGEKD_DEBUG=1 shows where.")


if __name__ == "__main__":
    if os.environ.get("EDGEKD_DEBUG") != "1":
        sys.excepthook = _one_line
    sys.exit(main())
