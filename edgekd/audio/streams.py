"""The parts of a file, found once and read as one recording."""

from __future__ import annotations

import os
import struct
import threading
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgekd.audio import flac, mpeg, ogg, sizes
from edgekd.audio.parts import Part, Parts
from edgekd.audio.sndfile import Stream
from edgekd.device.runner.wav_header import WavHeader
from edgekd.errors import InputError

_MPEG_SUFFIXES = frozenset({".mp3", ".mp2", ".mp1", ".mpga"})
_MPEG_IN_WAV = (0x50, 0x55)
_ADPCM = (0x02, 0x11)  # in WAV: they say how many samples a block has
_BLOCKS = {0x31: 640, 0x40: 240}  # GSM 6.10, of which two blocks may be filled up; G.721
_UNKNOWN: Parts = (Part(loud=True),)  # libsndfile may find that it is MPEG audio
_REMEMBERED = 1 << 16  # files
_MOST_A_BYTE = 8192  # samples that a byte can stand for: FLAC packs 65 535 equal ones into a dozen


class _Layout(NamedTuple):
    """The parts of a file, with the number of samples of each."""

    parts: Parts
    frames: tuple[int, ...]
    rate: int
    channels: int
    subtype: str


_layouts: dict[tuple[str, int, int], _Layout] = {}
_lock = threading.Lock()


class Streams:
    """An open file that libsndfile decodes: `frames` samples of each of `channels`, at `rate` Hz.

    What its parts are is found once, and remembered while its size and time of change are what they were. `header` is
    that of a WAV file. Raises `InputError`.
    """

    def __init__(self, path: Path, file: BinaryIO, header: WavHeader | None = None) -> None:
        self._path, self._number = path, -1
        self._stream: Stream | None = None
        status = os.fstat(file.fileno())
        key = (str(path), status.st_size, status.st_mtime_ns)
        layout = _layouts.get(key)
        if layout is None:
            layout = self._found(file, status.st_size, header)
            with _lock:
                if len(_layouts) >= _REMEMBERED:
                    _layouts.clear()
                _layouts[key] = layout
        self.rate, self.channels, self.subtype = layout.rate, layout.channels, layout.subtype
        self._parts = layout.parts
        self._begins = [0, *accumulate(layout.frames)]
        self.frames = self._begins[-1]

    def _found(self, file: BinaryIO, size: int, header: WavHeader | None) -> _Layout:
        if header is None:
            self._parts = _parts(self._path, file, size)
        else:
            self._parts = _parts_of_codec(self._path, file, header)
        first = self._part(0)
        if self._parts is _UNKNOWN and first.format == "MP3":
            self._parts = mpeg.parts(self._path, file) or _UNKNOWN
            self.close()
            first = self._part(0)
        rate, channels, subtype = first.rate, first.channels, first.subtype
        frames: list[int] = []
        for number in range(len(self._parts)):
            stream = self._part(number)
            if (stream.rate, stream.channels) != (rate, channels):
                raise InputError(
                    f"{self._path}: holds {rate} Hz with {channels} channels and, from sample {sum(frames)} on, "
                    f"{stream.rate} Hz with {stream.channels}. Store them in two files."
                )
            if stream.frames > _MOST_A_BYTE * size:  # it cannot know
                stream.frames = stream.count()
            frames.append(stream.frames)
        return _Layout(self._parts, tuple(frames), rate, channels, subtype)

    def _part(self, number: int) -> Stream:
        if self._stream is None or number != self._number:
            self.close()
            self._stream, self._number = Stream(self._path, self._parts[number]), number
        return self._stream

    def read(self, start: int, length: int) -> NDArray[np.float32]:
        """`(length, channels)` float32 from sample `start`; fewer where decoding ends."""
        pieces = [np.zeros((0, self.channels), np.float32)]
        while length > 0 and start < self.frames:
            number = bisect_right(self._begins, start) - 1
            wanted = min(length, self._begins[number + 1] - start)
            try:
                pieces.append(self._part(number).read(start - self._begins[number], wanted))
            except InputError as failure:
                raise self._damaged(number) or failure from None
            if len(pieces[-1]) < wanted:
                break
            start, length = start + wanted, length - wanted
        return pieces[1] if len(pieces) == 2 else np.concatenate(pieces)

    def _damaged(self, number: int) -> InputError | None:
        """The error with both numbers for a part that cannot be decoded to its end."""
        self.close()
        with Stream(self._path, self._parts[number]) as stream:
            held = self._begins[number] + stream.count()
        if held >= self._begins[number + 1]:
            return None
        return InputError(
            f"{self._path}: damaged or truncated: {held} samples of the {self.frames} its header promises can be "
            "decoded. Copy it again."
        )

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def _parts(path: Path, file: BinaryIO, size: int) -> Parts:
    file.seek(0)
    head = file.read(12)
    if head[:4] == b"OggS":
        return ogg.parts(path, file, size)
    begin = mpeg.after_id3(file, size)
    file.seek(begin)
    magic = file.read(4)
    if magic == b"fLaC":
        return flac.parts(path, file, begin, size)
    if (found := sizes.parts(path, file, size)) is not None:
        return found
    if begin or path.suffix.lower() in _MPEG_SUFFIXES or (head[0] == 0xFF and len(head) > 1 and head[1] & 0xE0 == 0xE0):
        return mpeg.parts(path, file) or _UNKNOWN
    return _UNKNOWN


def _parts_of_codec(path: Path, file: BinaryIO, header: WavHeader) -> Parts:
    """Those of a WAV file: the samples under a header of ours, which says what there is."""
    if header.encoding in _MPEG_IN_WAV:
        begin, length = header.extents[0]
        if (found := mpeg.parts(path, file, begin, begin + length)) is not None:
            return found
    number = struct.Struct(f"{header.order}I")
    chunks = b"WAVEfmt " + number.pack(len(header.layout)) + header.layout + bytes(len(header.layout) % 2)
    if header.fact is not None:
        chunks += b"fact" + number.pack(4) + number.pack(min(header.fact, 0xFFFFFFFF))
    length = min(header.data_bytes, 0xFFFFFFFF - 1024)
    chunks += b"data" + number.pack(length)
    magic = b"RIFX" if header.order == ">" else b"RIFF"
    prefix = magic + number.pack(len(chunks) + length) + chunks
    return (Part((prefix, *header.extents), most=header.fact, block=_block(header)),)


def _block(header: WavHeader) -> int:
    """The samples of a channel that fill up the last block of a codec, or more."""
    block = _BLOCKS.get(header.encoding, 160)
    if header.encoding in _ADPCM and len(header.layout) >= 20:
        (block,) = struct.unpack_from(header.order + "H", header.layout, 18)
    return block
