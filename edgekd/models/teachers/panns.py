"""PANNs: convolutional networks trained on AudioSet, as teachers.

Kong, Cao, Iqbal, Wang, Wang, Plumbley, *PANNs: Large-Scale Pretrained Audio Neural Networks for Audio Pattern
Recognition*, IEEE/ACM TASLP 28 (2020), arXiv 1912.10211: CNN14, ResNet38 and MobileNetV1. Layers carry the names they
have in the published checkpoints (`Cnn14_mAP=0.431.pth`, `ResNet38_mAP=0.434.pth`, `MobileNetV1_mAP=0.389.pth`), so
those load as they are. What the files hold besides is not needed: the front end as constants (`LogMel` computes the
same) and the AudioSet classifier `fc_audioset`, in whose place stands `head`.

All work at 32 kHz on a log-mel of 64 bins, 50-14000 Hz, window 1024, hop 320, with a batch norm over the mel bins. A
5 s clip has 501 frames; the tap follows the first block and its 2x2 average pooling: `(B, C, 250, 32)`.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.config import FrontendConfig
from edgekd.errors import InputError
from edgekd.log_mel import LogMel, normalise_mel_bins
from edgekd.models.teachers.base import Layers, Teacher, mean_and_max, repeat_frames
from edgekd.models.weights import read_weights

OWN_RATE = 32_000  # Hz
OWN_FRONT_END = FrontendConfig(n_fft=1024, hop_length=320, n_mels=64, f_min=50.0, f_max=14_000.0)
TAP_FRAMES = 16  # what the four poolings after the tap need to leave one frame


class Panns(Teacher):
    """What the three have in common: front end, `stem` up to the tap, `trunk` above it, pooling, `fc1`."""

    def __init__(self, num_classes: int, sample_rate: int, tap_channels: int, embedding_size: int) -> None:
        super().__init__(num_classes, sample_rate, OWN_RATE, tap_channels, embedding_size)
        self.log_mel = LogMel(OWN_FRONT_END, OWN_RATE)
        self.bn0 = nn.BatchNorm2d(OWN_FRONT_END.n_mels)
        self.fc1 = nn.Linear(embedding_size, embedding_size)
        self.dropout, self.map_dropout = nn.Dropout(0.5), nn.Dropout(0.2)

    @abstractmethod
    def stem(self, log_mel: Tensor) -> Tensor:
        """Normalised log-mel `(B, 1, T, 64)` -> tap `(B, C, T // 2, 32)`."""

    @abstractmethod
    def trunk(self, tap: Tensor) -> Tensor:
        """Tap -> the last feature map `(B, E, T // 32, 2)`."""

    def input_norm(self) -> nn.BatchNorm2d | None:
        return self.bn0

    def tap(self, waveform: Tensor) -> Tensor:
        return self.stem(normalise_mel_bins(self.bn0, self.log_mel(self.at_own_rate(waveform))))

    def embed(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        tap = self.tap(waveform)
        pooled = mean_and_max(self.trunk(repeat_frames(tap, TAP_FRAMES)))
        embedding = F.relu(self.fc1(self.dropout(pooled)))
        return self.dropout(embedding), tap

    def load_pretrained(self, path: Path) -> None:
        state = read_weights(path, self.state_dict())
        published = state.get("logmel_extractor.melW")
        own = self.log_mel.mel_weights.cpu()
        if published is not None and not _nearly_equal(published, own):
            raise InputError(
                f"{path}: trained on another log-mel: its logmel_extractor.melW is not that of 32 kHz, window 1024, "
                f"64 mel bins, 50-14000 Hz, which {type(self).__name__} needs. Give the 32 kHz file of PANNs."
            )
        unused = ("spectrogram_extractor.", "logmel_extractor.", "fc_audioset.")
        self.load_all_but_head({name: tensor for name, tensor in state.items() if not name.startswith(unused)}, path)


class Cnn14(Panns):
    """Six blocks of two 3x3 convolutions, 64 to 2048 channels; 79.7 M parameters below the head."""

    def __init__(self, num_classes: int, sample_rate: int) -> None:
        super().__init__(num_classes, sample_rate, tap_channels=64, embedding_size=2048)
        self.conv_block1 = ConvBlock(1, 64)
        self.conv_block2 = ConvBlock(64, 128)
        self.conv_block3 = ConvBlock(128, 256)
        self.conv_block4 = ConvBlock(256, 512)
        self.conv_block5 = ConvBlock(512, 1024)
        self.conv_block6 = ConvBlock(1024, 2048)

    def layers(self) -> Layers:
        blocks = [getattr(self, f"conv_block{number}") for number in range(1, 7)]
        chain = []
        for block in blocks:
            chain.append(nn.Sequential(block.conv1, block.bn1, nn.ReLU()))
            last: list[nn.Module] = [] if block is blocks[-1] else [nn.AvgPool2d(2)]
            chain.append(nn.Sequential(block.conv2, block.bn2, nn.ReLU(), *last))
        return Layers(chain, tap=2)

    def stem(self, log_mel: Tensor) -> Tensor:
        return F.avg_pool2d(self.conv_block1(log_mel), 2)

    def trunk(self, tap: Tensor) -> Tensor:
        features = self.map_dropout(tap)
        for block in (self.conv_block2, self.conv_block3, self.conv_block4, self.conv_block5):
            features = self.map_dropout(F.avg_pool2d(block(features), 2))
        return self.map_dropout(self.conv_block6(features))


class ResNet38(Panns):
    """16 residual blocks in four stages between two convolution blocks; 72.7 M parameters below the head."""

    def __init__(self, num_classes: int, sample_rate: int) -> None:
        super().__init__(num_classes, sample_rate, tap_channels=64, embedding_size=2048)
        self.conv_block1 = ConvBlock(1, 64)
        self.resnet = nn.Sequential()
        channels = 64
        for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), start=1):
            first = ResidualBlock(channels, width, pool=stage > 1)
            rest = (ResidualBlock(width, width, pool=False) for _ in range(blocks - 1))
            self.resnet.add_module(f"layer{stage}", nn.Sequential(first, *rest))
            channels = width
        self.conv_block_after1 = ConvBlock(512, 2048)

    def stem(self, log_mel: Tensor) -> Tensor:
        return F.avg_pool2d(self.conv_block1(log_mel), 2)

    def trunk(self, tap: Tensor) -> Tensor:
        features = self.resnet(self.map_dropout(tap))
        features = self.map_dropout(F.avg_pool2d(features, 2))
        return self.map_dropout(self.conv_block_after1(features))


class MobileNetV1(Panns):
    """A convolution and 13 depthwise-separable ones, 32 to 1024 channels; 4.3 M parameters below the head."""

    def __init__(self, num_classes: int, sample_rate: int) -> None:
        super().__init__(num_classes, sample_rate, tap_channels=32, embedding_size=1024)
        separable = [(32, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2)]
        separable += [(512, 512, 1)] * 5 + [(512, 1024, 2), (1024, 1024, 1)]
        first = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.AvgPool2d(2), nn.BatchNorm2d(32), nn.ReLU()
        )
        self.features = nn.Sequential(first, *(_separable(*shape) for shape in separable))

    def layers(self) -> Layers:
        first, *blocks = (list(block.children()) for block in self.features)
        halves = [nn.Sequential(*half) for block in blocks for half in (block[:4], block[4:])]
        return Layers([nn.Sequential(*first), *halves], tap=1)

    def stem(self, log_mel: Tensor) -> Tensor:
        return self.features[0](log_mel)

    def trunk(self, tap: Tensor) -> Tensor:
        return self.features[1:](tap)


class ConvBlock(nn.Module):
    """Twice: 3x3 convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(features))))))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; where the size halves, both sides average-pool before convolving."""

    def __init__(self, inputs: int, outputs: int, pool: bool) -> None:
        super().__init__()
        self.pool = pool
        self.dropout = nn.Dropout(0.1)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        # The shortcut's pooling takes place 0, as in the published names (downsample.1.weight, downsample.2.weight).
        self.downsample = (
            nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
            if pool
            else nn.Identity()
        )

    def forward(self, features: Tensor) -> Tensor:
        residual = F.avg_pool2d(features, 2) if self.pool else features
        residual = self.dropout(F.relu(self.bn1(self.conv1(residual))))
        return F.relu(self.bn2(self.conv2(residual)) + self.downsample(features))


def _separable(inputs: int, outputs: int, pool: int) -> nn.Sequential:
    """A depthwise 3x3 and a 1x1 convolution; average pooling, where there is any, sits between convolution and norm."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False),
        nn.AvgPool2d(pool),
        nn.BatchNorm2d(inputs),
        nn.ReLU(),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def _nearly_equal(filters: Tensor, others: Tensor) -> bool:
    """Whether two filter banks are the same but for rounding (of another library, or to half precision)."""
    return filters.shape == others.shape and torch.allclose(filters.float(), others, atol=1e-3 * float(others.max()))
