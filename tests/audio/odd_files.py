"""Small odd recordings of one known signal, each with what is right: these samples, or a refusal with these words."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

RATE, SAMPLES = 8_000, 8_000
Signal = NDArray[np.float64]


def signal() -> Signal:
    """One second of a wavering tone in noise, unlike itself at any shift."""
    time = np.arange(SAMPLES) / RATE
    wavering = 0.2 * np.sin(2 * np.pi * 310 * time) * (1 + 0.5 * np.sin(2 * np.pi * 7 * time))
    return wavering + 0.05 * np.random.default_rng(0).standard_normal(SAMPLES)


X = signal()
PCM16 = np.round(X * 32767).astype("<i2").tobytes()
HEADER = 44  # bytes before the samples of a plain file
CONVERT, NO_CODEC = "not a WAV file; convert it first", "is not supported; convert it first"


@dataclass(frozen=True)
class Odd:
    """`words` are those of a refusal by both decoders; `device` those of one by the runner alone. `samples` is what the
    file holds, within `within`; None where only its `frames` are known."""

    name: str
    write: Callable[[Path], object]
    samples: Signal | None = field(default_factory=lambda: X)
    within: float = 1e-4
    frames: int | None = None
    words: tuple[str, ...] = ()
    device: str = ""
    rate: int = RATE


def layout(
    encoding: int = 1, channels: int = 1, rate: int = RATE, bits: int = 16, align: int | None = None, extra: bytes = b""
) -> bytes:
    """The format chunk."""
    align = channels * -(-bits // 8) if align is None else align
    head = struct.pack("<HHIIHH", encoding, channels, rate, rate * align & 0xFFFFFFFF, align, bits)
    return chunk(b"fmt ", head + extra)


def chunk(name: bytes, body: bytes, size: int | None = None, pad: bool = True) -> bytes:
    return name + struct.pack("<I", len(body) if size is None else size) + body + b"\0" * (pad and len(body) % 2)


def riff(*chunks: bytes, size: int | None = None, magic: bytes = b"RIFF") -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return magic + struct.pack("<I", len(body) if size is None else size) + body


def wav(size: int, samples: bytes = PCM16, after: bytes = b"") -> bytes:
    """A 16-bit file with any size of samples in its header."""
    return riff(layout(), chunk(b"data", samples, size=size), after)


def extensible(bits: int, valid: int, align: int | None = None, channels: int = 1) -> bytes:
    guid = bytes.fromhex("0100000000001000800000aa00389b71")
    return layout(0xFFFE, channels, bits=bits, align=align, extra=struct.pack("<HHI", 22, valid, 4) + guid)


def plain(name: str, content: bytes, **right: object) -> Odd:
    return Odd(name, lambda path: path.write_bytes(content), **right)  # type: ignore[arg-type]


def library(name: str, kind: str, subtype: str, within: float = 1e-4, **right: object) -> Odd:
    """As libsndfile writes it."""
    write = lambda path: soundfile.write(path, X, RATE, format=kind, subtype=subtype)  # noqa: E731
    return Odd(name, write, within=within, **right)  # type: ignore[arg-type]


def changed(name: str, kind: str, subtype: str, change: Callable[[bytes], bytes], **right: object) -> Odd:
    """What libsndfile writes, changed."""

    def write(path: Path) -> None:
        soundfile.write(path, X, RATE, format=kind, subtype=subtype)
        path.write_bytes(change(path.read_bytes()))

    return Odd(name, write, **right)  # type: ignore[arg-type]


def all_odd_files() -> list[Odd]:
    return [*sizes(), *chunks(), *encodings(), *bounds(), *flac(), *mp3(), *ogg(), *others()]


LENGTH = len(PCM16)
LIST = chunk(b"LIST", b"INFOISFT\x04\0\0\0rec\0")


def sizes() -> Iterator[Odd]:
    unknown = (0, 44, 0xFFFFFFFF, 0xFFFFFFFF - 36, 0x7FFFFFFF, 0x7FFFF000, 0x80000000)
    for size in (*unknown, LENGTH + HEADER, LENGTH + HEADER - 8):
        yield plain(f"size-{size:x}.wav", wav(size))
    for size in (0, 44, 0xFFFFFFFF):
        yield plain(f"size-{size:x}-then-list.wav", wav(size, after=LIST))
    yield plain("riff-size-0.wav", riff(layout(), chunk(b"data", PCM16), size=0))
    yield plain("zeros-behind.wav", wav(LENGTH, after=bytes(37)))
    yield plain("tag-behind.wav", wav(LENGTH, after=b"TAG" + b"a" * 125))
    yield plain("half-a-sample-more.wav", wav(LENGTH, after=b"\1"))
    yield plain("half-a-sample-less.wav", wav(LENGTH - 1, PCM16[:-1]), samples=X[:-1])
    for size in (2 * LENGTH, 3_600 * RATE * 2):
        yield plain(f"cut-of-{size}.wav", wav(size), words=("truncated", str(size), str(LENGTH)))
    three_quarters = 3 * LENGTH // 4
    yield plain("too-little.wav", wav(three_quarters), words=("damaged", str(three_quarters), str(LENGTH)))
    yield plain("nothing.wav", wav(0, b""), words=("holds no samples",))
    yield plain("header-cut.wav", wav(LENGTH)[:30], words=("truncated: the header is there",))
    yield plain("empty.wav", b"", words=("the file is empty",))
    for magic in (b"RF64", b"BW64"):
        ds64 = chunk(b"ds64", struct.pack("<QQQI", 4 + 36 + 28 + 8 + LENGTH, LENGTH, SAMPLES, 0))
        whole = riff(ds64, layout(), chunk(b"data", PCM16, size=0xFFFFFFFF), magic=magic, size=0xFFFFFFFF)
        yield plain(f"{magic.decode().lower()}.wav", whole)
        none = riff(chunk(b"ds64", bytes(28)), layout(), chunk(b"data", PCM16, size=0xFFFFFFFF), magic=magic)
        yield plain(f"{magic.decode().lower()}-never-ended.wav", none)
        cut = ("truncated", str(LENGTH), str(LENGTH // 2))
        yield plain(f"{magic.decode().lower()}-cut.wav", whole[: -LENGTH // 2], words=cut)


def chunks() -> Iterator[Odd]:
    data = chunk(b"data", PCM16)
    for name, body in (("LIST", b"INFOICMTx" + bytes(4)), ("guan", b"GUANO|Version:1.0\nTE:1\n")):
        for pad in (True, False):
            before = chunk(name.encode(), body, pad=pad)
            yield plain(f"{name}-{'padded' if pad else 'unpadded'}.wav", riff(layout(), before, data))
    for name, size in (("JUNK", 28), ("bext", 602), ("iXML", 333), ("harp", 60)):
        yield plain(f"{name}-first.wav", riff(chunk(name.encode(), b"\1" * size), layout(), data))
    yield plain("list-of-zeros.wav", riff(layout(), chunk(b"LIST", bytes(512)), data))
    yield plain("samples-first.wav", riff(data, layout()))
    halves = (chunk(b"data", PCM16[: LENGTH // 2]), LIST, chunk(b"data", PCM16[LENGTH // 2 :]))
    yield plain("two-pieces.wav", riff(layout(), *halves))
    yield plain("an-empty-piece.wav", riff(layout(), chunk(b"data", b""), data))
    yield plain("odd-piece.wav", riff(layout(bits=8), chunk(b"data", _u8()[:-1]), LIST), samples=X[:-1], within=0.01)
    yield plain("no-format.wav", riff(data), words=("damaged WAV: no format chunk",))
    yield plain("nothing-but-zeros.wav", b"RIFF" + bytes(4) + b"WAVE" + bytes(5000), words=("damaged WAV: no chunk",))


def _u8() -> bytes:
    return (np.round(X * 127) + 128).astype("u1").tobytes()


def _i24() -> NDArray[np.int32]:
    return np.round(X * (2**23 - 1)).astype("<i4")


def encodings() -> Iterator[Odd]:
    i24 = _i24()
    three = i24.view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    upper, lower = (i24 << 8).tobytes(), i24.tobytes()
    without_sign = (i24 & 0xFFFFFF).tobytes()
    i32 = np.round(X * (2**31 - 1)).astype("<i4").tobytes()
    files = {
        "u8": (layout(bits=8), _u8()),
        "s24": (layout(bits=24), three),
        "s24-in-4-upper": (layout(bits=24, align=4), upper),
        "s24-in-4-lower": (layout(bits=24, align=4), lower),
        "s24-in-4-lower-without-sign": (layout(bits=24, align=4), without_sign),
        "ext-s24-in-4-upper": (extensible(24, 24, 4), upper),
        "ext-s24-in-4-lower": (extensible(24, 24, 4), lower),
        "ext-s24-of-32": (extensible(32, 24), i32),
        "ext-s16": (extensible(16, 16), PCM16),
        "s32": (layout(bits=32), i32),
        "s12-in-2": (layout(bits=12, align=2), PCM16),
        "s20-in-3": (layout(bits=20, align=3), three),
        "f32": (layout(3, bits=32), X.astype("<f4").tobytes()),
        "f64": (layout(3, bits=64), X.astype("<f8").tobytes()),
    }
    for name, (head, samples) in files.items():
        yield plain(f"{name}.wav", riff(head, chunk(b"data", samples)), within=0.01 if name == "u8" else 1e-4)
    four = np.stack([np.frombuffer(PCM16, "<i2")] * 4, axis=1).tobytes()
    yield plain("4-channels.wav", riff(extensible(16, 16, channels=4), chunk(b"data", four)))
    yield Odd("big-endian.wav", lambda path: soundfile.write(path, X, RATE, endian="BIG", subtype="PCM_16"))
    loud = np.where(np.arange(SAMPLES) == 99, np.nan, X).astype("<f4").tobytes()
    yield plain("nan.wav", riff(layout(3, bits=32), chunk(b"data", loud)), words=("NaN or infinite",))
    yield library("ulaw.wav", "WAV", "ULAW", 0.02)
    yield library("alaw.wav", "WAV", "ALAW", 0.02)
    # Their surplus is told only by a fact chunk that has the count; libsndfile's has the blocks of its own.
    for name, (subtype, within) in {
        "ima": ("IMA_ADPCM", 0.3),
        "ms": ("MS_ADPCM", 0.3),
        "gsm": ("GSM610", 0.4),
        "g721": ("G721_32", 0.3),
        "nms": ("NMS_ADPCM_32", 0.3),
    }.items():
        yield changed(f"{name}.wav", "WAV", subtype, _with_count, within=within, device=NO_CODEC)
        unsized = lambda content: _with_size(_with_count(content), 0)  # noqa: E731
        yield changed(f"{name}-size-0.wav", "WAV", subtype, unsized, within=within, device=NO_CODEC)
        cut = lambda content: content[: len(content) // 2]  # noqa: E731
        yield changed(f"{name}-cut.wav", "WAV", subtype, cut, words=("truncated: the header promises",))


def _with_count(content: bytes) -> bytes:
    place = content.index(b"fact") + 8
    return content[:place] + struct.pack("<I", SAMPLES) + content[place + 4 :]


def _with_size(content: bytes, size: int) -> bytes:
    place = content.index(b"data") + 4
    return content[:place] + struct.pack("<I", size) + content[place + 4 :]


def bounds() -> Iterator[Odd]:
    for rate in (0, 1, 99, 768_001, 2_147_483_647, 4_000_000_000):
        words = (f"1 channels at {rate} Hz", "100 to 768000 Hz")
        yield plain(f"rate-{rate}.wav", riff(layout(rate=rate), chunk(b"data", PCM16)), words=words)
    for rate in (100, 250, 44_101, 384_001, 768_000):
        yield plain(f"rate-{rate}.wav", riff(layout(rate=rate), chunk(b"data", PCM16)), rate=rate)
    for channels in (0, 1025, 65_535):
        head = layout(channels=channels, align=2 * channels & 0xFFFF)
        yield plain(f"channels-{channels}.wav", riff(head, chunk(b"data", PCM16)), words=(f"{channels} channels",))
    au = struct.pack(">4sIIIII", b".snd", 24, LENGTH, 3, 2_000_000_000, 1) + PCM16
    yield plain("rate-2000000000.au", au, words=("1 channels at 2000000000 Hz",), device=CONVERT)


def flac() -> Iterator[Odd]:
    def with_length(length: int) -> Callable[[bytes], bytes]:
        return lambda content: (
            (content[:21] + bytes([content[21] & 0xF0 | length >> 32]) + struct.pack(">I", length & 0xFFFFFFFF))
            + content[26:]
        )

    for length in (0, SAMPLES // 2, 2 * SAMPLES, (1 << 36) - 1):
        yield changed(f"length-{length}.flac", "FLAC", "PCM_16", with_length(length), device=CONVERT)
    tag = b"ID3\x03\0\0" + bytes([0, 0, 1, 0]) + bytes(128)
    yield changed("tag-first.flac", "FLAC", "PCM_16", lambda content: tag + content, device=CONVERT)
    unsized = with_length(0)
    yield changed("tag-first-length-0.flac", "FLAC", "PCM_16", lambda c: tag + unsized(c), device=CONVERT)
    yield changed("tag-behind.flac", "FLAC", "PCM_16", lambda c: c + b"TAG" + b"a" * 125, device=CONVERT)
    yield changed("junk-behind.flac", "FLAC", "PCM_16", lambda c: c + b"\xff\xf8" * 99, device=CONVERT)
    cut = lambda content: content[: len(content) * 2 // 3]  # noqa: E731
    half = ("truncated: 4096 samples of the 8000",)
    yield changed("cut.flac", "FLAC", "PCM_16", cut, words=half, device=CONVERT)
    cut_unsized = lambda content: unsized(cut(content))  # noqa: E731
    yield changed("cut-length-0.flac", "FLAC", "PCM_16", cut_unsized, samples=X[:4096], device=CONVERT)


# Behind what libmpg123 cuts away where it knows the encoder's delay, and within what its coding loses.
MP3_DELAY, MP3_WITHIN = 1105, 0.2


def mp3() -> Iterator[Odd]:
    rate = 44_100

    def odd(name: str, change: Callable[[bytes], bytes], **right: object) -> Odd:
        def write(path: Path) -> None:
            mode, quality = ("VARIABLE", 0.3) if "vbr" in name else ("CONSTANT", 0.5)
            with soundfile.SoundFile(
                path, "w", rate, 1, format="MP3", bitrate_mode=mode, compression_level=quality
            ) as file:
                file.write(X)
            path.write_bytes(change(path.read_bytes()))

        right = {"within": MP3_WITHIN, "device": CONVERT, "rate": rate, **right}
        return Odd(name, write, **right)  # type: ignore[arg-type]

    yield odd("tag-first.mp3", lambda content: b"ID3\x03\0\0" + bytes([0, 0, 32, 0]) + bytes(4096) + content)
    yield odd("tag-behind.mp3", lambda content: content + b"TAG" + b"a" * 125)
    ape = b"APETAGEX" + struct.pack("<IIII", 2000, 32, 0, 0) + bytes(8)
    yield odd("ape-behind.mp3", lambda content: content + bytes(1968) + ape)
    yield odd("junk-first.mp3", lambda content: bytes(300) + content)
    yield odd("junk-behind.mp3", lambda content: content + b"\xff\xfb\xff" * 300)
    frames = -(-(SAMPLES + MP3_DELAY) // 1152)
    whole = {"samples": None, "frames": frames * 1152}
    for kind in ("cbr", "vbr"):
        yield odd(f"{kind}-no-xing.mp3", without_xing, **whole)
        twice = np.concatenate([X, X])
        yield odd(f"{kind}-twice.mp3", lambda content: content + content, samples=twice)
        yield odd(f"{kind}-cut.mp3", lambda content: content[:-60], words=("truncated", str((frames - 1) * 1152)))
        fewer = {"samples": None, "frames": (frames - 1) * 1152}
        yield odd(f"{kind}-no-xing-cut.mp3", lambda content: without_xing(content)[:-60], **fewer)
    yield odd("free.mp3", lambda content: _free(without_xing(content)), **whole)


def _frame_bytes(head: bytes) -> int:
    rates = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
    return 144_000 * rates[head[2] >> 4] // 44_100 + (head[2] >> 1 & 1)


def without_xing(content: bytes) -> bytes:
    return content[_frame_bytes(content) :]


def _free(content: bytes) -> bytes:
    """The same frames, whose headers do not say a bit rate."""
    changed, place = bytearray(content), 0
    while place < len(content):
        size = _frame_bytes(content[place : place + 4])
        changed[place + 2] &= 0x0F
        place += size
    return bytes(changed)


def ogg() -> Iterator[Odd]:
    def odd(name: str, change: Callable[[bytes], bytes], **right: object) -> Odd:
        right = {"within": 0.15, "device": CONVERT, **right}
        return changed(name, "OGG", "OPUS" if "opus" in name else "VORBIS", change, **right)

    for kind in ("ogg", "opus"):
        yield odd(f"no-last-flag.{kind}", _without_last_flag)
        yield odd(f"twice.{kind}", lambda content: content + content, samples=np.concatenate([X, X]))
        yield odd(f"cut.{kind}", lambda content: content[:-40], words=("truncated", "bytes of its last page"))


def _without_last_flag(content: bytes) -> bytes:
    place = content.rindex(b"OggS\0")
    page = bytearray(content[place:])
    page[5] &= ~4
    page[22:26] = bytes(4)
    page[22:26] = struct.pack("<I", _ogg_crc(page))
    return content[:place] + bytes(page)


def _ogg_crc(page: bytes) -> int:
    value = 0
    for byte in page:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value & 0x80000000 else 0)) & 0xFFFFFFFF
    return value


def others() -> Iterator[Odd]:
    marks = {  # the last bytes before the size of the samples, its format, and the sizes that no samples have
        "AIFF": (b"SSND", ">I", (0, 8)),
        "AU": (struct.pack(">4sI", b".snd", 24), ">I", (0, 0xFFFFFFFF)),
        "W64": (b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a", "<Q", (0, 24)),
        "CAF": (b"data", ">q", (0, -1)),
    }
    for kind, (mark, number, unknown) in marks.items():
        ending = kind.lower()
        yield library(f"whole.{ending}", kind, "PCM_16", device=CONVERT)
        cut = lambda content: content[: -LENGTH // 2]  # noqa: E731
        yield changed(f"cut.{ending}", kind, "PCM_16", cut, words=("truncated", str(LENGTH // 2)), device=CONVERT)
        for size in (*unknown, 4_000, 12_000):
            words = ("damaged", str(LENGTH)) if size == 12_000 else ()

            def resized(content: bytes, mark: bytes = mark, number: str = number, size: int = size) -> bytes:
                place = content.index(mark) + len(mark)
                return content[:place] + struct.pack(number, size) + content[place + struct.calcsize(number) :]

            yield changed(f"size-{size}.{ending}", kind, "PCM_16", resized, device=CONVERT, words=words)
    yield library("whole.sph", "NIST", "PCM_16", device=CONVERT)
    half = ("truncated", str(LENGTH // 2), str(LENGTH))
    yield changed("cut.sph", "NIST", "PCM_16", lambda c: c[: -LENGTH // 2], words=half, device=CONVERT)
    yield library("gsm.aiff", "AIFF", "GSM610", 0.4, device=CONVERT)
    yield library("g721.au", "AU", "G721_32", 0.1, device=CONVERT, samples=None)
    yield library("g723.au", "AU", "G723_40", 0.1, device=CONVERT, samples=None)
    yield library("alac.caf", "CAF", "ALAC_16", device=CONVERT)
    yield plain("page.wav", b"<!DOCTYPE html><html>404</html>", words=("not a",))
    yield plain("pointer.wav", b"version https://git-lfs.github.com/spec/v1\n", words=("not a",))
