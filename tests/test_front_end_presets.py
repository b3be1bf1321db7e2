"""Front ends by name."""

from __future__ import annotations

import onnx
import pytest

from edgekd.config import DistillConfig, FrontendConfig, parse
from edgekd.errors import UsageError
from edgekd.exporting.computed_weights import with_computed_weights
from edgekd.exporting.cost import graph_cost
from edgekd.exporting.onnx_writer.front_end import write_log_mel
from edgekd.exporting.onnx_writer.shaping import transpose
from edgekd.exporting.onnx_writer.sheet import Sheet, Value
from edgekd.front_end_presets import PRESETS, put_preset
from edgekd.log_mel import ExportLogMel


def front_end(samples: int, rate: int, config: FrontendConfig) -> onnx.ModelProto:
    sheet, log_mel = Sheet(), ExportLogMel(config, rate)
    waveform = Value("waveform", (1, samples))
    with sheet.within("frontend"):
        found = write_log_mel(sheet, log_mel, waveform, lambda sheet, value: transpose(sheet, value, 1, 2))
    return with_computed_weights(sheet.model("log_mel", waveform, [found], 18, "batch"), log_mel, "frontend")


@pytest.mark.parametrize("name", PRESETS)
def test_the_table_says_what_a_front_end_costs(name: str) -> None:
    preset, values = PRESETS[name], {"data": {"clip_seconds": 5.0}}
    put_preset(values, name)
    config = parse(DistillConfig, values, name)
    samples = 5 * preset.sample_rate
    assert config.frontend.shape(samples) == preset.cells
    model = front_end(samples, preset.sample_rate, config.frontend)
    assert graph_cost(model).macs == preset.macs
    assert model.ByteSize() / 1e3 == pytest.approx(preset.kilobytes, abs=0.1)


def test_the_first_is_the_default() -> None:
    values: dict[str, dict[str, object]] = {}
    put_preset(values, next(iter(PRESETS)))
    found, default = parse(DistillConfig, values, "preset"), DistillConfig()
    assert (found.frontend, found.data.sample_rate) == (default.frontend, default.data.sample_rate)


def test_what_was_said_of_the_front_end_before_is_forgotten_and_the_data_are_not() -> None:
    values = {
        "data": {"sample_rate": 44_100, "clip_seconds": 2.0},
        "frontend": {"convention": "yamnet", "f_max": 20_000.0, "n_fft": 4096, "frames_per_step": 2},
    }
    put_preset(values, "16k-20ms-40")
    config = parse(DistillConfig, values, "preset")
    assert config.data.clip_seconds == 2.0
    assert config.frontend == FrontendConfig(hop_ms=20.0, n_mels=40, convention="panns").at(16_000)


def test_a_wrong_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"Unknown front-end preset '16k-20'. Did you mean '16k-20ms'\?"):
        put_preset({}, "16k-20")
