"""YAMNet: a MobileNet trained on AudioSet, as a teacher.

Plakal & Ellis, *YAMNet* (TensorFlow model garden, research/audioset, 2019, Apache-2.0): a 3x3 convolution and 13
depthwise-separable ones (Howard et al. 2017, arXiv 1704.04861), 32 to 1024 channels, 3.2 M parameters without the
AudioSet classifier. It hears 16 kHz patches of 0.96 s; the embedding of a clip is the mean over its patches.

The weights are the published `yamnet.h5` (Keras; `h5py` reads it), whose batch norms are folded into the convolutions
here, or an `.npz` in which they are already: `conv{i}.weight (out, in/groups, kh, kw)`, `conv{i}.bias`,
`conv{i}.stride` and `conv{i}.groups` for i = 0..26 in forward order, with `fc.weight`, `fc.bias` and `class_names`. The
AudioSet classifier, `fc` or `logits`, is not used.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.config import FrontendConfig
from edgekd.errors import InputError
from edgekd.log_mel import LogMel
from edgekd.models.blocks import SameConv2d
from edgekd.models.checkpoints import State
from edgekd.models.teachers.base import Layers, Teacher, repeat_frames
from edgekd.models.weights import read_weights

OWN_RATE = 16_000  # Hz
OWN_FRONT_END = FrontendConfig(
    convention="yamnet", window_length=400, n_fft=512, hop_length=160, n_mels=64, f_min=125.0, f_max=7_500.0
)
KERAS_EPSILON = 1e-4  # of the batch norms in yamnet.h5, which have no scale
PATCH_FRAMES, PATCH_HOP = 96, 48  # 0.96 s every 0.48 s

# (channels in, channels out, stride) of the depthwise-separable convolutions.
SEPARABLE = (
    (32, 64, 1),
    (64, 128, 2),
    (128, 128, 1),
    (128, 256, 2),
    (256, 256, 1),
    (256, 512, 2),
    *[(512, 512, 1)] * 5,
    (512, 1024, 2),
    (1024, 1024, 1),
)
STEM_LAYERS = 7  # the first convolution and the first three depthwise-separable ones


class YamNet(Teacher):
    """The tap is the map after the third depthwise-separable convolution, `(B, 128, T / 4, 16)`, T frames of 10 ms.

    It is computed on the whole clip rather than on patches: it sees only a few frames around each point, and patches
    would leave seams in the texture. There is no batch norm, so the network is the same in training and evaluation.
    """

    def __init__(self, num_classes: int, sample_rate: int) -> None:
        super().__init__(num_classes, sample_rate, OWN_RATE, tap_channels=128, embedding_size=1024)
        self.log_mel = LogMel(OWN_FRONT_END, OWN_RATE)
        self.conv = nn.ModuleList([SameConv2d(1, 32, 3, stride=2)])
        for inputs, outputs, stride in SEPARABLE:
            self.conv.append(SameConv2d(inputs, inputs, 3, stride=stride, groups=inputs))
            self.conv.append(SameConv2d(inputs, outputs, 1))

    def tap(self, waveform: Tensor) -> Tensor:
        return self._convolve(self.log_mel(self.at_own_rate(waveform)), STEM_LAYERS)

    def embed(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        log_mel = self.log_mel(self.at_own_rate(waveform))
        patches = cut_patches(log_mel)  # (B, P, 1, 96, 64)
        features = self._convolve(patches.flatten(0, 1), len(self.conv))  # (B * P, 1024, 3, 2)
        embedding = features.mean(dim=(2, 3)).unflatten(0, patches.shape[:2]).mean(dim=1)
        return embedding, self._convolve(log_mel, STEM_LAYERS)

    def layers(self) -> Layers:
        return Layers([nn.Sequential(each, nn.ReLU()) for each in self.conv], tap=STEM_LAYERS)

    def load_pretrained(self, path: Path) -> None:
        state = read_weights(path, {*self.state_dict(), *(f"conv{number}.weight" for number in range(27))})
        if "layer1/conv/layer1/conv/kernel:0" in state:
            self.load_all_but_head(folded_keras(state, path), path)
            return
        strides = [2, *(step for _, _, stride in SEPARABLE for step in (stride, 1))]
        for number, stride in enumerate(strides):
            given = state.get(f"conv{number}.stride")
            if given is not None and given.flatten().tolist() != [stride]:
                raise InputError(
                    f"{path}: not weights of YamNet: conv{number}.stride is {given.tolist()}, not {stride}. "
                    "Convert the original YAMNet again, or give another file."
                )
        unused = re.compile(r"fc\.|conv\d+\.(stride|groups)$")
        kept = {name: tensor for name, tensor in state.items() if not unused.match(name)}
        self.load_all_but_head({re.sub(r"^conv(\d+)", r"conv.\1", name): kept[name] for name in kept}, path)

    def _convolve(self, features: Tensor, layers: int) -> Tensor:
        """The map after the first `layers` convolutions."""
        for layer in self.conv[:layers]:
            features = F.relu(layer(features))
        return features


def folded_keras(state: State, path: Path) -> State:
    """The convolutions of `yamnet.h5`, each with its batch norm folded in, under this module's names.

    Raises `InputError` when one of the arrays is not there.
    """
    layers = ["layer1/conv"]
    layers += [f"layer{number}/{kind}_conv" for number in range(2, 15) for kind in ("depthwise", "pointwise")]
    folded: State = {}
    try:
        for number, layer in enumerate(layers):
            depthwise = layer.endswith("depthwise_conv")
            kernel = state[f"{layer}/{layer}/{'depthwise_kernel' if depthwise else 'kernel'}:0"]  # (kh, kw, in, out)
            norm = f"{layer}/bn/{layer}/bn"
            scale = (state[f"{norm}/moving_variance:0"] + KERAS_EPSILON).rsqrt()
            kernel = kernel.permute(2, 3, 0, 1) if depthwise else kernel.permute(3, 2, 0, 1)
            folded[f"conv.{number}.weight"] = (kernel * scale[:, None, None, None]).contiguous()
            folded[f"conv.{number}.bias"] = state[f"{norm}/beta:0"] - state[f"{norm}/moving_mean:0"] * scale
    except (KeyError, RuntimeError) as failure:
        raise InputError(f"{path}: not the published yamnet.h5 ({failure}). Fetch it again.") from None
    return folded


def cut_patches(log_mel: Tensor) -> Tensor:
    """`(B, 1, T, F)` -> `(B, P, 1, 96, F)`: a patch every 48 frames, and one at the end where frames are left over.

    A clip shorter than one patch is repeated.
    """
    log_mel = repeat_frames(log_mel, PATCH_FRAMES)
    last = log_mel.shape[2] - PATCH_FRAMES
    starts = [*range(0, last, PATCH_HOP), last]
    return torch.stack([log_mel[:, :, start : start + PATCH_FRAMES] for start in starts], dim=1)
