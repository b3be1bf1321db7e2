"""wav2vec 2.0, HuBERT, WavLM: names and shapes as published; files of every origin against transformers' outputs."""

from __future__ import annotations

import argparse
import functools
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgekd._torchaudio import functional, models
from edgekd.errors import InputError
from edgekd.models.teachers.wav2vec2 import Wav2Vec2Teacher, hubert_base, torchaudio_names, wav2vec2_base, wavlm_base
from edgekd.models.weights import read_weights, save_weights

Shapes = Iterator[tuple[str, tuple[int, ...]]]

SIZE = {
    "extractor_mode": "group_norm",
    "extractor_conv_layer_config": [(16, 10, 5), *[(16, 3, 2)] * 4, *[(16, 2, 2)] * 2],
    "extractor_conv_bias": False,
    "encoder_embed_dim": 32,
    "encoder_projection_dropout": 0.1,
    "encoder_pos_conv_kernel": 16,
    "encoder_pos_conv_groups": 4,
    "encoder_num_layers": 3,
    "encoder_num_heads": 2,
    "encoder_attention_dropout": 0.1,
    "encoder_ff_interm_features": 64,
    "encoder_ff_interm_dropout": 0.1,
    "encoder_dropout": 0.1,
    "encoder_layer_norm_first": False,
    "encoder_layer_drop": 0.5,
    "aux_num_out": None,
}
BUCKETS = {"encoder_num_buckets": 32, "encoder_max_distance": 80}


def small(kind: str = "hubert", num_classes: int = 3, sample_rate: int = 16_000) -> Wav2Vec2Teacher:
    """A teacher of the real make with three narrow layers."""
    network = models.wavlm_model(**SIZE, **BUCKETS) if kind == "wavlm" else models.wav2vec2_model(**SIZE)
    return Wav2Vec2Teacher(num_classes, sample_rate, network).eval()


