from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from edgekd.audio.read import HeardClip, read_clip
from edgekd.config import DataConfig
from edgekd.data import clip_store
from edgekd.data.index import ClipIndex
from edgekd.data.layouts import folder
from edgekd.errors import InputError

RATE = 8_000
CONFIG = DataConfig(sample_rate=RATE, clip_seconds=0.5)
FIGURES = ("left", "silence_start", "silence_end", "silence")
RECORD = np.dtype([("peak", "<f4"), *((name, "<f4") for name in FIGURES), ("crc", "<u4")])


def make_data(root: Path, recordings: int = 6) -> ClipIndex:
    """Two classes, each recording two clips long, each a different and mostly low level."""
    for number in range(recordings):
        path = root / ("cargo", "tug")[number % 2] / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = np.random.default_rng(number).uniform(-1, 1, RATE) * 0.3**number
        soundfile.write(path, samples, RATE, subtype="FLOAT")
    return folder.load(root, CONFIG)


def count_decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every clip decoded from here on, as a list that grows."""
    decoded: list[Path] = []

    def counted(path: Path, *arguments: int, **options: object) -> HeardClip:
        decoded.append(path)
        return read_clip(path, *arguments, **options)

    monkeypatch.setattr(clip_store, "read_clip", counted)
    return decoded


@pytest.fixture
def index(tmp_path: Path) -> ClipIndex:
    return make_data(tmp_path / "data")


def clips_of(index: ClipIndex, padding: str = "repeat") -> torch.Tensor:
    """What a store must hold, read straight from the files."""
    hearing = CONFIG.model_copy(update={"padding": padding})
    clips = [
        read_clip(clip.path, clip.start, clip.length, sample_rate=RATE, samples=RATE // 2, hearing=hearing).waveform
        for clip in index
    ]
    return torch.from_numpy(np.stack(clips))


def assert_right(store: clip_store.ClipStore, index: ClipIndex) -> None:
    expected = clips_of(index)
    rounding = expected.abs().amax(dim=1, keepdim=True) / 32_767 / 2
    assert ((store.waveforms(range(len(index))) - expected).abs() <= 1.01 * rounding).all()


def test_a_store_gives_back_every_clip_quiet_ones_too(index: ClipIndex, tmp_path: Path) -> None:
    store = clip_store.open_store(index, CONFIG, folder=tmp_path / "cache")
    assert len(store) == len(index) == 12
    assert (store.sample_rate, store.samples) == (RATE, RATE // 2)
    assert_right(store, index)


def test_the_files_are_those_that_earlier_versions_read(index: ClipIndex, tmp_path: Path) -> None:
    """Another layout of the files takes another `FORMAT`."""
    store = clip_store.open_store(index, CONFIG, folder=tmp_path / "cache")
    clips = np.fromfile(store.folder / "clips.i16", "<i2").reshape(12, RATE // 2)
    records = np.fromfile(store.folder / "rows.bin", RECORD)
    np.testing.assert_array_equal(records["peak"], clips_of(index).abs().amax(dim=1).numpy())
    for record, clip in zip(records, clips, strict=True):
        assert record["crc"] == zlib.crc32(clip.tobytes(), zlib.crc32(record.tobytes()[:-4]))
    assert sorted(path.name for path in store.folder.iterdir()) == ["clips.i16", "rows.bin"]


def test_what_another_process_has_opened_is_attached_as_it_is(
    index: ClipIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEKD_CACHE_DIR", str(tmp_path / "cache"))
    with pytest.raises(InputError, match="the clip cache that another process filled cannot be read"):
        clip_store.attach_store(index, CONFIG)
    opened = clip_store.open_store(index, CONFIG)
    attached = clip_store.attach_store(index, CONFIG)
    assert attached.folder == opened.folder
    assert torch.equal(attached.waveforms(range(12)), opened.waveforms(range(12)))
    os.truncate(opened.folder / "rows.bin", 11 * RECORD.itemsize)
    with pytest.raises(InputError, match=r"cannot be read .11 records for 12 rows"):
        clip_store.attach_store(index, CONFIG)


def test_waveforms_come_in_the_order_asked_for(index: ClipIndex, tmp_path: Path) -> None:
    store = clip_store.open_store(index, CONFIG, folder=tmp_path / "cache")
    batch = store.waveforms([7, 0, 7])
    assert batch.dtype == torch.float32
    assert batch.shape == (3, RATE // 2)
    torch.testing.assert_close(batch, store.waveforms(range(12))[[7, 0, 7]], rtol=0, atol=0)


def test_a_second_opening_decodes_nothing(index: ClipIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = count_decoded(monkeypatch)
    first = clip_store.open_store(index, CONFIG, folder=tmp_path / "cache")
    assert len(decoded) == 12
    second = clip_store.open_store(index, CONFIG, folder=tmp_path / "cache")
    assert len(decoded) == 12
    assert first.folder == second.folder
    assert_right(second, index)


def test_progress_counts_every_clip_once(index: ClipIndex, tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    clip_store.open_store(
        index, CONFIG, lambda stage, done, total, **_: calls.append((stage, done, total)), tmp_path / "c"
    )
    assert [call for call in calls if call[0] == "cache clips"] == [("cache clips", n, 12) for n in range(1, 13)]


@pytest.mark.parametrize(
    "change",
    [{"sample_rate": 4_000}, {"clip_seconds": 0.25}, {"padding": "zeros"}],
    ids=lambda change: next(iter(change)),
)
def test_other_parameters_make_another_store(index: ClipIndex, tmp_path: Path, change: dict[str, object]) -> None:
    other = CONFIG.model_copy(update=change)
    stores = [clip_store.open_store(index, config, folder=tmp_path / "cache").folder for config in (CONFIG, other)]
    assert stores[0] != stores[1]


@pytest.mark.parametrize("constant", ["FORMAT", "RESAMPLE_FILTER_WIDTH", "RESAMPLE_ROLLOFF"])
def test_another_version_makes_another_store(
    index: ClipIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, constant: str
) -> None:
    before = clip_store.open_store(index, CONFIG, folder=tmp_path / "cache").folder
    monkeypatch.setattr(clip_store, constant, 99)
    assert clip_store.open_store(index, CONFIG, folder=tmp_path / "cache").folder != before


def test_changed_content_is_noticed_even_at_the_same_size(index: ClipIndex, tmp_path: Path) -> None:
    old = time.time() - 100
    for clip in index:
        os.utime(clip.path, (old, old))
    before = clip_store.open_store(index, CONFIG, folder=tmp_path / "cache").folder
    samples, _ = soundfile.read(index.clips[0].path)
    soundfile.write(index.clips[0].path, samples[::-1], RATE, subtype="FLOAT")
    os.utime(index.clips[0].path, (old, old))  # as a copying program that keeps times would leave it
    after = clip_store.open_store(index, CONFIG, folder=tmp_path / "cache")
    assert after.folder != before
    assert_right(after, index)


def test_the_same_data_elsewhere_shares_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = clip_store.open_store(make_data(tmp_path / "here"), CONFIG, folder=tmp_path / "cache")
    decoded = count_decoded(monkeypatch)
    # Copied, not made again: a float WAV holds the second in which it was written.
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    index = folder.load(tmp_path / "there", CONFIG)
    second = clip_store.open_store(index, CONFIG, folder=tmp_path / "cache")
    assert first.folder == second.folder
    assert not decoded


def test_hashes_are_remembered_once_files_are_old_enough(
    index: ClipIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[object] = []
    digest = clip_store.hashlib.file_digest
    monkeypatch.setattr(clip_store.hashlib, "file_digest", lambda *given: hashed.append(given) or digest(*given))
    now = time.time()
    clip_store.open_store(index, CONFIG, folder=tmp_path / "cache")
    clip_store.open_store(index, CONFIG, folder=tmp_path / "cache")
    assert len(hashed) == 12  # six files, both times: they were written a moment ago
    monkeypatch.setattr(clip_store.time, "time", lambda: now + 60)
    clip_store.open_store(index, CONFIG, folder=tmp_path / "cache")
    clip_store.open_store(index, CONFIG, folder=tmp_path / "cache")
    assert len(hashed) == 18


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"a": 3}', '{"a": [1, 2]}'])
def test_a_damaged_memory_of_hashes_is_ignored(
    index: ClipIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    now = time.time()
    monkeypatch.setattr(clip_store.time, "time", lambda: now + 60)
    store = clip_store.open_store(index, CONFIG, folder=tmp_path / "cache")
    (memory,) = (tmp_path / "cache").glob("contents-*.json")
    memory.write_text(content)
    assert clip_store.open_store(index, CONFIG, folder=tmp_path / "cache").folder == store.folder


# Damage


def flip_a_sample(store: Path) -> None:
    with open(store / "clips.i16", "r+b") as file:
        file.seek(5 * RATE + 1000)  # row 5: a row is RATE / 2 samples of 2 bytes
        file.write(b"\x12\x34\x56\x78")


def change_a_peak(store: Path) -> None:
    records = np.fromfile(store / "rows.bin", dtype=RECORD)
    records["peak"][5] *= 2
    records.tofile(store / "rows.bin")


def cut_the_samples(store: Path) -> None:
    os.truncate(store / "clips.i16", 11 * RATE)


def append_to_the_rows(store: Path) -> None:
    with open(store / "rows.bin", "ab") as file:
        file.write(b"more")


@pytest.mark.parametrize(
    ("damage", "again"),
    [(flip_a_sample, 1), (change_a_peak, 1), (cut_the_samples, 1), (append_to_the_rows, 0)],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_damaged_store_is_mended_row_by_row(
    index: ClipIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None], again: int
) -> None:
    damage(clip_store.open_store(index, CONFIG, folder=tmp_path / "cache").folder)
    decoded = count_decoded(monkeypatch)
    assert_right(clip_store.open_store(index, CONFIG, folder=tmp_path / "cache"), index)
    assert len(decoded) == again


def test_a_store_whose_records_are_gone_is_refilled(
    index: ClipIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = clip_store.open_store(index, CONFIG, folder=tmp_path / "cache")
    (store.folder / "rows.bin").unlink()
    decoded = count_decoded(monkeypatch)
    assert_right(clip_store.open_store(index, CONFIG, folder=tmp_path / "cache"), index)
    assert len(decoded) == 12


# Killed half way; two at once

FILL = """
    import os, sys, time
    from pathlib import Path
    from edgekd.config import DataConfig
    from edgekd.data import clip_store
    from edgekd.data.layouts import folder
    from edgekd.audio.read import read_clip

    clip_store._FLUSH_ROWS = 4
    def slow(*arguments, **options):
        tell("decoding", 0, 0)
        time.sleep(0.02)
        while Path(sys.argv[3]).exists():
            time.sleep(0.01)
        return read_clip(*arguments, **options)
    clip_store.read_clip = slow
    config = DataConfig(sample_rate=8_000, clip_seconds=0.5)
    def tell(stage, done, total, **figures):
        os.write(1, f"{stage} {done}\\n".encode())  # whole lines, whichever threads write
    clip_store.open_store(folder.load(Path(sys.argv[1]), config), config, tell, Path(sys.argv[2]))
