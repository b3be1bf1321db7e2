from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
import torch

from edgekd.config import QuantizeConfig
from edgekd.errors import UsageError
from edgekd.experiments.chain import distill_and_quantize, quantize_mixed
from edgekd.quantization.int8_student import load_int8, quantized_network, stored_settings
from edgekd.runs.run import Run


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As the runs it is compared with: sums in another order end in other bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_a_chain_that_ended_before_int8_is_resumed_and_ends_alike(tiny_copy: Run, tiny_run: Run) -> None:
    shutil.rmtree(tiny_copy.folder / "int8")
    tiny_copy.metrics().truncate("int8", 0)
    tiny_copy.forget("test", "int8")
    run = distill_and_quantize(tiny_copy.config, resume=True)
    assert run.weights("student").read_bytes() == tiny_run.weights("student").read_bytes()
    assert run.weights("int8").read_bytes() == tiny_run.weights("int8").read_bytes()
    assert run.report()["test"] == tiny_run.report()["test"]


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
