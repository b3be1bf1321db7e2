"""AST and the encoder of Whisper, as the `transformers` package (an extra) has them, as teachers.

Gong, Chung, Glass, *AST: Audio Spectrogram Transformer*, Interspeech 2021, arXiv 2104.01778: a vision transformer on
16x16 patches, every 10 bins and 10 frames, of a log-mel of 128 bins; 86 M parameters, trained on AudioSet.
Radford et al., *Robust Speech Recognition via Large-Scale Weak Supervision*, 2022, arXiv 2212.04356: Whisper; its
encoder reads a log-mel of 80 bins (128 in large-v3); tiny has 8 M parameters, base 20 M, small 87 M, in the encoder.

Both come in sizes and variants, so they are built from a folder as Hugging Face lays it out: `config.json` and
`model.safetensors`, and `preprocessor_config.json` where there is one, say of `MIT/ast-finetuned-audioset-10-10-0.4593`
or `openai/whisper-base`. Nothing is downloaded here: the folder is a local one, or that of a model that is in the hub
cache already.

Both were trained on clips of one length, 10.24 s and 30 s, shorter ones filled with silence. Here a shorter clip stays
as it is and the table of positions is cut to its length: nothing is spent on silence, and none of it is in the
embedding or the tap. The authors of AST do so when they fine-tune for ESC-50.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd._torchaudio import functional as audio_functional  # first: transformers imports torchaudio itself
from edgekd.errors import InputError, UsageError
from edgekd.json_files import read_json
from edgekd.log_mel import triangles_of_height_1
from edgekd.models.teachers.base import Teacher, repeat_frames

if TYPE_CHECKING:
    from transformers import ASTModel
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

OWN_RATE = 16_000  # Hz
HOP = 160  # samples between frames: 10 ms
WINDOW = 400  # samples
TAP_LAYER = 2
AUDIOSET_MEAN, AUDIOSET_DEVIATION = -4.2677393, 4.5689974  # of AST's log-mel
SPECIAL_TOKENS = 2  # of AST, before the patches: one for the class, one for a teacher of its own


class AstTeacher(Teacher):
    """The embedding is the mean of the two special tokens after the last layer, which AST's own classifier reads too.

    A clip has `T = (frames - 16) // 10 + 1` by 12 patches, 49 by 12 at 5 s; the tap is the grid of patches after the
    second layer, `(B, hidden, T, 12)`. Positions of a clip below 10.24 s are cut from the middle, those of a longer
    one interpolated, as in the authors' code.
    """

    def __init__(
        self,
        num_classes: int,
        sample_rate: int,
        network: ASTModel,
        mean: float = AUDIOSET_MEAN,
        deviation: float = AUDIOSET_DEVIATION,
    ) -> None:
        """`mean` and `deviation` are those of the log-mel that `network` was trained on."""
        hidden = network.config.hidden_size
        super().__init__(num_classes, sample_rate, OWN_RATE, tap_channels=hidden, embedding_size=hidden)
        self.log_mel = KaldiLogMel(network.config.num_mel_bins, mean, deviation)
        self.network = network

    def tap(self, waveform: Tensor) -> Tensor:
        tokens, rows = self._early(waveform)
        return _as_grid(tokens, rows)

    def embed(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        early, rows = self._early(waveform)
        tokens = self.network.layernorm(_through(self.network.layers[TAP_LAYER:], early))
        return tokens[:, :SPECIAL_TOKENS].mean(dim=1), _as_grid(early, rows)

    def _early(self, waveform: Tensor) -> tuple[Tensor, int]:
        """The tokens `(B, 2 + rows * T, hidden)` after the second layer, and the rows (in frequency) of their grid."""
        embeddings = self.network.embeddings
        project = embeddings.patch_embeddings.projection
        log_mel = repeat_frames(self.log_mel(self.at_own_rate(waveform)), project.kernel_size[1])
        patches = project(log_mel.transpose(2, 3))  # (B, hidden, rows, T)
        special = torch.cat([embeddings.cls_token, embeddings.distillation_token], dim=1)
        special = special + embeddings.position_embeddings[:, :SPECIAL_TOKENS]
        patches = patches + self._positions(patches.shape[2], patches.shape[3])
        tokens = torch.cat([special.expand(len(patches), -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
        return _through(self.network.layers[:TAP_LAYER], embeddings.dropout(tokens)), patches.shape[2]

    def _positions(self, rows: int, columns: int) -> Tensor:
        """The position embeddings of a grid of `columns` in time, `(1, hidden, rows, columns)`."""
        table = self.network.embeddings.position_embeddings[:, SPECIAL_TOKENS:]
        table = table.transpose(1, 2).unflatten(2, (rows, -1))
        published = table.shape[3]
        if columns > published:
            return F.interpolate(table, size=(rows, columns), mode="bilinear")
        first = published // 2 - columns // 2
        return table[..., first : first + columns]


class WhisperTeacher(Teacher):
    """The embedding is the mean over time of what the encoder returns; the tap is what its second layer does.

    A frame every 20 ms, `T = 250` at 5 s; the tap is `(B, hidden, T, 1)`. A clip has at most 30 s: Whisper knows no
    positions beyond.
    """

    def __init__(self, num_classes: int, sample_rate: int, network: WhisperEncoder) -> None:
        hidden = network.config.d_model
        super().__init__(num_classes, sample_rate, OWN_RATE, tap_channels=hidden, embedding_size=hidden)
        self.log_mel = WhisperLogMel(network.config.num_mel_bins)
        self.network = network
        self.network.embed_positions.requires_grad_(False)  # sinusoids, not learned

    def tap(self, waveform: Tensor) -> Tensor:
        return self._early(waveform).transpose(1, 2).unsqueeze(3)

    def embed(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        early = self._early(waveform)
        frames = self.network.layer_norm(_through(self.network.layers[TAP_LAYER:], early))
        return frames.mean(dim=1), early.transpose(1, 2).unsqueeze(3)

    def _early(self, waveform: Tensor) -> Tensor:
        """The frames `(B, T, hidden)` after the second layer. Raises `UsageError` for a clip that is too long."""
        mel = self.log_mel(self.at_own_rate(waveform)).squeeze(1).transpose(1, 2)
        frames = F.gelu(self.network.conv2(F.gelu(self.network.conv1(mel)))).transpose(1, 2)
        positions = self.network.embed_positions.weight
        if frames.shape[1] > len(positions):
            raise UsageError(
                f"Teacher 'whisper' hears clips of at most {len(positions) * 2 * HOP / OWN_RATE:g} s, not of "
                f"{waveform.shape[1] / self.sample_rate:g} s: make them shorter (data.clip_seconds)."
            )
        frames = F.dropout(frames + positions[: frames.shape[1]], self.network.dropout, self.training)
        return _through(self.network.layers[:TAP_LAYER], frames)


def ast(num_classes: int, sample_rate: int, weights: Path) -> AstTeacher:
    """AST with the weights in the folder `weights`, and a new head.

    Raises `UsageError` without the `transformers` package, `InputError` where the folder is missing, of another model,
    incomplete or damaged.
    """
    transformers = _require_transformers("ast")
    folder = _model_folder(weights)
    _check_model_type(folder, "audio-spectrogram-transformer")
    preprocessor = folder / "preprocessor_config.json"
    front_end = _read_json(preprocessor) if preprocessor.is_file() else {}
    mean, deviation = front_end.get("mean", AUDIOSET_MEAN), front_end.get("std", AUDIOSET_DEVIATION)
    return AstTeacher(num_classes, sample_rate, _load(transformers.ASTModel, folder), mean, deviation)


def whisper(num_classes: int, sample_rate: int, weights: Path) -> WhisperTeacher:
    """The encoder of Whisper, of any size, with the weights in the folder `weights`, and a new head.

    Raises what `ast` raises.
    """
    _require_transformers("whisper")
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    folder = _model_folder(weights)
    _check_model_type(folder, "whisper")
    # The decoder is half of the file; it is not read.
    return WhisperTeacher(
        num_classes, sample_rate, _load(WhisperEncoder, folder, key_mapping={r"^(model\.)?encoder\.": ""})
    )


class KaldiLogMel(nn.Module):
    """AST's front end: waveform `(B, S)` at 16 kHz -> Kaldi's log-mel `(B, 1, T, F)`, `(x - mean) / (2 deviation)`.

    Povey et al., *The Kaldi speech recognition toolkit*, ASRU 2011: frames of 25 ms, not centred, so `T = (S - 400) //
    160 + 1`; of each its mean is taken off, then 0.97 times the sample before; symmetric Hann window, 512-point DFT.
    """

    window: Tensor
    mel_weights: Tensor

    def __init__(self, n_mels: int, mean: float, deviation: float) -> None:
        super().__init__()
        self.mean, self.deviation = mean, deviation
        self.register_buffer("window", torch.hann_window(WINDOW, periodic=False), persistent=False)
        self.register_buffer("mel_weights", kaldi_filterbank(n_mels), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        with torch.autocast(waveform.device.type, enabled=False):
            frames = waveform.unfold(-1, WINDOW, HOP)
            frames = frames - frames.mean(dim=-1, keepdim=True)
            before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
            spectrum = torch.fft.rfft((frames - 0.97 * before) * self.window, n=512)
            power = spectrum.real.square() + spectrum.imag.square()  # (B, T, 257)
            log_mel = (power @ self.mel_weights).clamp(min=torch.finfo(torch.float32).eps).log()
            return ((log_mel - self.mean) / (2 * self.deviation)).unsqueeze(1)


class WhisperLogMel(nn.Module):
    """Whisper's front end: waveform `(B, S)` at 16 kHz -> `(B, 1, S // 160, F)`.

    `log10` of Slaney mel powers, of each clip not more than 8 below its own greatest value, `(x + 4) / 4`; centred
    frames with reflected borders, without the last one.
    """

    window: Tensor
    mel_weights: Tensor

    def __init__(self, n_mels: int) -> None:
        super().__init__()
        filters = audio_functional.melscale_fbanks(
            n_freqs=WINDOW // 2 + 1,
            f_min=0.0,
            f_max=8_000.0,
            n_mels=n_mels,
            sample_rate=OWN_RATE,
            norm="slaney",
            mel_scale="slaney",
        )
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)
        self.register_buffer("mel_weights", filters, persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        with torch.autocast(waveform.device.type, enabled=False):
            spectrum = torch.stft(waveform, WINDOW, HOP, window=self.window, return_complex=True)[..., :-1]
            power = spectrum.real.square() + spectrum.imag.square()  # (B, 201, T)
            log_mel = (power.transpose(1, 2) @ self.mel_weights).clamp(min=1e-10).log10()
            floor = log_mel.amax(dim=(1, 2), keepdim=True) - 8.0
            return ((torch.maximum(log_mel, floor) + 4.0) / 4.0).unsqueeze(1)


def kaldi_filterbank(n_mels: int) -> Tensor:
    """Kaldi's mel filters `(257, n_mels)`, 20 to 8000 Hz."""
    return triangles_of_height_1(512, OWN_RATE, n_mels, 20.0, OWN_RATE / 2)


