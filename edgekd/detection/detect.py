"""From recordings to a table of events, or a table a recording; resumable, and in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekd import own_code
from edgekd.audio.read import AudioInfo, probe
from edgekd.data.deployments import Beginnings, beginnings, deployments
from edgekd.data.time_zones import parse_zone
from edgekd.data.times_in_names import parse_time_pattern
from edgekd.detection import journal
from edgekd.detection.journal import Journal
from edgekd.detection.listening import Heard, hear, hear_file
from edgekd.detection.piped import NAME, Pcm, PipedSound
from edgekd.detection.recordings import Source, check_tables, find
from edgekd.device.runner.detection import DEFAULT_OPEN, Rule, hop_note
from edgekd.device.runner.stream import STREAM_FORMATS
from edgekd.errors import InputError, UsageError
from edgekd.events.event import Event
from edgekd.events.tables import FORMATS, Format, write_events
from edgekd.exporting.predict import Predictor, open_predictor
from edgekd.files.locks import writing
from edgekd.progress import Progress, silent

STAGE = "detect"
_ENDINGS: dict[Format, str] = {"csv": ".csv", "jsonl": ".jsonl", "raven": ".selections.txt", "audacity": ".txt"}


@dataclass(frozen=True)
class Found:
    """What was heard of each recording, in their order, the tables that were written, and notes: what is odd about the
    times in the names of recordings, and where windows are further apart than was asked for, or less."""

    recordings: tuple[Heard, ...]
    tables: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def events(self) -> list[Event]:
        """All events, recording by recording."""
        return [event for heard in self.recordings for event in heard.events]

    @property
    def seconds(self) -> float:
        """How long all recordings are together."""
        return sum(heard.seconds for heard in self.recordings)

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "recordings": [heard.to_dict() for heard in self.recordings],
            "tables": [str(table) for table in self.tables],
            "notes": list(self.notes),
        }


def detect(
    model: Path | str,
    paths: Sequence[Path | str],
    out: Path | str | None = None,
    progress: Progress = silent,
    *,
    format_: str | None = None,
    hop_s: float | None = None,
    thresholds: Sequence[tuple[str | None, float]] | Mapping[str, float] = (),
    minimum_s: float | None = None,
    gap_s: float | None = None,
    exclusive: bool | None = None,
    time_pattern: str | None = None,
    time_zone: str | None = None,
    overwrite: bool = False,
    trust: Sequence[str] = (),
    report: Callable[[Heard], None] = lambda _: None,
    tell: Callable[[str], None] = lambda _: None,
) -> Found:
    """The events that the run or bundle `model` finds in recordings: files, folders and patterns.

    `out`: a table of all (its ending or `format_` says which), or a folder for a table each; None: none is written. A
    recording that is in them already, by the same model and settings, is not listened to again. `hop_s` (s from one
    window to the next), `thresholds` (of a class; of None: of all), `minimum_s`, `gap_s` and `exclusive` replace what
    the model's `detection` says. `report` hears of each recording as it is done; one that cannot be read has `failed`.

    Events have the time at which they began where the names of recordings tell it, by `time_pattern` or as recorders
    write it, and its zone is known: by the name, or as the `time_zone` of the recorder's clock. `tell` hears of what is
    odd about these times, and of a `hop_s` that is moved (`Found.notes`), before anything is listened to.

    Raises `InputError` for what is no model or no recording and where nothing can be written; `UsageError` for classes
    and formats that are not there, and for an `out` that is of another model or other settings, unless `overwrite`.
    For times it raises as `edgekd.data.deployments.beginnings` does.
    """
    own_code.trust(trust)
    pairs = list(thresholds.items()) if isinstance(thresholds, Mapping) else list(thresholds)
    out = None if out is None else Path(out)
    chosen = _format(out, format_)
    pattern = None if time_pattern is None else parse_time_pattern(time_pattern)
    zone = None if time_zone is None else parse_zone(time_zone)
    sources = find(paths)
    _check_apart(out, sources)
    times = beginnings([source.name for source in sources], pattern, zone)
    predictor = open_predictor(Path(model))
    rule = predictor.rule(hop_s=hop_s, thresholds=pairs, minimum_s=minimum_s, gap_s=gap_s, exclusive=exclusive)
    notes = (
        *predictor.notes,
        *_unchosen(model, predictor, pairs),
        *times.notes,
        *_odd(sources, times),
        *_moved(hop_s, rule),
    )

    def tell_all() -> None:  # after what is wrong, and before anything is listened to
        for note in notes:
            tell(note)

    if out is None:
        tell_all()
        return Found(tuple(_heard(predictor, rule, sources, times, None, progress, report)), notes=notes)
    # Tables of a recording stay as they are; one of all is written anew, with the times that are asked for now.
    named = {"time_pattern": time_pattern, "time_zone": time_zone} if _is_folder(out) else {}
    settings = rule.settings() | {name: value for name, value in named.items() if value is not None}
    if _is_folder(out):
        check_tables(sources)
    with _journal(out, {"model": predictor.digest(), "settings": settings}, overwrite) as done:
        if _is_folder(out):
            tell_all()
            each = _heard(predictor, rule, sources, times, done, progress, report)
            return replace(_table_each(out, chosen, sources, done, each), notes=notes)
        tell_all()
        heard = tuple(_heard(predictor, rule, sources, times, done, progress, report))
        return Found(heard, _one_table(out, chosen, heard), notes)


def detect_piped(
    model: Path | str,
    descriptor: int,
    out: Path | str | None = None,
    *,
    pcm: tuple[int | None, str | None, int | None] = (None, None, None),
    format_: str | None = None,
    overwrite: bool = False,
    tell: Callable[[Event], None] = lambda _: None,
    note: Callable[[str], None] = lambda _: None,
    **asked: Any,
) -> tuple[Found, int]:
    """`detect` of what comes from a file descriptor: a WAV file, or bare samples, `pcm` at a rate, in a format and a
    number of channels (None: the model's, s16, 1). Returns also the signal that ended it, SIGINT or SIGTERM, or 0; what
    came before is heard.

    `tell` hears of each event as soon as it is certain, `note` at once of a moved hop. Raises as `detect` does,
    `InputError` also for other sound.
    """
    out = None if out is None else Path(out)
    chosen = _format(out, format_, recordings=1)
    if out is not None and _is_folder(out):
        raise UsageError(f"{out}: standard input makes one table. Name a file, such as {out}.csv.")
    if out is not None and out.exists() and not overwrite:
        raise UsageError(f"{out}: already exists. Choose another --out, or replace what is there: --overwrite.")
    predictor = open_predictor(Path(model))
    rule = predictor.rule(**asked)
    unchosen = _unchosen(model, predictor, asked.get("thresholds") or ())
    notes = (*predictor.notes, *unchosen, *_moved(asked.get("hop_s"), rule))
    for words in notes:
        note(words)
    rate, encoding, channels = pcm
    if encoding is not None and encoding not in STREAM_FORMATS:
        raise UsageError(f"--pcm {encoding}: one of {', '.join(STREAM_FORMATS)}.")
    bare = Pcm(rate or predictor.sample_rate, encoding or "s16", channels or 1)
    sound = PipedSound(descriptor, predictor.hearing, bare, given=pcm != (None, None, None))
    heard = hear(predictor, rule, ((piece, piece) for piece in sound.pieces()), sound.rate, NAME, tell=tell)
    if sound.ended is not None:
        missed = f"{sound.ended}; {heard.missed}" if heard.missed else sound.ended
        heard = replace(heard, missed=missed, failed=heard.failed or sound.cut)
    tables = () if out is None else _one_table(out, chosen, (heard,))
    return Found((heard,), tables, notes), sound.interrupted


def _moved(hop_s: float | None, rule: Rule) -> tuple[str, ...]:
    """What is to be said of a hop that was asked for, as on a device."""
    return tuple(filter(None, [hop_note(hop_s, rule.hop / rule.rate)]))


def _unchosen(model: Path | str, predictor: Predictor, asked: Sequence[object]) -> tuple[str, ...]:
    """What is to be said of a model for which nobody has chosen thresholds, as those of older versions."""
    if asked or (predictor.detection is not None and predictor.detection.chosen is not None):
        return ()
    return (
        f"{model}: no thresholds were chosen, so each class is heard from {DEFAULT_OPEN:g} on. 'edgekd thresholds RUN'"
        " chooses them.",
    )


def _one_table(out: Path, format_: Format, heard: Sequence[Heard]) -> tuple[Path, ...]:
    """Where nothing could be heard, none is written: it would say that nothing was there."""
    seconds = {each.recording: each.seconds for each in heard if each.seconds}
    return tuple(write_events(out, Found(tuple(heard)).events, format_, seconds)) if seconds else ()


def _table_each(
    out: Path, format_: Format, sources: Sequence[Source], done: Journal, recordings: Iterator[Heard]
) -> Found:
    """A table of a recording that was listened to before stays as it is: somebody may have gone through it."""
    known = {source for source in sources if done.heard(source.path, source.name) is not None}
    heard, tables = [], []
    for source, each in zip(sources, recordings, strict=True):
        heard.append(each)
        below = Path(source.below).with_suffix(_ENDINGS[format_])
        table = out / below
        if each.seconds and not (source in known and table.exists()):
            write_events(table, each.events, format_, {each.recording: each.seconds})
            done.wrote(source.path, below)
        tables += [table] if each.seconds else []
    return Found(tuple(heard), tuple(tables))


def _heard(
    predictor: Predictor,
    rule: Rule,
    sources: Sequence[Source],
    times: Beginnings,
    done: Journal | None,
    progress: Progress,
    report: Callable[[Heard], None],
) -> Iterator[Heard]:
    """Each recording in turn, listened to unless it has been, with the times of its events. It is noted as done when
    the next one is asked for."""
    before = {source: None if done is None else done.heard(source.path, source.name) for source in sources}
    lengths = {source: _length(source.path) if known is None else known.seconds for source, known in before.items()}
    total = round(sum(lengths.values()))
    past = sum(lengths[source] for source, known in before.items() if known is not None)
    progress(STAGE, round(past), total)
    for source, known in before.items():
        heard, state = known, None
        if heard is None:
            state = journal.state_of(source.path)
            heard = _listen(predictor, rule, source, _after(past, total, progress))
            past += lengths[source]
        timed = [replace(event, time=times.utc(source.name, event.start)) for event in heard.events]
        heard = replace(heard, events=tuple(timed))
        report(heard)
        yield heard
        if done is not None and known is None and heard.seconds:  # its table is written now
            done.add(source.path, state, heard)
    if round(past) < total or not total:  # what could not be read after all
        progress(STAGE, total, total)


def _odd(sources: Sequence[Source], times: Beginnings) -> list[str]:
    """What is odd about the deployments that the recordings are of, where their names tell; gaps, too."""
    infos: dict[str, AudioInfo] = {}
    for source in sources:
        if source.name in times.times:
            with suppress(InputError):  # it will be said when its turn comes
                infos[source.name] = probe(source.path)
    heard = {name: time for name, time in times.times.items() if name in infos}
    return [note for each in deployments(infos, replace(times, times=heard)) for note in each.notes()]


def _after(past: float, total: int, progress: Progress) -> Callable[[float], None]:
    told = round(past)

    def listened(seconds: float) -> None:
        nonlocal told
        if round(past + seconds) > told:
            told = round(past + seconds)
            progress(STAGE, told, total)

    return listened


def _listen(predictor: Predictor, rule: Rule, source: Source, progress: Callable[[float], None]) -> Heard:
    try:
        return hear_file(predictor, rule, source.path, source.name, progress)
    except InputError as failure:
        return Heard(source.name, 0.0, missed=str(failure).removeprefix(f"{source.path}: "), failed=True)


def _length(path: Path) -> float:
    try:
        return probe(path).seconds
    except InputError:  # it will be said when its turn comes
        return 0.0


@contextmanager
def _journal(out: Path, made_by: Mapping[str, Any], overwrite: bool) -> Iterator[Journal]:
    place = out / journal.NAME if _is_folder(out) else out.with_name(f".{out.name}{journal.NAME}")
    with writing(out):
        if not overwrite and not place.exists() and (any(out.iterdir()) if out.is_dir() else out.exists()):
            raise UsageError(f"{out}: already exists. Choose another --out, or replace what is there: --overwrite.")
        place.parent.mkdir(parents=True, exist_ok=True)
        yield Journal.open(place, made_by, out, anew=overwrite)


def _format(out: Path | None, format_: str | None, recordings: int | None = None) -> Format:
    """The format of the tables. Raises `UsageError` for one that is not known, and an ending that says none."""
    if format_ is not None and format_ not in FORMATS:
        raise UsageError(f"--format {format_}: one of {', '.join(FORMATS)}.")
    by_ending: dict[str, Format] = {".csv": "csv", ".jsonl": "jsonl", ".txt": "raven"}
    if out is not None and not _is_folder(out) and format_ is None and out.suffix.lower() not in by_ending:
        raise UsageError(
            f"{out}: end its name in {', '.join(by_ending)}, or say which format it is to have (--format)."
        )
    chosen: Any = format_ or by_ending.get("" if out is None else out.suffix.lower(), "csv")
    if out is not None and not _is_folder(out) and chosen == "audacity" and recordings != 1:
        raise UsageError(f"{out}: a label file of Audacity is of one recording. Name a folder, for a file each.")
    return chosen


def _check_apart(out: Path | None, sources: Sequence[Source]) -> None:
    """Raises `UsageError` for a table that would take the place of a recording."""
    if out is not None and out.is_file():
        for source in sources:
            if source.path.exists() and source.path.samefile(out):
                raise UsageError(f"{out}: is a recording to listen to. Name another --out for the table.")


def _is_folder(out: Path) -> bool:
    return out.is_dir() or not out.suffix
