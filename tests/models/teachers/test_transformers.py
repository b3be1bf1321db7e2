"""AST and Whisper against the models and feature extractors of the transformers package, with random small networks."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekd._torchaudio import functional
from edgekd.errors import InputError, UsageError
from edgekd.models.teachers.base import Teacher
from edgekd.models.teachers.transformers import AstTeacher, WhisperTeacher, ast, kaldi_filterbank, whisper
from edgekd.models.weights import read_weights, save_weights

transformers = pytest.importorskip("transformers", reason="needs the extra: pip install 'edgekd[transformers]'")

FULL = {"ast": 400 + 160 * 1023, "whisper": 480_000}  # samples at 16 kHz that fill what they were trained on
FACTORIES: dict[str, Callable[[int, int, Path], Teacher]] = {"ast": ast, "whisper": whisper}


def noise(samples: int = 16_000, clips: int = 2) -> Tensor:
    """Noise that fades, so that no two parts of a clip are alike."""
    level = torch.linspace(0.2, 0.002, samples)
    return level * torch.randn(clips, samples, generator=torch.Generator().manual_seed(1))


def ast_model(**changes: Any) -> Any:
    size = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
    model = transformers.ASTForAudioClassification(transformers.ASTConfig(**(size | changes))).eval()
    embeddings = model.audio_spectrogram_transformer.embeddings
    for table in (embeddings.position_embeddings, embeddings.cls_token, embeddings.distillation_token):
        nn.init.normal_(table, std=0.5)  # they start at zero, where nobody would notice one in another's place
    return model


def whisper_model(**changes: Any) -> Any:
    width = {"d_model": 32, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    depth = {"encoder_layers": 3, "encoder_attention_heads": 2, "decoder_layers": 1, "decoder_attention_heads": 2}
    words = {"vocab_size": 60, "max_target_positions": 20, "decoder_start_token_id": 1}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = transformers.WhisperConfig(**(width | depth | words | tokens | changes))
    return transformers.WhisperForConditionalGeneration(config).eval()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SimpleNamespace]:
    """By teacher: a `folder` as Hugging Face lays it out, and the `model` saved there."""
    torch.manual_seed(0)
    made = {}
    for name, model in (("ast", ast_model()), ("whisper", whisper_model())):
        folder = tmp_path_factory.mktemp(name)
        model.save_pretrained(folder)
        made[name] = SimpleNamespace(folder=folder, model=model)
    return made


@pytest.fixture(scope="module", params=["ast", "whisper"])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(name: str, folders: dict[str, SimpleNamespace]) -> Path:
    return folders[name].folder


@pytest.fixture(scope="module")
def teacher(name: str, folder: Path) -> Teacher:
    return FACTORIES[name](3, 16_000, folder).eval()


# Against transformers


@pytest.mark.parametrize("n_mels", [80, 128])
def test_whispers_front_end_is_that_of_its_feature_extractor(n_mels: int) -> None:
    extractor = transformers.WhisperFeatureExtractor(feature_size=n_mels)
    network = whisper_model(num_mel_bins=n_mels).model.encoder
    waveform = noise(80_000) * torch.tensor([[1.0], [1e-4]])  # each clip has its own floor
    expected = extractor(list(waveform.numpy()), sampling_rate=16_000, padding="do_not_pad", return_tensors="pt")
    log_mel = WhisperTeacher(3, 16_000, network).log_mel(waveform)
    assert log_mel.shape == (2, 1, 500, n_mels)
    torch.testing.assert_close(log_mel.squeeze(1).transpose(1, 2), expected.input_features, rtol=0, atol=1e-4)


@pytest.mark.parametrize("scale", [1.0, 1e-5, 0.0], ids=["noise", "nearly silent", "silent"])
def test_asts_front_end_is_that_of_its_feature_extractor(folders: dict[str, SimpleNamespace], scale: float) -> None:
    waveform = scale * (noise(80_000) + 0.05)
    expected = transformers.ASTFeatureExtractor(max_length=498)(
        list(waveform.numpy()), sampling_rate=16_000, return_tensors="pt"
    )
    log_mel = ast(3, 16_000, folders["ast"].folder).log_mel(waveform)
    assert log_mel.shape == (2, 1, 498, 128)
    torch.testing.assert_close(log_mel.squeeze(1), expected.input_values, rtol=0, atol=1e-3)


@pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values")
def test_kaldis_filters_are_those_of_transformers() -> None:
    from transformers.audio_utils import mel_filter_bank

    expected = mel_filter_bank(257, 128, 20.0, 8_000.0, 16_000, None, "kaldi", triangularize_in_mel_space=True)
    np.testing.assert_allclose(kaldi_filterbank(128).numpy(), expected, atol=1e-5)


def test_a_full_clip_gives_what_whispers_encoder_gives(folders: dict[str, SimpleNamespace]) -> None:
    waveform = noise(FULL["whisper"])
    features = transformers.WhisperFeatureExtractor()(
        list(waveform.numpy()), sampling_rate=16_000, return_tensors="pt"
    ).input_features
    with torch.no_grad():
        expected = folders["whisper"].model.model.encoder(features, output_hidden_states=True)
        embedding, tap = whisper(3, 16_000, folders["whisper"].folder).eval().embed(waveform)
    torch.testing.assert_close(embedding, expected.last_hidden_state.mean(dim=1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(tap.squeeze(3).transpose(1, 2), expected.hidden_states[2], rtol=1e-4, atol=1e-4)


def test_a_full_clip_gives_what_ast_gives(folders: dict[str, SimpleNamespace]) -> None:
    waveform = noise(FULL["ast"])
    features = transformers.ASTFeatureExtractor()(
        list(waveform.numpy()), sampling_rate=16_000, return_tensors="pt"
    ).input_values
    with torch.no_grad():
        expected = folders["ast"].model.audio_spectrogram_transformer(features, output_hidden_states=True)
        embedding, tap = ast(3, 16_000, folders["ast"].folder).eval().embed(waveform)
    torch.testing.assert_close(embedding, expected.pooler_output, rtol=1e-4, atol=1e-4)
    patches = expected.hidden_states[2][:, 2:].unflatten(1, (12, 101))  # frequency by time
    torch.testing.assert_close(tap, patches.permute(0, 3, 2, 1), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("frames", [498, 98, 1535])
def test_a_clip_of_another_length_gives_what_an_ast_of_that_length_gives(
    folders: dict[str, SimpleNamespace], frames: int
) -> None:
    """Its positions cut from the middle of the published ones, or interpolated between them."""
    source = folders["ast"].model.audio_spectrogram_transformer
    model = ast_model(max_length=frames).audio_spectrogram_transformer
    state = source.state_dict()
    grid = state["embeddings.position_embeddings"][0, 2:].T.reshape(1, 32, 12, 101)
    columns = (frames - 16) // 10 + 1
    if columns > 101:
        grid = nn.functional.interpolate(grid, size=(12, columns), mode="bilinear")
    else:
        grid = grid[..., 50 - columns // 2 : 50 - columns // 2 + columns]
    special = state["embeddings.position_embeddings"][:, :2]
    table = torch.cat([special, grid.reshape(1, 32, -1).transpose(1, 2)], dim=1)
    model.load_state_dict({**state, "embeddings.position_embeddings": table})
    waveform = noise(400 + 160 * (frames - 1))
    features = transformers.ASTFeatureExtractor(max_length=frames)(
        list(waveform.numpy()), sampling_rate=16_000, return_tensors="pt"
    ).input_values
    with torch.no_grad():
        expected = model.eval()(features).pooler_output
        embedding, tap = ast(3, 16_000, folders["ast"].folder).eval().embed(waveform)
    assert tap.shape == (2, 32, columns, 12)
    torch.testing.assert_close(embedding, expected, rtol=1e-4, atol=1e-4)


def test_a_short_clip_gives_what_an_encoder_of_fewer_positions_gives(folders: dict[str, SimpleNamespace]) -> None:
    source = folders["whisper"].model.model.encoder
    encoder = whisper_model(max_source_positions=250).model.encoder
    state = source.state_dict()
    encoder.load_state_dict({**state, "embed_positions.weight": state["embed_positions.weight"][:250]})
    waveform = noise(80_000)
    features = transformers.WhisperFeatureExtractor()(
        list(waveform.numpy()), sampling_rate=16_000, padding="do_not_pad", return_tensors="pt"
    ).input_features
    with torch.no_grad():
        expected = encoder.eval()(features).last_hidden_state.mean(dim=1)
        embedding, tap = whisper(3, 16_000, folders["whisper"].folder).eval().embed(waveform)
    assert tap.shape == (2, 32, 250, 1)
    torch.testing.assert_close(embedding, expected, rtol=1e-4, atol=1e-5)


# The teachers


def test_logits_embedding_and_tap_have_the_promised_shapes(name: str, teacher: Teacher) -> None:
    with torch.no_grad():
        output = teacher(noise(80_000))
        embedding, tap = teacher.embed(noise(80_000))
    assert output.logits.shape == (2, 3) and torch.equal(output.logits, teacher.head(embedding))
    assert embedding.shape == (2, teacher.embedding_size) == (2, teacher.tap_channels) == (2, 32)
    assert tap.shape == {"ast": (2, 32, 49, 12), "whisper": (2, 32, 250, 1)}[name]
    assert torch.equal(output.tap, tap)
    assert teacher.front_end() is teacher.get_submodule("log_mel")


def test_the_tap_alone_equals_the_tap_of_the_whole_and_costs_two_layers(name: str, folder: Path) -> None:
    teacher = FACTORIES[name](3, 16_000, folder).eval()
    ran: list[int] = []
    for number, layer in enumerate(teacher.get_submodule("network.layers").children()):
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
    with torch.no_grad():
        tap = teacher.tap(noise())
        assert ran == [0, 1]
        assert torch.equal(tap, teacher(noise()).tap)


def test_in_asts_tap_time_comes_before_frequency(folders: dict[str, SimpleNamespace]) -> None:
    """Without layers, a patch of the tap is that patch of the log-mel, projected, and its position."""
    teacher = ast(3, 16_000, folders["ast"].folder).eval()
    teacher.network.layers = nn.ModuleList()
    with torch.no_grad():
        nn.init.zeros_(teacher.network.embeddings.position_embeddings)
        tap = teacher.tap(noise(80_000))
        log_mel = teacher.log_mel(noise(80_000))
        patch = log_mel[:, :, 10 * 7 : 10 * 7 + 16, 10 * 3 : 10 * 3 + 16].transpose(2, 3)
        expected = teacher.network.embeddings.patch_embeddings.projection(patch)
    torch.testing.assert_close(tap[:, :, 7, 3], expected[..., 0, 0], rtol=1e-4, atol=1e-4)


def test_every_weight_can_be_fine_tuned_but_for_fixed_positions(name: str, teacher: Teacher) -> None:
    teacher(noise()).logits.square().sum().backward()
    fixed = {weight for weight, tensor in teacher.named_parameters() if tensor.grad is None}
    assert fixed == ({"network.embed_positions.weight"} if name == "whisper" else set())
    teacher.zero_grad()


def test_an_adapted_teacher_is_saved_and_loaded(name: str, folder: Path, tmp_path: Path) -> None:
    adapted = FACTORIES[name](3, 16_000, folder).eval().to(memory_format=torch.channels_last)
    with torch.no_grad():
        for index, weight in enumerate(adapted.parameters()):
            weight.add_(0.001 * index)
    save_weights(tmp_path / "best.safetensors", adapted.state_dict())
    assert not any(key.endswith(("window", "mel_weights")) for key in read_weights(tmp_path / "best.safetensors"))
    other = FACTORIES[name](5, 16_000, folder).eval()
    other.load_pretrained(tmp_path / "best.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(other.embed(noise())[0], adapted.embed(noise())[0])


def test_it_hears_the_same_at_any_rate(name: str, folder: Path, teacher: Teacher) -> None:
    other = FACTORIES[name](3, 48_000, folder).eval()
    other.head.load_state_dict(teacher.head.state_dict())
    waveform = noise(24_000)
    with torch.no_grad():
        expected = teacher(functional.resample(waveform, 48_000, 16_000))
        torch.testing.assert_close(other(waveform), expected)


def test_silence_and_a_tenth_of_a_second_give_finite_logits(teacher: Teacher) -> None:
    with torch.no_grad():
        assert teacher(torch.zeros(1, 16_000)).logits.isfinite().all()
        assert teacher(noise(1_760)).logits.isfinite().all()


def test_whisper_says_that_a_clip_is_too_long(folders: dict[str, SimpleNamespace]) -> None:
    teacher = whisper(3, 8_000, folders["whisper"].folder)
    with pytest.raises(UsageError, match=r"clips of at most 30 s, not of 31 s.*data\.clip_seconds"):
        teacher.tap(torch.zeros(1, 31 * 8_000))


# The folder


def test_weights_in_half_precision_are_widened(name: str, folders: dict[str, SimpleNamespace], tmp_path: Path) -> None:
    folders[name].model.save_pretrained(tmp_path)
    weights = {key: tensor.half() for key, tensor in read_weights(tmp_path / "model.safetensors").items()}
    save_weights(tmp_path / "model.safetensors", weights)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"dtype": "float16"}))
    teacher = FACTORIES[name](3, 16_000, tmp_path)
    assert {weight.dtype for weight in teacher.parameters()} == {torch.float32}


def test_the_normalisation_comes_from_the_folder(folders: dict[str, SimpleNamespace], tmp_path: Path) -> None:
    folders["ast"].model.save_pretrained(tmp_path)
    extractor = transformers.ASTFeatureExtractor(mean=-6.845978, std=5.5654526, max_length=98)
    extractor.save_pretrained(tmp_path)
    expected = extractor(list(noise().numpy()), sampling_rate=16_000, return_tensors="pt").input_values
    log_mel = ast(3, 16_000, tmp_path).log_mel(noise())
    torch.testing.assert_close(log_mel.squeeze(1), expected, rtol=0, atol=1e-3)


def test_loading_is_silent(name: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    FACTORIES[name](3, 16_000, folder)
    assert capfd.readouterr() == ("", "")
    assert (transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()) == before


def test_a_model_in_the_hub_cache_is_found_by_its_name(
    name: str, folder: Path, teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "hub" / "models--owner--model-1.5"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(commit)
    (cached / "snapshots").mkdir()
    (cached / "snapshots" / commit).symlink_to(folder, target_is_directory=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    found = FACTORIES[name](3, 16_000, Path("/somewhere/owner/model-1.5")).eval()  # as a configuration keeps it
    with torch.no_grad():
        assert torch.equal(found.embed(noise())[0], teacher.embed(noise())[0])


def refusal(name: str, weights: Path) -> str:
    with pytest.raises(InputError) as caught:
        FACTORIES[name](3, 16_000, weights)
    message = str(caught.value)
    assert message.startswith(f"{weights}") and "\n" not in message
    return message


@pytest.mark.parametrize("weights", ["owner/model", "not a name/at all", "one"])
def test_a_folder_that_is_not_there_is_refused(name: str, weights: str, tmp_path: Path) -> None:
    assert "no such folder, nor is there a model" in refusal(name, tmp_path / weights)


def test_a_file_in_place_of_its_folder_is_refused(name: str, folder: Path) -> None:
    assert "Give the folder that holds it" in refusal(name, folder / "model.safetensors")


def test_a_folder_of_another_model_is_refused(folders: dict[str, SimpleNamespace], tmp_path: Path) -> None:
    message = refusal("ast", folders["whisper"].folder)
    assert "a model of type 'whisper', not 'audio-spectrogram-transformer'" in message
    assert "a model of type 'audio-spectrogram-transformer', not 'whisper'" in refusal("whisper", folders["ast"].folder)
    assert "no config.json in it" in refusal("ast", tmp_path)


def test_a_folder_without_all_of_its_weights_is_refused(
    name: str, folders: dict[str, SimpleNamespace], tmp_path: Path
) -> None:
    folders[name].model.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    whole = read_weights(weights)
    save_weights(
        weights, {key: tensor for key, tensor in whole.items() if "1.attention" not in key and "fc1" not in key}
    )
    assert "not all weights of" in refusal(name, tmp_path) and "missing: layers." in refusal(name, tmp_path)
    weights.write_bytes(weights.read_bytes()[:5_000])
    assert "can be read from it" in refusal(name, tmp_path)
    weights.unlink()
    assert "can be read from it" in refusal(name, tmp_path)


def test_weights_of_another_size_than_configured_are_refused(
    name: str, folders: dict[str, SimpleNamespace], tmp_path: Path
) -> None:
    folders[name].model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    width = {"ast": {"intermediate_size": 128}, "whisper": {"encoder_ffn_dim": 128}}[name]
    (tmp_path / "config.json").write_text(json.dumps(config | width))
    assert "can be read from it" in refusal(name, tmp_path)
    (tmp_path / "config.json").write_text("{")
    assert "config.json: cannot be read as JSON" in refusal(name, tmp_path)


def test_without_transformers_the_message_says_what_to_install(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UsageError) as caught:
        FACTORIES[name](3, 16_000, folder)
    assert str(caught.value) == f"Teacher '{name}' needs the extra: pip install 'edgekd[transformers]'."


def test_ast_keeps_to_its_own_constants_without_a_preprocessor(folders: dict[str, SimpleNamespace]) -> None:
    teacher = AstTeacher(3, 16_000, folders["ast"].model.audio_spectrogram_transformer)
    extractor = transformers.ASTFeatureExtractor()
    assert (teacher.log_mel.mean, teacher.log_mel.deviation) == (extractor.mean, extractor.std)
