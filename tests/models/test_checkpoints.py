"""The usual forms of a checkpoint: each gives the weights that are meant, and says which where it holds several."""

from __future__ import annotations

import argparse
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from edgekd.config import FrontendConfig
from edgekd.errors import InputError
from edgekd.models.build import build_student, build_teacher
from edgekd.models.checkpoints import fitted, unwrapped
from edgekd.models.teachers.own import OwnTeacher
from edgekd.models.weights import load_matching, read_weights, taken_of_several
from edgekd.training.student_weights import load_student_weights

State = Mapping[str, Tensor]


def under(prefix: str, state: State) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def others(state: State) -> dict[str, Tensor]:
    """Weights that are not meant."""
    return {name: torch.full_like(tensor, 9) for name, tensor in state.items()}


def optimiser(state: State) -> dict[str, Any]:
    parameters = [nn.Parameter(tensor.float().clone()) for tensor in state.values()]
    found = torch.optim.Adam(parameters)
    torch.stack([parameter.sum() for parameter in parameters]).sum().backward()
    found.step()
    return found.state_dict()


def halved(state: State, kind: torch.dtype = torch.float16) -> dict[str, Tensor]:
    return {name: tensor.to(kind) if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def averaged(state: State) -> dict[str, Tensor]:
    return {"n_averaged": torch.tensor(5), **under("module.", state)}


FORMS: dict[str, tuple[str, Callable[[State], Any]]] = {
    "plain": ("w.pth", dict),
    "plain .pt": ("w.pt", OrderedDict),
    "plain .bin": ("w.bin", dict),
    "plain .ckpt": ("w.ckpt", dict),
    "plain .safetensors": ("w.safetensors", dict),
    "parameters": ("w.pth", lambda s: {name: nn.Parameter(each, requires_grad=False) for name, each in s.items()}),
    "state_dict": ("w.pth", lambda s: {"state_dict": s, "epoch": 3}),
    "model": ("w.pth", lambda s: {"model": s, "epoch": 3}),
    "model_state_dict": ("w.pth", lambda s: {"model_state_dict": s, "optimizer_state_dict": optimiser(s), "loss": 1.5}),
    "net": ("w.pth", lambda s: {"net": s, "acc": 91.2}),
    "generator": ("w.pth", lambda s: {"generator": s}),
    "an unknown wrapper": ("w.pth", lambda s: {"my_net": s, "epoch": torch.tensor(3), "optimizer": optimiser(s)}),
    "nested": ("w.pth", lambda s: {"checkpoint": {"model": {"state_dict": s}}}),
    "ema": ("w.pth", lambda s: {"model": others(s), "ema": s, "updates": 7}),
    "ema_state_dict": ("w.pth", lambda s: {"state_dict": others(s), "ema_state_dict": s}),
    "model_ema": ("w.pth", lambda s: {"model": others(s), "model_ema": s, "optimizer": optimiser(s)}),
    "state_dict_ema": ("w.pth", lambda s: {"state_dict": others(s), "state_dict_ema": s, "arch": "net"}),
    "ema of AveragedModel": ("w.pth", lambda s: {"model": others(s), "ema": averaged(s)}),
    "AveragedModel": ("w.pth", averaged),
    "DataParallel": ("w.pth", lambda s: under("module.", s)),
    "state_dict of DataParallel": ("w.pth", lambda s: {"state_dict": under("module.", s), "best": torch.tensor(3.0)}),
    "compiled": ("w.pth", lambda s: under("_orig_mod.", s)),
    "compiled and DataParallel": ("w.pth", lambda s: {"model": under("_orig_mod.module.", s)}),
    "DataParallel of compiled": ("w.pth", lambda s: under("module._orig_mod.", s)),
    "compiled in parts": ("w.pth", lambda s: {name.replace(".", "._orig_mod.", 1): each for name, each in s.items()}),
    "Lightning": (
        "w.ckpt",
        lambda s: {
            "state_dict": under("model.", s),
            "epoch": 3,
            "optimizer_states": [optimiser(s)],
            "hyper_parameters": {"data": Path("x"), "lr": 1e-3},
            "callbacks": {},
        },
    ),
    "Lightning of compiled": ("w.ckpt", lambda s: {"state_dict": under("model._orig_mod.", s)}),
    "half precision": ("w.pth", halved),
    "bfloat16 under a prefix": ("w.safetensors", lambda s: under("model.", halved(s, torch.bfloat16))),
    "settings beside": (
        "w.pth",
        lambda s: {"model": s, "args": argparse.Namespace(out=Path("x")), "scaler": {"scale": torch.tensor(2.0)}},
    ),
}


def written(form: str, state: State, folder: Path) -> Path:
    name, make = FORMS[form]
    content = make({name: tensor.clone() for name, tensor in state.items()})
    if name.endswith(".safetensors"):
        save_file(content, folder / name)
    else:
        torch.save(content, folder / name)
    return folder / name


class Ears(nn.Module):
    """A module of a user's own with a head."""

    def __init__(self) -> None:
        super().__init__()
        self.early, self.head = nn.Conv2d(1, 2, 3), nn.Linear(2, 4)


class Inside(nn.Module):
    """One whose tensors share a prefix themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Ears()


def seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return make()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("make", [Ears, Inside])
def test_every_usual_form_loads(tmp_path: Path, form: str, make: Callable[[], nn.Module]) -> None:
    meant, module = seeded(make, 0), seeded(make, 1)
    path = written(form, meant.state_dict(), tmp_path)
    load_matching(module, read_weights(path), path)
    for name, tensor in meant.state_dict().items():
        tolerance = 0.01 if "half" in form or "bfloat16" in form else 0
        torch.testing.assert_close(module.state_dict()[name], tensor, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("form", ["Lightning", "DataParallel", "ema of AveragedModel", "compiled"])
def test_teachers_and_students_take_them(tmp_path: Path, form: str) -> None:
    front_end = FrontendConfig().at(8_000)
    meant, teacher = (seeded(lambda: build_teacher("convnet", 4, None, 8_000, front_end), seed) for seed in (0, 1))
    teacher.load_pretrained(written(form, meant.state_dict(), tmp_path))
    name = next(name for name, _ in meant.named_parameters() if not name.startswith("head."))
    assert torch.equal(teacher.get_parameter(name), meant.get_parameter(name))
    learned, student = (seeded(lambda: build_student("hltdnn_micro", 4, 8_000, front_end), seed) for seed in (0, 1))
    load_student_weights(student, written(form, learned.state_dict(), tmp_path))
    name = next(iter(dict(student.network.named_parameters())))
    assert torch.equal(student.network.get_parameter(name), learned.network.get_parameter(name))


@pytest.mark.parametrize("form", ["plain", "Lightning", "DataParallel"])
def test_a_teacher_of_ones_own_takes_them_and_keeps_a_head_for_other_classes(tmp_path: Path, form: str) -> None:
    meant = seeded(Ears, 0)
    path = written(form, meant.state_dict(), tmp_path)
    teacher = OwnTeacher(seeded(Ears, 1), 8_000, 2, 2)
    teacher.load_pretrained(path)
    assert torch.equal(teacher.network.head.weight, meant.head.weight)
    teacher.network.head = nn.Linear(2, 7)
    teacher.load_pretrained(path)
    assert torch.equal(teacher.network.early.weight, meant.early.weight)
    assert teacher.network.head.weight.shape == (7, 2)


def test_what_a_run_keeps_of_a_teacher_of_ones_own_is_taken_by_another_run(tmp_path: Path) -> None:
    """A run stores the module under `network.`."""
    stored, teacher = OwnTeacher(seeded(Ears, 0), 8_000, 2, 2), OwnTeacher(seeded(Ears, 1), 8_000, 2, 2)
    torch.save(stored.state_dict(), tmp_path / "best.pth")
    for load in (teacher.load_whole, teacher.load_pretrained, teacher.load_stored):
        teacher.network.load_state_dict(seeded(Ears, 1).state_dict())
        load(tmp_path / "best.pth")
        assert torch.equal(teacher.network.early.weight, stored.network.early.weight)


def test_taken_of_several_are_taken_and_told(tmp_path: Path) -> None:
    state = seeded(Ears, 0).state_dict()
    path = written("ema", state, tmp_path)
    assert taken_of_several(path) == (
        f"{path}: its averaged weights ('ema') were taken, not 'model'. Save 'model' alone to have it instead."
    )
    for form in ("plain", "model", "AveragedModel"):
        assert taken_of_several(written(form, state, tmp_path)) is None


def test_a_prefix_is_dropped_only_where_more_names_agree() -> None:
    state = {"model.a": torch.zeros(1), "model.b": torch.ones(1)}
    assert fitted(state, ["a", "b"]).keys() == {"a", "b"}
    for wanted in (["model.a", "model.b"], ["c"], []):
        assert fitted(state, wanted).keys() == state.keys()
    assert fitted({**state, "other": torch.zeros(1)}, ["a", "b"]).keys() == {*state, "other"}


def test_two_sets_of_tensors_of_which_none_is_meant_are_refused_by_name(tmp_path: Path) -> None:
    state = seeded(Ears, 0).state_dict()
    torch.save({"encoder": state, "decoder": state}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"holds tensors under 'encoder', 'decoder', and nothing says which"):
        read_weights(tmp_path / "w.pth")


def test_programs_and_lists_are_refused_with_how_to_save(tmp_path: Path) -> None:
    module = nn.Linear(2, 2)
    torch.jit.save(torch.jit.trace(module, torch.zeros(1, 2)), tmp_path / "script.pt")
    torch.save(module, tmp_path / "whole.pt")
    torch.save({"shadow_params": list(module.state_dict().values())}, tmp_path / "list.pt")
    for name, words in (
        ("script.pt", "a program that torch.jit.save or torch.export.save wrote"),
        ("whole.pt", "torch.nn.modules.linear.Linear"),
        ("list.pt", "it holds no named tensors"),
    ):
        with pytest.raises(InputError) as caught:
            read_weights(tmp_path / name)
        line = str(caught.value)
        assert words in line and "torch.save(model.state_dict(), 'weights.pth')" in line and "\n" not in line


def test_a_checkpoint_that_holds_itself_has_no_tensors() -> None:
    content: dict[str, Any] = {}
    content["model"] = content
    assert unwrapped(content).state == {}


def test_tensors_in_other_layouts_become_plain_ones() -> None:
    quantised = torch.quantize_per_tensor(torch.ones(2), 0.5, 0, torch.qint8)
    found = unwrapped({"a": quantised, "b": torch.eye(2).to_sparse(), "c": torch.empty(1, device="meta")}).state
    assert torch.equal(found["a"], torch.ones(2))
    assert torch.equal(found["b"], torch.eye(2))
    assert found.keys() == {"a", "b"}
