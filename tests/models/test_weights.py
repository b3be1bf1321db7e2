"""Weight files: what is read, what is refused, and that nothing in a file ever runs."""

from __future__ import annotations

import argparse
import pickle
import resource
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekd.errors import InputError
from edgekd.models.weights import load_matching, read_weights, save_weights

STATE = {"conv.weight": torch.arange(24.0).reshape(2, 3, 2, 2), "count": torch.tensor(7), "half": torch.ones(3).half()}


def assert_same(state: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        assert state[name].dtype == tensor.dtype and torch.equal(state[name], tensor), name


def refusal(path: Path) -> str:
    """The message `path` is refused with: one line that names the file."""
    with pytest.raises(InputError) as caught:
        read_weights(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


def write_sample(path: Path) -> None:
    """STATE, in the format that the name of `path` says."""
    if path.suffix == ".npz":
        np.savez(path, **{name: tensor.numpy() for name, tensor in STATE.items()})
    elif path.suffix == ".safetensors":
        save_weights(path, STATE)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=path.suffix == ".pth")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.pt", "w.bin", "w.npz"])
def test_every_format_gives_back_the_tensors(tmp_path: Path, name: str) -> None:
    write_sample(tmp_path / name)
    assert_same(read_weights(tmp_path / name), STATE)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("wrapper", ["model", "state_dict"])
def test_a_training_checkpoint_is_unwrapped_and_its_numpy_arrays_read_past(
    tmp_path: Path, wrapper: str, zipped: bool
) -> None:
    checkpoint = {
        "iteration": 600_000,
        wrapper: OrderedDict(STATE),
        "sampler": {"indexes_per_class": [np.arange(4), np.ones(2, bool)], "last": np.float64(0.5), "queue": [1, 2]},
    }
    path = tmp_path / "checkpoint.pth"
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
    assert_same(read_weights(path), STATE)


def test_numpy_1_names_are_read_past_as_well(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    torch.save({"model": STATE, "sampler": np.arange(3)}, path, _use_new_zipfile_serialization=False)
    before_numpy_2 = path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert before_numpy_2 != path.read_bytes()
    path.write_bytes(before_numpy_2)
    assert_same(read_weights(path), STATE)


def test_the_settings_that_fairseq_keeps_beside_weights_are_read_past(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    torch.save({"args": argparse.Namespace(seed=1, paths=["a"]), "model": STATE}, path)
    assert_same(read_weights(path), STATE)


def test_keras_weights_are_read_by_their_path(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        file["layer1/conv/kernel:0"] = np.arange(6.0).reshape(2, 3)
        file["names"] = ["a", "b"]
    assert_same(read_weights(path), {"layer1/conv/kernel:0": torch.arange(6.0, dtype=torch.float64).reshape(2, 3)})
    path.write_bytes(path.read_bytes()[:900])
    assert "not a weights file, or a damaged one" in refusal(path)


def test_without_its_reader_an_h5_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "w.h5").write_bytes(b"\x89HDF")
    assert "edgekd[yamnet]" in refusal(tmp_path / "w.h5")


def test_text_arrays_of_an_npz_are_left_out(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", weight=np.arange(3.0, dtype=">f8"), class_names=np.array(["Speech", "Dog"]))
    assert_same(read_weights(tmp_path / "w.npz"), {"weight": torch.arange(3.0, dtype=torch.float64)})


class Attack:
    """Unpickled, it calls `function(*arguments)`."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("place", ["model", "sampler"])
def test_code_in_a_checkpoint_is_named_and_not_run(tmp_path: Path, place: str, zipped: bool) -> None:
    trace, path = tmp_path / "trace", tmp_path / "evil.pth"
    for attack, name in (
        (Attack(Path.touch, trace), "pathlib.Path.touch"),
        (Attack(exec, f"open({str(trace)!r}, 'w')"), "exec"),
        (Attack(np.save, str(trace), 1), "numpy.save"),
        (Attack(__import__("os").system, f"touch {trace}"), "system"),
    ):
        checkpoint = {"model": dict(STATE), "sampler": {}} | {place: {"w": attack}}
        torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped, pickle_protocol=2)
        message = refusal(path)
        assert "contains code, not only tensors" in message
        assert name.rpartition(".")[2] in message or "getattr" in message
        assert not trace.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_bare_pickle_is_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    trace, path = tmp_path / "trace", tmp_path / "evil.pt"
    path.write_bytes(pickle.dumps({"model": Attack(exec, f"open({str(trace)!r}, 'w')")}, protocol=protocol))
    refusal(path)
    assert not trace.exists()


def test_a_pickled_array_in_an_npz_is_refused_and_not_run(tmp_path: Path) -> None:
    trace, path = tmp_path / "trace", tmp_path / "evil.npz"
    np.savez(path, allow_pickle=True, w=np.array([Attack(exec, f"open({str(trace)!r}, 'w')")], dtype=object))
    assert "contains code" in refusal(path)
    assert not trace.exists()


def test_a_whole_module_is_refused_by_name(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")
    assert "torch.nn.modules.linear.Linear" in refusal(tmp_path / "module.pt")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.pt", "w.npz"])
def test_a_file_cut_short_is_refused_wherever_it_is_cut(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_sample(path)
    whole = path.read_bytes()
    for length in range(1, len(whole), max(1, len(whole) // 60)):
        path.write_bytes(whole[:length])
        refusal(path)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.pt", "w.npz"])
@pytest.mark.parametrize("content", [b"", b"<html>404 Not Found</html>\n", bytes(range(256)) * 4])
def test_something_else_under_a_weights_name_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert "not a weights file" in refusal(tmp_path / name)


def test_a_missing_file_a_folder_and_another_suffix_are_refused(tmp_path: Path) -> None:
    assert "no such weights file" in refusal(tmp_path / "absent.pth")
    assert "no such weights file" in refusal(tmp_path)
    (tmp_path / "song.wav").write_bytes(b"RIFF")
    assert ".safetensors, .pth, .pt, .bin, .ckpt, .npz, .h5" in refusal(tmp_path / "song.wav")


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    assert "no named tensors" in refusal(tmp_path / "w.pth")


def test_tied_and_strided_tensors_are_saved_whole(tmp_path: Path) -> None:
    table = torch.arange(6.0).reshape(2, 3)
    save_weights(tmp_path / "new" / "w.safetensors", {"a": table, "b": table, "t": table.T, "row": table[1]})
    expected = {"a": table, "b": table, "t": table.T.contiguous(), "row": table[1].clone()}
    assert_same(read_weights(tmp_path / "new" / "w.safetensors"), expected)


def test_a_full_disk_leaves_the_earlier_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    save_weights(path, STATE)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # the kernel refuses to write more, as a full disk does
    try:
        with pytest.raises(InputError, match=r"best\.safetensors: no space left on the disk"):
            save_weights(path, {"large": torch.zeros(5000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert_same(read_weights(path), STATE)
    assert list(tmp_path.iterdir()) == [path]


def small_model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 4))


def test_matching_weights_are_copied_and_the_head_is_kept() -> None:
    source, target = small_model(), small_model()
    head = target[3].weight.clone()
    state = source.state_dict() | {"extra.gain": torch.ones(1)}
    del state["3.weight"], state["3.bias"]
    load_matching(target, state, Path("w.pth"), ignore_prefixes=("extra.",), reinitialised=("3.",))
    assert torch.equal(target[0].weight, source[0].weight)
    assert torch.equal(target[3].weight, head)


def test_files_from_before_batch_counts_load() -> None:
    state = {name: tensor for name, tensor in small_model().state_dict().items() if "num_batches" not in name}
    load_matching(small_model(), state, Path("w.pth"))


def test_the_error_for_another_architecture_lists_the_differences() -> None:
    state = small_model().state_dict()
    state["3.weight"] = torch.zeros(5, 8)
    for name in ("0.weight", "0.bias", "1.weight", "1.bias"):
        state[f"other.{name}"] = state.pop(name)
    with pytest.raises(InputError) as caught:
        load_matching(small_model(), state, Path("w.pth"))
    message = str(caught.value)
    assert "w.pth: not weights of Sequential: 4 of its 9 tensors are there" in message
    assert "missing: 0.weight, 0.bias, 1.weight and 1 more" in message
    assert "unexpected: other.0.weight" in message
    assert "3.weight is (5, 8), not (4, 8)" in message
    assert "\n" not in message


def test_a_refused_file_changes_nothing() -> None:
    model = small_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = small_model().state_dict() | {"3.bias": torch.zeros(9)}
    with pytest.raises(InputError):
        load_matching(model, state, Path("w.pth"))
    assert_same(dict(model.state_dict()), before)
