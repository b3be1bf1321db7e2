"""The table of runtimes: what a board can run, by the name that its TOML says."""

from edgekd.exporting.runtimes.onnxruntime import OnnxRuntime
from edgekd.exporting.runtimes.runtime import Runtime
from edgekd.exporting.runtimes.tensorrt import TensorRT

RUNTIMES: dict[str, Runtime] = {
    OnnxRuntime.name: OnnxRuntime(),
    TensorRT.name: TensorRT(),
}
