"""The walk of a data folder: every file in it, and what of it is no clip, with the reason.

Linked folders are followed, each folder is read once (however many links lead to it, and back into it), hidden files
and folders are passed by. Whatever is not read is told of: `left_out` compares what lies in the folder of a data set
with the files that its clips are of, whichever layout has named them.
"""

from __future__ import annotations

import os
import stat
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekd.audio.read import AUDIO_SUFFIXES
from edgekd.data.index import ClipIndex, LeftOut

NAMED = 5  # files that a reason names, of all that it counts

# Endings of sound and of film with sound, of which libsndfile reads none.
_OTHER_AUDIO = frozenset(
    {
        *(".m4a", ".m4b", ".mp4", ".aac", ".wma", ".amr", ".ape", ".wv", ".tta", ".ra", ".dsf", ".dff", ".ac3", ".dts"),
        *(".mka", ".mkv", ".webm", ".3gp", ".mov", ".avi", ".spx", ".mpc", ".raw", ".pcm"),
    }
)
_ARCHIVES = frozenset({".zip", ".tar", ".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz", ".7z", ".rar", ".zst", ".lz4"})
# What sound begins with, under whatever name: wav, aiff, w64, flac, ogg, au, caf, sphere, mp3 with a tag.
_MAGIC = (b"RIFF", b"RIFX", b"RF64", b"FORM", b"riff", b"fLaC", b"OggS", b".snd", b"caff", b"NIST_1A", b"ID3")
_TEXTS = frozenset(
    {
        *(".csv", ".tsv", ".txt", ".md", ".rst", ".json", ".jsonl", ".xml", ".html", ".toml", ".yaml", ".yml", ".ini"),
        *(".png", ".jpg", ".jpeg", ".gif", ".svg", ".pdf", ".py", ".sh", ".m", ".ipynb", ".log", ".bib", ".lab"),
    }
)

_NOWHERE = "a link that leads nowhere: fetch what it stands for ('git annex get'), or mend it"
_HIDDEN = "hidden"
_AGAIN = "a link to a folder that is read already"
_NO_FILE = "neither file nor folder"
_ARCHIVE = "packed: unpack it"
_MISNAMED = "sound by its first bytes, but its ending is not one that is read: rename it"
_NO_AUDIO = "no audio"


@dataclass(frozen=True)
class Reason:
    """What was left out for one reason: `count` files or folders, of which `files` names the first. `lost`: it may be
    something that was meant to be heard."""

    why: str
    lost: bool
    count: int
    files: tuple[str, ...]

    def __str__(self) -> str:
        named = ", ".join(self.files[:2]) + (", ..." if self.count > 2 else "")
        return f"{self.why} ({self.count}: {named})"


def files_below(folder: Path, left_out: list[LeftOut] | None = None, *, depth: int | None = None) -> Iterator[Path]:
    """The files in `folder` and in those at most `depth` folders below it (None: at any depth), in no order. What is
    passed by is added to `left_out`."""
    left = [] if left_out is None else left_out
    read = _identities(folder.resolve().parents)
    waiting, linked = deque([(folder, 0)]), deque[tuple[Path, int]]()
    while waiting or linked:
        # A folder by its own name comes before links to it.
        place, below = waiting.popleft() if waiting else linked.popleft()
        try:
            identity = _identities([place])
            if identity & read:
                left.append(LeftOut(place, _AGAIN, lost=False))
                continue
            read |= identity
            with os.scandir(place) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as failure:
            left.append(LeftOut(place, _unreadable(failure)))
            continue
        for entry in found:
            path = place / entry.name
            try:
                if entry.name.startswith("."):
                    left.append(LeftOut(path, _HIDDEN, lost=False))
                elif entry.is_file():
                    yield path
                elif entry.is_dir():
                    if depth is None or below < depth:
                        (linked if entry.is_symlink() else waiting).append((path, below + 1))
                else:
                    left.append(LeftOut(path, _NOWHERE if entry.is_symlink() else _NO_FILE))
            except OSError as failure:
                left.append(LeftOut(path, _unreadable(failure)))