"""


def start_filling(data: Path, folder: Path, hold: Path) -> subprocess.Popen[str]:
    """A process that opens the store in `folder`, and decodes nothing while the file `hold` is there."""
    package = Path(clip_store.__file__).resolve().parents[2]
    command = [sys.executable, "-c", textwrap.dedent(FILL), str(data), str(folder), str(hold)]
    environment = {**os.environ, "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def wait_for(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout is not None
    for printed in process.stdout:
        if printed.strip() == line:
            return
    raise AssertionError(f"the process ended without '{line}'")


def test_a_fill_killed_half_way_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = make_data(tmp_path / "data", recordings=40)
    process = start_filling(tmp_path / "data", tmp_path / "cache", tmp_path / "hold")
    wait_for(process, "cache clips 30")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    decoded = count_decoded(monkeypatch)
    assert_right(clip_store.open_store(index, CONFIG, folder=tmp_path / "cache"), index)
    assert 0 < len(decoded) <= 80 - 28  # what was flushed, in fours, is not done again


def test_of_two_processes_one_fills_and_the_other_waits(index: ClipIndex, tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    first = start_filling(index.root, tmp_path / "cache", hold)
    wait_for(first, "decoding 0")
    second = start_filling(index.root, tmp_path / "cache", hold)
    wait_for(second, "wait for another run's cache 0")
    hold.unlink()
    told, _ = second.communicate()
    first.communicate()
    assert (first.returncode, second.returncode) == (0, 0)
    assert "check cached clips 12" in told
    assert "decoding" not in told
    assert_right(clip_store.open_store(index, CONFIG, folder=tmp_path / "cache"), index)


def test_processes_that_start_together_decode_every_clip_once(index: ClipIndex, tmp_path: Path) -> None:
    processes = [start_filling(index.root, tmp_path / "cache", tmp_path / "hold") for _ in range(2)]
    told = "".join(process.communicate()[0] for process in processes)
    assert [process.returncode for process in processes] == [0, 0]
    assert told.count("decoding") == 12
    assert_right(clip_store.open_store(index, CONFIG, folder=tmp_path / "cache"), index)


# Errors


def test_a_bad_file_is_named_and_the_good_clips_are_kept(
    index: ClipIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = index.clips[-1].path
    good = bad.read_bytes()
    samples, _ = soundfile.read(bad)
    samples[-1] = np.nan
    soundfile.write(bad, samples, RATE, subtype="FLOAT")
    with pytest.raises(InputError, match=rf"{bad}: sample {RATE - 1} is NaN"):
        clip_store.open_store(index, CONFIG, folder=tmp_path / "cache")
    assert any(np.fromfile(rows, dtype=RECORD)["crc"].any() for rows in (tmp_path / "cache").glob("*/rows.bin"))
    bad.write_bytes(good)
    assert_right(clip_store.open_store(index, CONFIG, folder=tmp_path / "cache"), index)


def test_a_file_that_went_away_is_named(index: ClipIndex, tmp_path: Path) -> None:
    index.clips[3].path.unlink()
    with pytest.raises(InputError, match=rf"{index.clips[3].path}: cannot be read"):
        clip_store.open_store(index, CONFIG, folder=tmp_path / "cache")


@pytest.mark.parametrize("call", ["posix_fallocate", "pwrite"])
def test_no_space_left_says_how_much_is_needed_and_what_to_do(
    index: ClipIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(InputError, match=rf"no space left .* {12 * RATE} bytes needed, \d+ free.*EDGEKD_CACHE_DIR"):
        clip_store.open_store(index, CONFIG, folder=tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*/clips.i16"))


def test_a_limit_of_the_real_file_system_is_reported_the_same_way(index: ClipIndex, tmp_path: Path) -> None:
    code = """
        import resource, signal, sys
        from pathlib import Path
        from edgekd.config import DataConfig
        from edgekd.data import clip_store
        from edgekd.data.layouts import folder
        from edgekd.errors import InputError
        config = DataConfig(sample_rate=8_000, clip_seconds=0.5)
        index = folder.load(Path(sys.argv[1]), config)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            clip_store.open_store(index, config, folder=Path(sys.argv[2]))
        except InputError as error:
            print(error)
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(clip_store.__file__).resolve().parents[2])}
    command = [sys.executable, "-c", textwrap.dedent(code), str(index.root), str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert "no space left" in done.stdout
    assert f"{12 * RATE} bytes needed" in done.stdout


def test_a_file_system_that_cannot_reserve_space_still_works(
    index: ClipIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    assert_right(clip_store.open_store(index, CONFIG, folder=tmp_path / "cache"), index)


def test_a_cache_folder_that_is_a_file_is_named(index: ClipIndex, tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    with pytest.raises(InputError, match=r"cache: the clip cache cannot be written .*EDGEKD_CACHE_DIR"):
        clip_store.open_store(index, CONFIG, folder=tmp_path / "cache")


# Level


def test_the_gain_brings_the_loudest_training_sample_to_one(index: ClipIndex, tmp_path: Path) -> None:
    store = clip_store.open_store(index, CONFIG, folder=tmp_path / "cache")
    quiet = [row for row, clip in enumerate(index) if clip.path.stem not in ("0", "1")]
    gain = clip_store.fit_gain(store, quiet)
    assert (store.waveforms(quiet) * gain).abs().max().item() == pytest.approx(1.0, abs=1e-6)
    assert (store.waveforms(range(12)) * gain).abs().max() > 2  # the louder rows were not looked at


def test_silence_stays_silence_and_cannot_be_fitted(tmp_path: Path) -> None:
    index = make_data(tmp_path / "data")
    for clip in index.clips[:2]:
        soundfile.write(clip.path, np.zeros(RATE), RATE)
    store = clip_store.open_store(index, CONFIG, folder=tmp_path / "cache")
    assert not store.waveforms([0, 1]).any()
    with pytest.raises(InputError, match="All 2 training clips are silent"):
        clip_store.fit_gain(store, [0, 1])
