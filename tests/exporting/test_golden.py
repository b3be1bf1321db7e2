"""Golden examples: real test clips, the trained student's answers, and a check that refuses other ones."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from edgekd.data.index import Split
from edgekd.errors import GateError
from edgekd.exporting.golden import GOLDEN_CLIPS, GoldenExamples, check_golden, choose_golden
from edgekd.exporting.targets import Tolerance, load_target
from edgekd.quantization.fake_quant import set_flavour
from edgekd.quantization.int8_student import load_int8
from edgekd.runs.run import Run

if TYPE_CHECKING:
    from tests.exporting.conftest import Toy


def test_golden_examples_hold_the_float_students_answers(toy: Toy, tmp_path: Path) -> None:
    golden = toy.golden()
    for given in (None, golden.probabilities[:, ::-1].copy()):
        bundle = toy.write(
            tmp_path / f"b{given is None}", golden=dataclasses.replace(golden, float_probabilities=given)
        )
        with np.load(bundle.folder / "golden.npz") as read:
            expected = golden.probabilities if given is None else given
            np.testing.assert_array_equal(read["float_probabilities"], expected)


def test_golden_examples_need_no_pickle(toy: Toy, tmp_path: Path) -> None:
    bundle = toy.write(tmp_path / "bundle")
    with np.load(bundle.folder / "golden.npz", allow_pickle=False) as golden:
        assert {name: golden[name].dtype.name for name in golden.files} == {
            "waveform": "int16",
            "scale": "float32",
            "probabilities": "float32",
            "labels": "int64",
            "float_probabilities": "float32",
        }


def test_golden_examples_are_test_clips_with_the_trained_answers(tiny_bundle: Path, tiny_run: Run) -> None:
    data = tiny_run.open_data()
    index, split, store = data.index, data.split, data.store
    with np.load(tiny_bundle / "golden.npz", allow_pickle=False) as golden:
        labels, probabilities = golden["labels"], golden["probabilities"]
        clips = golden["waveform"] * (golden["scale"][:, None] / np.float32(32767))
    assert len(labels) == GOLDEN_CLIPS
    assert len(set(labels.tolist())) >= 3, "the classes take turns"
    tests = store.waveforms(split.test).numpy()
    for clip, label in zip(clips, labels, strict=True):
        differences = np.abs(tests - clip).max(axis=1)
        nearest = int(differences.argmin())
        assert differences[nearest] <= np.abs(clip).max() / 30_000
        assert index.clips[split.test[nearest]].label == label
    student = load_int8(tiny_run)
    set_flavour(student.network, "onnxruntime")
    with torch.no_grad():
        answers = student(torch.from_numpy(clips.astype(np.float32))).logits.softmax(1).numpy()
    np.testing.assert_allclose(probabilities, answers, atol=1e-3)


def test_golden_examples_are_clips_that_no_device_may_take_for_another_class(tiny_run: Run) -> None:
    data = tiny_run.open_data()
    everything = dataclasses.replace(
        data, split=Split(train=(), validation=(), test=data.split.test + data.split.train)
    )
    sure = set(everything.split.test[::2])
    clips = {data.waveforms([row])[0].numpy().round(3).tobytes(): row for row in everything.split.test}

    def trained(waveforms: torch.Tensor) -> torch.Tensor:
        rows = [clips[clip.numpy().round(3).tobytes()] for clip in waveforms]
        return torch.tensor([[0.9, 0.1] if row in sure else [0.51, 0.49] for row in rows])

    golden = choose_golden(trained, trained, everything, load_target("cpu").tolerance)
    assert golden.waveform.shape == (GOLDEN_CLIPS, 4_000)
    assert golden.probabilities.max(axis=1).min() == np.float32(0.9)
    counts = np.bincount(golden.labels, minlength=5)
    assert counts.min() >= 1, "the classes take turns"


def test_golden_examples_are_read_back_as_they_were_written(toy: Toy, tmp_path: Path) -> None:
    golden = toy.golden()
    golden.write(tmp_path)
    found = GoldenExamples.read(tmp_path)
    for name, array in golden.arrays().items():
        np.testing.assert_array_equal(getattr(found, name), array)
    np.testing.assert_allclose(found.clips(), golden.waveform * golden.scale[:, None] / 32767, rtol=1e-6)


def test_int8_is_held_to_the_int8_students_answers_and_floats_to_the_float_students(toy: Toy) -> None:
    golden = dataclasses.replace(toy.golden(), float_probabilities=toy.golden().probabilities[:, ::-1].copy())
    tolerance = Tolerance(probability=0.01, agreement=1)
    by_precision = {
        "int8": golden.probabilities,
        "fp16": golden.float_probabilities,
        "fp32": golden.float_probabilities,
    }
    for precision, expected in by_precision.items():
        check_golden(lambda clips, expected=expected: expected, golden, precision, tolerance)
        with pytest.raises(GateError, match=r"largest difference .* \(at most 0.01\), agreement .*%"):
            check_golden(lambda clips, expected=expected: expected[:, ::-1], golden, precision, tolerance)
    with pytest.raises(GateError, match="nan"):
        check_golden(lambda clips: np.full((5, 3), np.nan, np.float32), golden, "int8", tolerance)
