"""wav2vec 2.0, HuBERT and WavLM: transformers that learned from speech without labels, as teachers.

Baevski et al. 2020 (arXiv 2006.11477), Hsu et al. 2021 (arXiv 2106.07447) and Chen et al. 2022 (arXiv 2110.13900), all
in their base size: seven convolutions turn a waveform at 16 kHz into a frame of 512 features every 20 ms, which twelve
transformer layers of width 768 refine; 94.4 M parameters. WavLM's attention has a gated relative position bias besides.

The waveform goes in as it is. These checkpoints were trained so (torchaudio's bundles of the base size have no
normalisation either), and the group norm over time after the first convolution, which has no bias, takes out level and
offset of all but nearly silent clips. In training, dropout is active as in the published fine-tuning; whole layers are
never dropped and no frame is masked.

The networks are torchaudio's, and so are the names in a file of an adapted teacher. Weights load from the files of
torchaudio's bundles, from the original releases and from Hugging Face:

| | torchaudio (.pth) | original (.pt) | Hugging Face (model.safetensors, pytorch_model.bin) |
|---|---|---|---|
| HuBERT | hubert_fairseq_base_ls960 | hubert_base_ls960 | facebook/hubert-base-ls960 |
| wav2vec 2.0 | wav2vec2_fairseq_base_ls960 | wav2vec_small | facebook/wav2vec2-base |
| WavLM | wavlm_base | WavLM-Base | microsoft/wavlm-base |
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from edgekd._torchaudio import models
from edgekd.models.checkpoints import State
from edgekd.models.teachers.base import Teacher
from edgekd.models.weights import read_weights

OWN_RATE = 16_000  # Hz
TAP_LAYER = 2


class Wav2Vec2Teacher(Teacher):
    """The embedding is the mean over time of the last layer; the tap is what the second layer returns.

    A clip of S samples at 16 kHz has T = (S - 400) // 320 + 1 frames, 249 at 5 s; the tap is `(B, hidden, T, 1)`.
    """

    def __init__(self, num_classes: int, sample_rate: int, network: models.Wav2Vec2Model) -> None:
        hidden = network.encoder.feature_projection.projection.out_features
        super().__init__(num_classes, sample_rate, OWN_RATE, tap_channels=hidden, embedding_size=hidden)
        self.feature_extractor = network.feature_extractor
        self.encoder = network.encoder

    def tap(self, waveform: Tensor) -> Tensor:
        return _as_map(self._layers(waveform, TAP_LAYER)[-1])

    def embed(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        layers = self._layers(waveform, None)
        return layers[-1].mean(dim=1), _as_map(layers[TAP_LAYER - 1])

    def load_pretrained(self, path: Path) -> None:
        self.load_all_but_head(torchaudio_names(read_weights(path)), path)

    def _layers(self, waveform: Tensor, count: int | None) -> list[Tensor]:
        """What each of the first `count` transformer layers (all of them: None) returns, `(B, T, hidden)`."""
        features, _ = self.feature_extractor(self.at_own_rate(waveform), None)
        return self.encoder.extract_features(features, None, count)


def wav2vec2_base(num_classes: int, sample_rate: int) -> Wav2Vec2Teacher:
    """wav2vec 2.0 base, trained on the 960 hours of LibriSpeech."""
    return Wav2Vec2Teacher(num_classes, sample_rate, models.wav2vec2_base())


def hubert_base(num_classes: int, sample_rate: int) -> Wav2Vec2Teacher:
    """HuBERT base, trained on the 960 hours of LibriSpeech; the network of wav2vec 2.0."""
    return Wav2Vec2Teacher(num_classes, sample_rate, models.hubert_base())


def wavlm_base(num_classes: int, sample_rate: int) -> Wav2Vec2Teacher:
    """WavLM base, trained on the 960 hours of LibriSpeech, with noise and other voices mixed in."""
    return Wav2Vec2Teacher(num_classes, sample_rate, models.wavlm_base())


def torchaudio_names(state: State) -> State:
    """The tensors of any of the published files under torchaudio's names, without what only pre-training needs."""
    renamed: State = {}
    for published, tensor in state.items():
        name = published
        for pattern, replacement in _RENAMED:
            name = pattern.sub(replacement, name)
        if not name.startswith(_UNUSED):
            renamed[name] = tensor
    if any(name.endswith(".attention.gru_rel_pos_const") for name in renamed):
        return _join_projections(renamed)
    return renamed


def _join_projections(state: State) -> State:
    """WavLM's query, key and value projections as one matrix, as torchaudio alone has them; others' are separate."""
    joined = {_OUTPUT.sub(r"\1attention.out_proj.", name): tensor for name, tensor in state.items()}
    for name in state:
        query = _QUERY.match(name)
        if query is None:
            continue
        layer, kind = query.groups()
        parts = [joined.pop(f"{layer}{part}_proj.{kind}", None) for part in ("q", "k", "v")]
        joined[f"{layer}attention.in_proj_{kind}"] = torch.cat([part for part in parts if part is not None])
    return joined


def _as_map(frames: Tensor) -> Tensor:
    """`(B, T, C)` -> `(B, C, T, 1)`."""
    return frames.transpose(1, 2).unsqueeze(3)


# From the names of fairseq (and of WavLM's release, which follows it) and of Hugging Face to torchaudio's. What is
# wrapped for fine-tuning has a prefix. Names that are torchaudio's already pass unchanged, but for the two parts of
# the weight norm, which files from before PyTorch 2.1 call weight_g and weight_v.
_RENAMED = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^(w2v_encoder\.)?(w2v_model|wav2vec2|hubert|wavlm)\.", ""),
        (r"^feature_extractor\.conv_layers\.(\d+)\.0\.", r"feature_extractor.conv_layers.\1.conv."),
        (r"^feature_extractor\.conv_layers\.(\d+)\.2\.", r"feature_extractor.conv_layers.\1.layer_norm."),
        (r"^layer_norm\.", "encoder.feature_projection.layer_norm."),
        (r"^post_extract_proj\.", "encoder.feature_projection.projection."),
        (r"^feature_projection\.", "encoder.feature_projection."),
        (r"^encoder\.(pos_conv\.0|pos_conv_embed\.conv)\.", "encoder.transformer.pos_conv_embed.conv."),
        (r"^encoder\.(layers|layer_norm)\.", r"encoder.transformer.\1."),
        (r"\.self_attn\.", ".attention."),
        (r"\.self_attn_layer_norm\.", ".layer_norm."),
        (r"\.fc1\.", ".feed_forward.intermediate_dense."),
        (r"\.fc2\.", ".feed_forward.output_dense."),
        (r"\.relative_attention_bias\.", ".rel_attn_embed."),
        (r"\.grep_linear\.", ".gru_rel_pos_linear."),
        (r"\.grep_a$", ".gru_rel_pos_const"),
        (r"\.weight_g$", ".parametrizations.weight.original0"),
        (r"\.weight_v$", ".parametrizations.weight.original1"),
    )
)
# Mask embeddings, quantisers, prediction and contrast heads of pre-training, and the letters of speech recognition.
_UNUSED = (
    *("mask_emb", "masked_spec_embed", "label_embs_concat", "quantizer.", "project_q.", "project_hid.", "final_proj."),
    *("aux.", "lm_head.", "proj.", "w2v_encoder.proj."),
)
_QUERY = re.compile(r"(encoder\.transformer\.layers\.\d+\.attention\.)q_proj\.(weight|bias)$")
_OUTPUT = re.compile(r"(\.layers\.\d+\.attention\.)out_proj\.")