def _through(layers: nn.ModuleList, tokens: Tensor) -> Tensor:
    """`(B, N, hidden)` through transformer layers, every token heeding every other."""
    for layer in layers:
        tokens = layer(tokens, None)
    return tokens


def _as_grid(tokens: Tensor, rows: int) -> Tensor:
    """Tokens `(B, 2 + rows * T, C)` -> the grid of patches `(B, C, T, rows)`, without the special tokens."""
    return tokens[:, SPECIAL_TOKENS:].transpose(1, 2).unflatten(2, (rows, -1)).transpose(2, 3)


def _require_transformers(teacher: str) -> Any:
    try:
        import transformers
    except ModuleNotFoundError:
        raise UsageError(f"Teacher '{teacher}' needs the extra: pip install 'edgekd[transformers]'.") from None
    return transformers


def _model_folder(weights: Path) -> Path:
    """The folder `weights`, or the one in the hub cache of the model OWNER/NAME that its last two parts name."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    if weights.is_file():
        raise InputError(f"{weights}: is a file. Give the folder that holds it, with config.json beside it.")
    if weights.is_dir():
        return weights
    name = "/".join(weights.parts[-2:])
    try:
        cached = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        cached = None
    if not isinstance(cached, str):
        raise InputError(
            f"{weights}: no such folder, nor is there a model {name} in the local hub cache. "
            "'hf download OWNER/NAME --local-dir FOLDER' fetches one; then give FOLDER."
        )
    return Path(cached).parent


def _check_model_type(folder: Path, wanted: str) -> None:
    """Raise `InputError` unless the configuration in `folder` is of a model of the type `wanted`."""
    config = folder / "config.json"
    if not config.is_file():
        raise InputError(
            f"{folder}: not a model folder: no config.json in it. See `edgekd teachers` for what to fetch."
        )
    found = _read_json(config).get("model_type")
    if found != wanted:
        raise InputError(
            f"{folder}: a model of type {found!r}, not {wanted!r}. Give another folder, or name its teacher."
        )


def _read_json(path: Path) -> dict[str, Any]:
    values = read_json(path, "Copy or download it again.")
    return values if isinstance(values, dict) else {}


def _load(architecture: Any, folder: Path, **options: Any) -> Any:
    """A network of `architecture` with all its weights from `folder`, in float32, without a word on the terminal."""
    from safetensors import SafetensorError

    try:
        with _silenced():
            network, found = architecture.from_pretrained(
                folder, local_files_only=True, dtype=torch.float32, output_loading_info=True, **options
            )
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as failure:
        reason = (str(failure).strip() or type(failure).__name__).splitlines()[0].rstrip(".")
        raise InputError(f"{folder}: no {architecture.__name__} can be read from it ({reason[:200]}).") from None
    # Transformers fills what is missing with random numbers and says so in a log; that would be no teacher.
    missing = sorted(found["missing_keys"])
    if missing:
        raise InputError(
            f"{folder}: not all weights of {architecture.__name__} are there; missing: {', '.join(missing[:3])}"
            f"{f' and {len(missing) - 3} more' if len(missing) > 3 else ''}. Fetch the model again."
        )
    return network


@contextmanager
def _silenced() -> Iterator[None]:
    """Within it, transformers shows no progress bar and logs errors only; what it was set to comes back after."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
