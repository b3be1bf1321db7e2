from __future__ import annotations

import pytest
import torch

from edgekd.errors import InputError
from edgekd.quantization.int8_student import load_int8, quantized_network
from edgekd.quantization.prepare import QuantizedNetwork
from edgekd.runs.run import Run


def test_activations_take_at_most_256_values(tiny_run: Run) -> None:
    student = load_int8(tiny_run)
    data = tiny_run.open_data()
    waveforms = data.store.waveforms(data.split.test)
    assert isinstance(student.network, QuantizedNetwork)
    with torch.no_grad():
        tap = student(waveforms).tap
    assert 2 < len(tap.unique()) <= 256
    step = tap[tap > 0].min()
    torch.testing.assert_close(tap / step, (tap / step).round(), rtol=0, atol=1e-3)


def test_gain_and_norm_statistics_stay_those_of_the_float_student(tiny_run: Run) -> None:
    floating, rounded = tiny_run.student(), load_int8(tiny_run)
    assert rounded.gain == floating.gain
    assert torch.equal(rounded.norm.running_mean, floating.norm.running_mean)  # type: ignore[arg-type]
    assert torch.equal(rounded.norm.running_var, floating.norm.running_var)  # type: ignore[arg-type]


def test_int8_weights_of_another_student_are_refused(tiny_copy: Run) -> None:
    other = tiny_copy.folder / "student" / "best.safetensors"
    (tiny_copy.folder / "int8" / "best.safetensors").write_bytes(other.read_bytes())
    with pytest.raises(InputError, match=r"int8/best\.safetensors: not weights of"):
        load_int8(tiny_copy)


def test_damaged_settings_of_an_int8_student_are_named(tiny_copy: Run) -> None:
    settings = tiny_copy.folder / "int8" / "quantize.toml"
    written = settings.read_text()
    settings.write_text(written.replace("keep_float = []", 'keep_float = ["stm.0"]'))
    with pytest.raises(InputError, match=r"quantize.toml: keep_float: Unknown layer 'stm.0'. Did you mean 'stem.0'"):
        load_int8(tiny_copy)
    settings.write_text(written.replace("recipe", "receipt"))
    with pytest.raises(InputError, match=r"quantize.toml: unknown key 'receipt'"):
        load_int8(tiny_copy)


def test_settings_of_an_older_version_are_read(tiny_copy: Run) -> None:
    (tiny_copy.folder / "int8" / "quantize.toml").write_text('recipe = "default"\nepochs = 3\nfrozen_epochs = 1\n')
    assert quantized_network(load_int8(tiny_copy)).float_layers() == []
