"""The table of runtimes: what a board can run, by the name that its TOML says."""

from edgekd.exporting.runtimes.onnxruntime import OnnxRuntime
from edgekd.exporting.runtimes.plain_c import PlainC
from edgekd.exporting.runtimes.runtime import Runtime
from edgekd.exporting.runtimes.tensorrt import TensorRT
from edgekd.exporting.runtimes.tensorrt_rtx import TensorRTForRTX

RUNTIMES: dict[str, Runtime] = {
    OnnxRuntime.name: OnnxRuntime(),
    TensorRT.name: TensorRT(),
    TensorRTForRTX.name: TensorRTForRTX(),
    PlainC.name: PlainC(),
}
