"""Sound on standard input: bare PCM samples, or a WAV file whose length nobody knows yet."""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.audio.hearing import Hearing
from edgekd.device.runner import RunnerError
from edgekd.device.runner.stream import STREAM_FORMATS
from edgekd.device.runner.wav import DECODERS, decoder, mix_down
from edgekd.device.runner.wav_header import FLOAT, WavHeader, interpret
from edgekd.errors import InputError, UsageError

NAME = "standard input"
_ENDING: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
_BLOCK = 1 << 18  # bytes at a time, at most
_MOST_HEADER = 1 << 20  # bytes before the samples of a WAV file
_UNKNOWN = 0x7FFF0000  # a WAV file that is longer was begun by a program that could not know its length
_ORDERS = {b"RIFF": "<", b"RF64": "<", b"BW64": "<", b"RIFX": ">"}
_PACKED = {b"fLaC": "FLAC", b"OggS": "Ogg", b"FORM": "AIFF", b"ID3\x03": "mp3", b"ID3\x04": "mp3", b"caff": "CAF"}


@dataclass(frozen=True)
class Pcm:
    """Bare samples, as the runner's `stream` takes them: `rate` in Hz, `format` of `STREAM_FORMATS`, interleaved."""

    rate: int
    format: str = "s16"
    channels: int = 1


@dataclass
class PipedSound:
    """The samples that come from a file descriptor, until they end or a signal does: Ctrl-C, or SIGTERM.

    `rate` is known, and what is no sound refused, when it is made. `ended` says in words how the input ended otherwise
    than it should, `cut` that samples are missing, `interrupted` the number of the signal that ended it, else 0.
    """

    descriptor: int
    hearing: Hearing
    pcm: Pcm
    given: bool = False  # somebody says that it is bare PCM
    rate: int = field(init=False)
    ended: str | None = field(init=False, default=None)
    cut: bool = field(init=False, default=False)
    interrupted: int = field(init=False, default=0)
    _held: bytes = field(init=False, default=b"")
    _reading: bool = field(init=False, default=False)
    _left: int | None = field(init=False, default=None)  # bytes of samples to come, where a header says so
    _convert: Callable[[bytes], Any] = field(init=False)

    def __post_init__(self) -> None:
        with suppress(OSError):
            os.set_blocking(self.descriptor, True)  # who started this program may have left it otherwise
        head = self._exactly(12)
        if head[:4] in _PACKED:
            raise InputError(
                f"{NAME}: is {_PACKED[head[:4]]}, and bare samples or WAV are read. Next: ffmpeg -i - -f wav - | ..."
            )
        if head[:4] in _ORDERS and head[8:] == b"WAVE":
            if self.given:
                raise UsageError(f"{NAME}: is a WAV file, which says itself what --rate, --pcm and --channels do.")
            self._open_wav(head)
        else:
            encoding = STREAM_FORMATS[self.pcm.format]
            self.rate, self._channels, self._floats = self.pcm.rate, self.pcm.channels, encoding[0] == FLOAT
            self._frame, self._convert = self.pcm.channels * encoding[1] // 8, DECODERS[encoding]
            self._held = head + self._held
        channel = self.hearing.channel
        if channel != "mean" and channel >= self._channels:
            raise InputError(
                f"{NAME}: has {self._channels} channel(s), counted from 0, and the model hears number {channel}."
            )

    def pieces(self) -> Iterator[NDArray[np.float32]]:
        """What is heard, in pieces `(samples,)`, as it comes. Raises `InputError` where it cannot be read."""
        scale = np.float32(self.hearing.full_scale if self._floats else 1.0)
        before = {number: signal.signal(number, self._interrupt) for number in _ENDING}
        try:
            while data := self._frames():
                with np.errstate(over="ignore", invalid="ignore"):
                    heard = mix_down(self._convert(data).reshape(-1, self._channels), self.hearing.channel)
                    yield (heard / scale).astype(np.float32, copy=False)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if self._left and not self.interrupted:
            self.cut = True
            self.ended = f"ended {self._left / self._frame / self.rate:.3f} s before its header says"
        elif self._left is None and self._held:
            self.ended = f"ended inside a sample: {len(self._held)} of {self._frame} bytes were left over"

    def _frames(self) -> bytes:
        """The next samples, in whole frames; empty at the end."""
        if self._left == 0:  # chunks may follow
            return b""
        data = self._held
        while len(data) < self._frame and not self.interrupted and (more := self._read()):
            data += more
        if self._left is not None:
            data = data[: self._left]
        whole = len(data) // self._frame * self._frame
        self._held = data[whole:]
        if self._left is not None:
            self._left -= whole
        return data[:whole]

    def _read(self) -> bytes:
        try:
            self._reading = True
            return b"" if self.interrupted else os.read(self.descriptor, _BLOCK)
        except KeyboardInterrupt:
            return b""
        except OSError as failure:
            raise InputError(f"{NAME}: cannot be read: {failure.strerror}.") from None
        finally:
            self._reading = False

    def _interrupt(self, number: int, _: FrameType | None) -> None:
        self.interrupted = number
        for each, handler in _ENDING.items():  # a second one does not wait
            signal.signal(each, handler)
        if self._reading:
            raise KeyboardInterrupt

    def _exactly(self, count: int) -> bytes:
        """So many bytes of what has not been taken, fewer at the end."""
        while len(self._held) < count and (more := self._read()):
            self._held += more
        taken, self._held = self._held[:count], self._held[count:]
        return taken

    def _open_wav(self, head: bytes) -> None:
        order, layout, wide, taken = _ORDERS[head[:4]], b"", None, 0
        while True:
            name_and_size = self._exactly(8)
            if len(name_and_size) < 8 or taken > _MOST_HEADER:
                raise InputError(f"{NAME}: a WAV file whose samples do not begin.")
            name, size = name_and_size[:4], struct.unpack(order + "I", name_and_size[4:])[0]
            if name == b"data":
                break
            if size > _MOST_HEADER:
                raise InputError(f"{NAME}: a WAV file with a chunk of {size} bytes before its samples.")
            content = self._exactly(size + size % 2)
            taken += 8 + size
            layout = content if name == b"fmt " else layout
            wide = struct.unpack("<Q", content[8:16])[0] if name == b"ds64" and size >= 16 else wide
        if len(layout) < 16:
            raise InputError(f"{NAME}: a WAV file that does not say what its samples are.")
        known = size if wide is None or size != 0xFFFFFFFF else wide
        endless = size >= _UNKNOWN if wide is None else known == 0
        try:
            header: WavHeader = interpret(order, layout, [(0, 1 << 62)], None)
            self._channels, self._frame = header.channels, header.container * header.channels
            first = self._exactly(4096) if (header.container, header.bits) == (4, 24) else b""  # where do the 24 lie?
            self._held = first + self._held
            self._convert = decoder(header, lambda start, count: first[start : start + count])
        except RunnerError as failure:
            raise InputError(f"{NAME}: {failure}.") from None
        self.rate, self._floats = header.rate, header.encoding == FLOAT
        self._left = None if endless or not known else known // self._frame * self._frame
