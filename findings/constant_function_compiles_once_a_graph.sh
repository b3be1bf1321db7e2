#!/usr/bin/env bash
# A function that PyTorch is told to assume constant can be called once in a compiled graph, if it gives a tensor.
#
# Expected: torch.compiler.assume_constant_result takes the value at the time of tracing for a constant, at each call.
# Seen (torch 2.13.0, CPU, also with backend="aot_eager"): one call compiles. Two calls, with equal or with different
# arguments, are traced, and then end in "AssertionError: source ConstantSource(source_name='window') already in
# seen_sources". The backend "eager" runs them, and so do functions that give numbers.
# Matters: a cached table of weights (a window, a mel matrix, a smoothing kernel) is used in two places of a net sooner
# or later; the message names neither place. Compute the tables before the compiled function and pass them in.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 torch==2.13.0
cd "$work"
venv/bin/python -I - <<'PY'
import torch


@torch.compiler.assume_constant_result
def window(length):
    return torch.hann_window(length)


@torch.compiler.assume_constant_result
def factor(length):
    return 2.0 * length


def one(x):
    return x * window(4)


def two(x):
    return x * window(4) + x[:3].sum() * window(4)


def two_lengths(x):
    return x * window(4) + (x[:3] * window(3)).sum()


def two_numbers(x):
    return x * factor(4) + x * factor(3)


def outcome(function, backend):
    torch.compiler.reset()
    x = torch.arange(4.0)
    try:
        result = torch.compile(function, backend=backend, fullgraph=True)(x)
    except Exception as error:
        return " ".join(str(error).split())[:140]
    assert torch.equal(result, function(x))
    return "right"


seen = {
    (function.__name__, backend): outcome(function, backend)
    for function in (one, two, two_lengths, two_numbers)
    for backend in ("eager", "aot_eager")
}
for (name, backend), result in seen.items():
    print(name, backend, result)
for name in ("two", "two_lengths"):
    assert seen[name, "eager"] == "right"
    assert "source ConstantSource(source_name='window') already in seen_sources" in seen[name, "aot_eager"]
for name in ("one", "two_numbers"):
    assert seen[name, "eager"] == seen[name, "aot_eager"] == "right"
PY