def audio_files(folder: Path) -> list[Path]:
    """The audio files at any depth below `folder`, in alphabetical order."""
    return sorted(path for path in files_below(folder) if is_audio(path))


def holds_audio(folder: Path) -> bool:
    """Whether there is an audio file at any depth below `folder`."""
    return any(map(is_audio, files_below(folder)))


def is_audio(path: Path) -> bool:
    """Whether a file is named as audio."""
    return path.suffix.lower() in AUDIO_SUFFIXES


def left_out(
    folders: Iterable[Path], used: Iterable[Path], elsewhere: str, *, lost: bool = True, depth: int | None = None
) -> list[LeftOut]:
    """What lies in `folders`, as deep as `files_below` goes, and is not among the files `used`, in the order of paths.

    `elsewhere` says of audio why it is not, and `lost` whether it may have been meant to be.
    """
    read = set(used)
    homes = {path.parent for path in read}
    above = homes.union(*(home.parents for home in homes))  # hidden, or linked to twice, but not left out
    left: list[LeftOut] = []
    unused: list[Path] = []
    for folder in folders:
        unused += [path for path in files_below(folder, left, depth=depth) if path not in read]
    audio = [path for path in unused if is_audio(path)]
    if audio:  # by another path, through a link, it may be read all the same
        targets = {path.resolve() for path in read}
        left += [LeftOut(path, elsewhere, lost) for path in audio if path.resolve() not in targets]
    left += [LeftOut(path, *_no_audio(path)) for path in unused if not is_audio(path)]
    kept = {each.path: each for each in left if each.path not in read and each.path not in above}
    return [kept[path] for path in sorted(kept)]


def reasons(index: ClipIndex) -> tuple[Reason, ...]:
    """What was left out of a data set, by reason: what may have been meant to be heard first, then the commonest."""
    return _by_reason(index.left_out, index.root)


def told(found: Sequence[Reason]) -> str:
    """Several reasons in a sentence, those alone that may be a loss; empty where there is none."""
    return "; ".join(str(each) for each in found if each.lost)


def why_no_audio(folder: Path) -> str:
    """What of a folder in which no recordings were found could be some, as the end of a message: empty, or ' Found:
    packed ...'."""
    found = told(_by_reason(left_out([folder], (), "", lost=False), folder))
    return f" Found: {found}." if found else ""


def _by_reason(left: Sequence[LeftOut], root: Path) -> tuple[Reason, ...]:
    counts = Counter((not each.lost, each.why) for each in left)
    named: dict[str, list[str]] = {}
    for each in left:
        names = named.setdefault(each.why, [])
        if len(names) < NAMED:
            below = each.path.is_relative_to(root) and each.path != root
            names.append((each.path.relative_to(root) if below else each.path).as_posix())
    ordered = sorted(counts.items(), key=lambda item: (item[0][0], -item[1]))
    return tuple(Reason(why, not kept, count, tuple(named[why])) for (kept, why), count in ordered)


def _identities(folders: Iterable[Path]) -> set[tuple[int, int]]:
    """Device and number of each of some folders. Raises `OSError`."""
    return {(status.st_dev, status.st_ino) for status in map(os.stat, folders)}


def _unreadable(failure: OSError) -> str:
    return f"cannot be read ({failure.strerror})"


def _no_audio(path: Path) -> tuple[str, bool]:
    """Why a file that is not named as audio is left out, and whether that may be a loss."""
    suffix = path.suffix.lower()
    if suffix in _OTHER_AUDIO:
        return f"in a format that is not read ({suffix}): convert it to flac or wav", True
    if suffix in _ARCHIVES:
        return _ARCHIVE, True
    if suffix in _TEXTS:
        return _NO_AUDIO, False
    try:
        with open(path, "rb", opener=_opened_at_once) as file:
            start = file.read(8) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else b""
    except OSError as failure:
        return _unreadable(failure), True
    return (_MISNAMED, True) if start.startswith(_MAGIC) else (_NO_AUDIO, False)


def _opened_at_once(path: str, flags: int) -> int:
    """A file that became a pipe since is opened without waiting for a writer."""
    return os.open(path, flags | os.O_NONBLOCK)
