"""libsndfile, made to read on where it stands: for codecs that cannot seek, and streams of unknown length."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from edgekd.audio.hush import hushed
from edgekd.audio.parts import Part, PartFile
from edgekd.errors import InputError

BLOCK = 1 << 18  # samples of all channels decoded at a time: bounds the memory of a thread


class _Sequential(soundfile.SoundFile):
    """`soundfile` seeks after every read in a file that can seek, which some codecs cannot do at their end."""

    def seekable(self) -> bool:
        return False


class Stream:
    """A part of the file `path`, as libsndfile decodes it: `frames` samples of each of `channels`, at `rate` Hz.

    Raises `InputError` for what libsndfile does not open.
    """

    def __init__(self, path: Path, part: Part) -> None:
        self._path, self._part = path, part
        self._open()
        self.rate, self.channels = self._file.samplerate, self._file.channels
        self.subtype, self.format = self._file.subtype, self._file.format
        self.frames = self._trimmed(self._file.frames if part.frames is None else part.frames)

    def _trimmed(self, frames: int) -> int:
        most = self._part.most
        if most is None or not 0 < frames - most < self._part.block:
            return frames
        # Some programs divide the count by the number of channels, which is another length altogether.
        divided = self.channels > 1 and abs(frames - most * self.channels) < self.channels
        return frames if divided else most

    def _open(self) -> None:
        self._source = PartFile(self._path, self._part) if self._part.pieces else None
        try:
            with self._hush():
                self._file = _Sequential(os.fsencode(self._path) if self._source is None else self._source)
        except soundfile.LibsndfileError as failure:
            if self._source is not None:
                self._source.close()
            reason = failure.error_string.removeprefix("Error : ").rstrip(".")
            raise InputError(f"{self._path}: not an audio file that can be read ({reason}).") from None
        self._position = 0

    def _hush(self) -> AbstractContextManager[None]:
        return hushed() if self._part.loud else nullcontext()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with self._hush():
            self._file.close()
        if self._source is not None:
            self._source.close()

    def read(self, start: int, length: int) -> NDArray[np.float32]:
        """`(length, channels)` from sample `start`, fewer where the stream ends. Raises `InputError` where decoding
        fails."""
        try:
            with self._hush():
                self._go_to(start)
                samples = self._file.read(length, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as failure:
            reason = failure.error_string.removeprefix("Error : ").rstrip(".")
            raise InputError(f"{self._path}: damaged or truncated: decoding fails ({reason}). Copy it again.") from None
        self._position += len(samples)
        return samples

    def _go_to(self, start: int) -> None:
        if start == self._position:
            return
        try:
            self._position = self._file.seek(start)
        except soundfile.LibsndfileError:  # decode up to there instead
            if start < self._position or self._position < 0:
                self.close()
                self._open()
            while self._position < start:
                skipped = self._file.read(min(BLOCK // self.channels + 1, start - self._position), dtype="float32")
                if not len(skipped):
                    return
                self._position += len(skipped)

    def count(self) -> int:
        """How many samples of a channel can be decoded, from where it stands to the end."""
        begin = self._position
        try:
            while len(self.read(self._position, BLOCK // self.channels + 1)):
                pass
        except InputError:
            with suppress(soundfile.LibsndfileError):
                self._position = self._file.tell()  # what came before the failure counts
        return self._position - begin
