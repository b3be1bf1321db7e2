#!/usr/bin/env bash
# Triton's interpreter truncates to bfloat16 where the compiled kernel rounds, and adds bfloat16 as integers.
#
# Expected: TRITON_INTERPRET=1 is there to check a kernel's numbers without a GPU; operations on bfloat16, which its
# documentation says it does not support, are refused.
# Seen (Triton 3.9.0 and 3.6.0, the kernels compiled for compute capability 8.0, which needs no GPU): 1.9999 to bfloat16
# is 1.9921875 interpreted; the compiled kernel has cvt.rn.bf16.f32, which gives 2. 1 + 1 in bfloat16 is 1.7e38
# interpreted: the sum of the bit patterns; compiled it is an fma.rn.bf16. tl.dot of float32 is exact to 1e-5
# interpreted, and compiled a product in TF32 (10 bits of mantissa), unless input_precision="ieee" is given.
# Matters: a kernel with bfloat16 weights or outputs is tested against numbers that are up to a whole step too small,
# or against nonsense, and a tolerance that fits the interpreter fails on the GPU. Convert to float32 first, compute
# there, and state input_precision.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
cat >kernels.py <<'PY'
import os

import numpy as np
import triton
import triton.language as tl


@triton.jit
def convert(source, target):
    places = tl.arange(0, 4)
    value = tl.load(source.to(tl.pointer_type(tl.float32)) + places)
    tl.store(target.to(tl.pointer_type(tl.bfloat16)) + places, value.to(tl.bfloat16))


@triton.jit
def double(source, target):
    places = tl.arange(0, 4)
    value = tl.load(source.to(tl.pointer_type(tl.bfloat16)) + places)
    tl.store(target.to(tl.pointer_type(tl.bfloat16)) + places, value + value)


@triton.jit
def square(source, target):
    places = tl.arange(0, 16)[:, None] * 16 + tl.arange(0, 16)[None, :]
    value = tl.load(source.to(tl.pointer_type(tl.float32)) + places)
    tl.store(target.to(tl.pointer_type(tl.float32)) + places, tl.dot(value, value))


def instructions(kernel):
    """The instructions of the kernel compiled for compute capability 8.0."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    source = ASTSource(fn=kernel, signature={"source": "i64", "target": "i64"}, constexprs={})
    return triton.compile(source, target=GPUTarget("cuda", 80, 32)).asm["ptx"]


def interpreted(kernel, source, target):
    kernel[(1,)](source.ctypes.data, target.ctypes.data)
    return target


def as_float32(bits):
    return (bits.astype("uint32") << 16).view("float32")


if os.environ.get("TRITON_INTERPRET") == "1":
    values = np.array([1.9999, -1.9999, 1.0, 0.5], "float32")
    converted = as_float32(interpreted(convert, values, np.zeros(4, "uint16")))
    halves = (np.array([1, 1, 1, 1], "float32").view("uint32") >> 16).astype("uint16")
    doubled = as_float32(interpreted(double, halves, np.zeros(4, "uint16")))
    matrix = np.random.default_rng(0).standard_normal((16, 16)).astype("float32")
    squared = interpreted(square, matrix, np.zeros((16, 16), "float32"))
    error = np.abs(squared - matrix.astype("float64") @ matrix).max()
    print(triton.__version__, "interpreted:", converted, doubled, "error of the product:", error)
    assert converted.tolist() == [1.9921875, -1.9921875, 1.0, 0.5]
    assert (doubled > 1e38).all()
    assert error < 1e-5
else:
    names = ("cvt.rn.bf16.f32", "fma.rn.bf16", ".f32.tf32.tf32.f32")
    compiled = [name in instructions(kernel) for name, kernel in zip(names, (convert, double, square))]
    print(triton.__version__, "compiled:", dict(zip(names, compiled)))
    assert all(compiled)
PY
for version in 3.9.0 3.6.0; do
    python3 -m venv "venv-$version"
    "venv-$version/bin/pip" install --quiet numpy==2.4.6 triton==$version
    for interpret in 1 0; do
        TRITON_INTERPRET=$interpret TRITON_CACHE_DIR="$work/cache-$version" \
            "venv-$version/bin/python" -W ignore kernels.py
    done
done