def noise(seconds: float = 1.0, clips: int = 2, rate: int = 16_000) -> Tensor:
    return 0.1 * torch.randn(clips, int(seconds * rate), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", params=["hubert", "wavlm"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def teacher(kind: str) -> Wav2Vec2Teacher:
    torch.manual_seed(0)
    return small(kind)


# The published checkpoints


def linear(name: str, inputs: int, outputs: int) -> Shapes:
    yield f"{name}.weight", (outputs, inputs)
    yield f"{name}.bias", (outputs,)


def norm(name: str, size: int) -> Shapes:
    yield f"{name}.weight", (size,)
    yield f"{name}.bias", (size,)


def fairseq(wavlm: bool = False) -> Shapes:
    """The encoder in hubert_base_ls960.pt and wav2vec_small.pt, or in WavLM-Base.pt."""
    for layer, width in enumerate((10, 3, 3, 3, 3, 2, 2)):
        yield f"feature_extractor.conv_layers.{layer}.0.weight", (512, 512 if layer else 1, width)
    yield from norm("feature_extractor.conv_layers.0.2", 512)
    yield from norm("layer_norm", 512)
    yield from linear("post_extract_proj", 512, 768)
    yield "encoder.pos_conv.0.bias", (768,)
    yield "encoder.pos_conv.0.weight_g", (1, 1, 128)
    yield "encoder.pos_conv.0.weight_v", (768, 48, 128)
    for layer in range(12):
        prefix = f"encoder.layers.{layer}"
        for part in ("k", "v", "q", "out"):
            yield from linear(f"{prefix}.self_attn.{part}_proj", 768, 768)
        yield from norm(f"{prefix}.self_attn_layer_norm", 768)
        yield from linear(f"{prefix}.fc1", 768, 3072)
        yield from linear(f"{prefix}.fc2", 3072, 768)
        yield from norm(f"{prefix}.final_layer_norm", 768)
        if wavlm:
            yield from linear(f"{prefix}.self_attn.grep_linear", 64, 8)
            yield f"{prefix}.self_attn.grep_a", (1, 12, 1, 1)
    if wavlm:
        yield "encoder.layers.0.self_attn.relative_attention_bias.weight", (320, 12)
    yield from norm("encoder.layer_norm", 768)


def hugging_face(model: str, wavlm: bool = False) -> Shapes:
    """The encoder in the files of facebook/hubert-base-ls960, facebook/wav2vec2-base and microsoft/wavlm-base."""
    for layer, width in enumerate((10, 3, 3, 3, 3, 2, 2)):
        yield f"{model}feature_extractor.conv_layers.{layer}.conv.weight", (512, 512 if layer else 1, width)
    yield from norm(f"{model}feature_extractor.conv_layers.0.layer_norm", 512)
    yield from norm(f"{model}feature_projection.layer_norm", 512)
    yield from linear(f"{model}feature_projection.projection", 512, 768)
    yield f"{model}encoder.pos_conv_embed.conv.bias", (768,)
    yield f"{model}encoder.pos_conv_embed.conv.weight_g", (1, 1, 128)
    yield f"{model}encoder.pos_conv_embed.conv.weight_v", (768, 48, 128)
    for layer in range(12):
        prefix = f"{model}encoder.layers.{layer}"
        for part in ("k", "v", "q", "out"):
            yield from linear(f"{prefix}.attention.{part}_proj", 768, 768)
        yield from norm(f"{prefix}.layer_norm", 768)
        yield from linear(f"{prefix}.feed_forward.intermediate_dense", 768, 3072)
        yield from linear(f"{prefix}.feed_forward.output_dense", 3072, 768)
        yield from norm(f"{prefix}.final_layer_norm", 768)
        if wavlm:
            yield from linear(f"{prefix}.attention.gru_rel_pos_linear", 64, 8)
            yield f"{prefix}.attention.gru_rel_pos_const", (1, 12, 1, 1)
    if wavlm:
        yield f"{model}encoder.layers.0.attention.rel_attn_embed.weight", (320, 12)
    yield from norm(f"{model}encoder.layer_norm", 768)


def of_pre_training(contrastive: bool) -> Shapes:
    """What the original files hold besides: HuBERT's cluster embeddings, or wav2vec 2.0's quantiser."""
    yield "mask_emb", (768,)
    yield from linear("final_proj", 768, 256)
    if not contrastive:
        yield "label_embs_concat", (504, 256)
        return
    yield "quantizer.vars", (1, 640, 128)
    yield from linear("quantizer.weight_proj", 512, 640)
    yield from linear("project_q", 256, 256)


PUBLISHED: dict[str, tuple[Callable[[int, int], Wav2Vec2Teacher], dict[str, tuple[int, ...]]]] = {
    "hubert_base_ls960.pt": (hubert_base, dict([*fairseq(), *of_pre_training(contrastive=False)])),
    "wav2vec_small.pt": (wav2vec2_base, dict([*fairseq(), *of_pre_training(contrastive=True)])),
    "WavLM-Base.pt": (wavlm_base, dict([*fairseq(wavlm=True), ("mask_emb", (768,))])),
    "facebook/hubert-base-ls960": (hubert_base, dict([*hugging_face(""), ("masked_spec_embed", (768,))])),
    "facebook/wav2vec2-base": (
        wav2vec2_base,
        dict(
            [
                *hugging_face("wav2vec2."),
                ("wav2vec2.masked_spec_embed", (768,)),
                ("quantizer.codevectors", (1, 640, 128)),
                *linear("quantizer.weight_proj", 512, 640),
                *linear("project_q", 256, 256),
                *linear("project_hid", 768, 256),
            ]
        ),
    ),
    "microsoft/wavlm-base": (wavlm_base, dict([*hugging_face("", wavlm=True), ("masked_spec_embed", (768,))])),
}


@functools.cache
def base(factory: Callable[[int, int], Wav2Vec2Teacher]) -> tuple[dict[str, torch.Size], int]:
    """The shapes of the tensors of the teacher at its real size, below the head, and the number of its parameters."""
    with pytest.MonkeyPatch.context() as patch:
        for initialiser in ("kaiming_uniform_", "xavier_uniform_", "uniform_", "normal_"):  # 94 million random numbers
            patch.setattr(torch.nn.init, initialiser, lambda tensor, *_, **__: tensor)
        teacher = factory(4, 16_000)
    assert (teacher.tap_channels, teacher.embedding_size) == (768, 768)
    shapes = {name: tensor.shape for name, tensor in teacher.state_dict().items() if not name.startswith("head.")}
    return shapes, sum(weight.numel() for weight in teacher.parameters()) - 4 * 769


@pytest.mark.parametrize("file", PUBLISHED)
def test_every_tensor_of_a_published_file_has_its_place_and_shape(file: str) -> None:
    factory, published = PUBLISHED[file]
    state = {name: torch.empty(shape) for name, shape in published.items()}
    shapes, parameters = base(factory)
    assert {name: tensor.shape for name, tensor in torchaudio_names(state).items()} == shapes
    assert parameters == (94_381_168 if factory is wavlm_base else 94_370_944)


# Files of every origin, with the outputs of transformers for the same weights


@pytest.fixture(scope="module")
def transformers() -> ModuleType:
    return pytest.importorskip("transformers", reason="needs the extra: pip install 'edgekd[transformers]'")


@pytest.fixture(scope="module", params=["Wav2Vec2", "Hubert", "WavLM"])
def oracle(request: pytest.FixtureRequest, transformers: ModuleType) -> Any:
    """A model of transformers of the size of `small`: `kind`, and `state`, `embedding`, `tap` for `noise()`."""
    torch.manual_seed(2)
    extra = {"num_buckets": 32, "max_bucket_distance": 80} if request.param == "WavLM" else {}
    config = getattr(transformers, f"{request.param}Config")(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=64,
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        **extra,
    )
    model = getattr(transformers, f"{request.param}Model")(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():  # so that a bias or norm in another's place is seen
            if weight.ndim == 1 or "gru_rel_pos" in name or "rel_attn" in name:
                weight.add_(0.3 * torch.randn_like(weight))
        output = model(noise(), output_hidden_states=True)
    return SimpleNamespace(
        model=model,
        kind=request.param.lower(),
        state=model.state_dict(),
        embedding=output.last_hidden_state.mean(dim=1),
        tap=output.hidden_states[2].transpose(1, 2).unsqueeze(3),
    )


TO_FAIRSEQ = (
    (r"feature_extractor\.conv_layers\.(\d+)\.conv\.", r"feature_extractor.conv_layers.\1.0."),
    (r"feature_extractor\.conv_layers\.0\.layer_norm\.", "feature_extractor.conv_layers.0.2."),
    (r"^feature_projection\.layer_norm\.", "layer_norm."),
    (r"^feature_projection\.projection\.", "post_extract_proj."),
    (r"^encoder\.pos_conv_embed\.conv\.", "encoder.pos_conv.0."),
    (r"^(encoder\.layers\.\d+)\.layer_norm\.", r"\1.self_attn_layer_norm."),
    (r"\.attention\.", ".self_attn."),
    (r"\.feed_forward\.intermediate_dense\.", ".fc1."),
    (r"\.feed_forward\.output_dense\.", ".fc2."),
    (r"\.gru_rel_pos_linear\.", ".grep_linear."),
    (r"\.gru_rel_pos_const$", ".grep_a"),
    (r"\.rel_attn_embed\.", ".relative_attention_bias."),
    (r"^masked_spec_embed$", "mask_emb"),
)


def old_weight_norm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    for new, old in names.items():
        state = {name.replace(new, old): tensor for name, tensor in state.items()}
    return state


def as_fairseq(state: dict[str, Tensor]) -> dict[str, Tensor]:
    state = old_weight_norm(state)
    for pattern, replacement in TO_FAIRSEQ:
        state = {re.sub(pattern, replacement, name): tensor for name, tensor in state.items()}
    return state


def load_and_compare(oracle: Any, path: Path) -> None:
    teacher = small(oracle.kind)
    head = teacher.head.weight.clone()
    teacher.load_pretrained(path)
    with torch.no_grad():
        embedding, tap = teacher.embed(noise())
    torch.testing.assert_close(embedding, oracle.embedding, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(tap, oracle.tap, rtol=1e-4, atol=1e-5)
    assert torch.equal(teacher.head.weight, head)


def test_a_folder_of_hugging_face_gives_the_outputs_of_transformers(oracle: Any, tmp_path: Path) -> None:
    oracle.model.save_pretrained(tmp_path)
    load_and_compare(oracle, tmp_path / "model.safetensors")


def test_an_older_pytorch_model_bin_of_a_larger_model_loads_too(oracle: Any, tmp_path: Path) -> None:
    state = {f"{oracle.kind}.{name}": tensor for name, tensor in old_weight_norm(oracle.state).items()}
    torch.save({**state, "lm_head.weight": torch.zeros(32, 32)}, tmp_path / "pytorch_model.bin")
    load_and_compare(oracle, tmp_path / "pytorch_model.bin")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_an_original_release_loads_with_its_settings_read_past(
    oracle: Any, tmp_path: Path, zipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    dictionary = type("Dictionary", (), {"__module__": "fairseq.data.dictionary", "__qualname__": "Dictionary"})
    with monkeypatch.context() as patch:  # fairseq is there when the file is written, not when it is read
        for name in ("fairseq", "fairseq.data", "fairseq.data.dictionary"):
            patch.setitem(sys.modules, name, ModuleType(name))
        patch.setattr(sys.modules["fairseq.data.dictionary"], "Dictionary", dictionary, raising=False)
        symbols = dictionary()
        symbols.symbols = ["<s>", "0"]
        checkpoint = {
            "args": argparse.Namespace(arch="wav2vec2", conv_pos=16),
            "cfg": {"model": {"encoder_layers": 3}},
            "task_state": {"dictionaries": [symbols]},
            "model": as_fairseq(oracle.state),
        }
        torch.save(checkpoint, tmp_path / "base.pt", _use_new_zipfile_serialization=zipped)
    load_and_compare(oracle, tmp_path / "base.pt")


def test_a_file_tuned_for_speech_recognition_by_fairseq_loads(oracle: Any, tmp_path: Path) -> None:
    state = {f"w2v_encoder.w2v_model.{name}": tensor for name, tensor in as_fairseq(oracle.state).items()}
    torch.save({"model": {**state, "w2v_encoder.proj.weight": torch.zeros(32, 32)}}, tmp_path / "tuned.pt")
    load_and_compare(oracle, tmp_path / "tuned.pt")


def test_a_bundle_of_torchaudio_loads_as_it_is(kind: str, teacher: Wav2Vec2Teacher, tmp_path: Path) -> None:
    torch.manual_seed(1)  # not the teacher's
    bundle = models.wavlm_model(**SIZE, **BUCKETS) if kind == "wavlm" else models.wav2vec2_model(**SIZE)
    torch.save(old_weight_norm(bundle.state_dict()), tmp_path / "base.pth")
    loaded = small(kind)
    loaded.load_pretrained(tmp_path / "base.pth")
    with torch.no_grad():
        torch.testing.assert_close(loaded.embed(noise())[0], bundle.eval()(noise())[0].mean(dim=1))
        layers = bundle.extract_features(noise())[0]
        torch.testing.assert_close(loaded.tap(noise())[..., 0].transpose(1, 2), layers[1])
        assert not torch.allclose(loaded.tap(noise()), teacher.tap(noise()))


def test_a_file_of_another_model_is_told_apart(tmp_path: Path) -> None:
    save_weights(tmp_path / "wavlm.safetensors", small("wavlm").state_dict())
    with pytest.raises(InputError, match=r"wavlm\.safetensors: not weights of Wav2Vec2Teacher: 42 of its 66 tensors"):
        small("hubert").load_pretrained(tmp_path / "wavlm.safetensors")
    state = {name: tensor for name, tensor in small("wavlm").state_dict().items() if "q_proj" not in name}
    save_weights(tmp_path / "part.safetensors", {name: state[name] for name in state if "in_proj" not in name})
    with pytest.raises(InputError, match=r"part\.safetensors: .* missing: .*in_proj"):
        small("wavlm").load_pretrained(tmp_path / "part.safetensors")


# The teacher


def test_the_tap_is_the_second_layer_and_costs_no_more(teacher: Wav2Vec2Teacher) -> None:
    ran: list[int] = []
    for number, layer in enumerate(teacher.encoder.transformer.layers):
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
    with torch.no_grad():
        tap = teacher.tap(noise(5.0))
        assert ran == [0, 1]
        embedding, same = teacher.embed(noise(5.0))
    assert tap.shape == (2, 32, 249, 1) and embedding.shape == (2, 32)
    assert torch.equal(tap, same)
    assert teacher.front_end() is None


def test_level_and_offset_hardly_matter(teacher: Wav2Vec2Teacher) -> None:
    """Why no normalisation of the waveform is missed."""
    with torch.no_grad():
        embedding = teacher.embed(10 * noise())[0]
        torch.testing.assert_close(teacher.embed(5 * noise() + 0.1)[0], embedding, rtol=1e-2, atol=1e-2)
        other = teacher.embed(10 * noise().flip(1))[0]
    assert (other - embedding).abs().max() > 0.02


def test_training_drops_values_but_no_layer(teacher: Wav2Vec2Teacher) -> None:
    """The networks come with layer drop (here 0.5), which must not reach a teacher that is adapted."""
    ran: list[int] = []
    handles = [
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
        for number, layer in enumerate(teacher.encoder.transformer.layers)
    ]
    teacher.train()
    first, second = (teacher(noise(0.2)).logits for _ in range(2))
    for handle in handles:
        handle.remove()
    assert ran == [0, 1, 2, 0, 1, 2]
    assert not torch.equal(first, second)
    teacher.eval()
    with torch.no_grad():
        assert torch.equal(teacher(noise(0.2)).logits, teacher(noise(0.2)).logits)


def test_every_weight_can_be_fine_tuned(teacher: Wav2Vec2Teacher) -> None:
    teacher(noise(0.5)).logits.square().sum().backward()
    unused = [name for name, weight in teacher.named_parameters() if weight.grad is None]
    assert unused == []
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in teacher.parameters())
    teacher.zero_grad()


def test_an_adapted_teacher_is_saved_and_loaded(kind: str, teacher: Wav2Vec2Teacher, tmp_path: Path) -> None:
    """With the weight norm of the positions as it is, and in the order of memory that teachers are given."""
    path = tmp_path / "best.safetensors"
    adapted = small(kind).to(memory_format=torch.channels_last)
    adapted.load_state_dict(teacher.state_dict())
    nn.init.normal_(adapted.encoder.transformer.pos_conv_embed.conv.parametrizations.weight.original0)
    save_weights(path, adapted.state_dict())
    assert any(name.endswith("parametrizations.weight.original0") for name in read_weights(path))
    other = small(kind, num_classes=5).to(memory_format=torch.channels_last)
    other.load_pretrained(path)
    with torch.no_grad():
        assert torch.equal(other.embed(noise(0.5))[0], adapted.embed(noise(0.5))[0])


def test_it_hears_the_same_at_any_rate(kind: str, teacher: Wav2Vec2Teacher) -> None:
    other = small(kind, sample_rate=48_000)
    other.load_state_dict(teacher.state_dict())
    waveform = noise(0.5, rate=48_000)
    with torch.no_grad():
        expected = teacher(functional.resample(waveform, 48_000, 16_000))
        torch.testing.assert_close(other(waveform), expected)


def test_silence_and_a_tenth_of_a_second_give_finite_logits(teacher: Wav2Vec2Teacher) -> None:
    with torch.no_grad():
        assert teacher(torch.zeros(1, 16_000)).logits.isfinite().all()
        assert teacher(noise(0.11)).logits.isfinite().all()
