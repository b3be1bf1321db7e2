from __future__ import annotations

import pytest

from edgekd.config import QuantizeConfig
from edgekd.errors import UsageError
from edgekd.experiments.chain import distill_and_quantize, quantize, quantize_mixed
from edgekd.exporting.deployable import deployable_of
from edgekd.exporting.kept_rejection import Rejection
from edgekd.exporting.rejection import fits, keep_rejection, kept_fit
from edgekd.quantization.int8_student import load_int8, quantized_network, stored_settings
from edgekd.runs.run import Run


class Interrupted(Exception):
    pass


def interrupt(stage: str, done: int, _total: int, /, **_: float | str) -> None:
    if (stage, done) == ("int8", 1):
        raise Interrupted


def test_a_chain_that_is_resumed_goes_on_with_the_int8_training_that_was_begun(tiny_copy: Run, tiny_run: Run) -> None:
    with pytest.raises(Interrupted):
        quantize(tiny_copy, QuantizeConfig(epochs=2, frozen_epochs=0), interrupt)
    run = distill_and_quantize(tiny_copy.config, resume=True)
    assert run.weights("student").read_bytes() == tiny_run.weights("student").read_bytes()
    assert run.metrics().last_epoch("int8") == 2, "the settings of the run say 3"
    assert run.report()["test"].keys() == {"teacher", "student", "int8"}


def test_processes_that_torchrun_has_started_again_go_on_with_their_run(
    tiny_copy: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="exists already"):
        distill_and_quantize(tiny_copy.config, int8=False)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    before = tiny_copy.metrics().rows
    assert distill_and_quantize(tiny_copy.config, int8=False, overwrite=True).metrics().rows == before


def test_the_layers_that_were_chosen_are_those_left_in_float(tiny_copy: Run) -> None:
    config = QuantizeConfig(method="ptq", recipe="fast", keep_float=("stem.0",))
    mixed = quantize_mixed(tiny_copy, config, max_drop=100.0)
    assert mixed.keep_float == (), "nothing needs to be left with so much to lose"
    assert quantized_network(load_int8(tiny_copy)).float_layers() == []
    assert stored_settings(tiny_copy) == config.model_copy(update={"keep_float": ()})


def test_an_int8_student_that_is_made_again_rejects_as_the_one_before(tiny_copy: Run) -> None:
    rejection = Rejection.named("energy", 0.1)
    before = fits({"int8": deployable_of(tiny_copy, "int8")}, rejection, tiny_copy.open_data(), "onnxruntime")
    keep_rejection(tiny_copy, rejection, before)
    quantize(tiny_copy, QuantizeConfig(method="ptq", recipe="fast"))
    after = kept_fit(tiny_copy, "int8")
    assert after is not None and after.reject.share == 0.1
    assert after.reject.threshold != before["int8"].reject.threshold, "of another student"


def test_every_process_has_part_in_fitting_what_rejects(tiny_copy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It sums over all of them: alone in the first, it would wait for others that wait for its end."""
    monkeypatch.setattr("edgekd.experiments.chain.qat.quantize", lambda *_, **__: None)
    monkeypatch.setattr("edgekd.processes.is_first", lambda: False)
    monkeypatch.setattr("edgekd.processes.from_first", lambda _: None)
    asked: list[Run] = []
    monkeypatch.setattr("edgekd.experiments.chain.fit_answering", lambda run, **_: asked.append(run))
    quantize(tiny_copy)
    assert asked == [tiny_copy]
