from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgekd.config import DataConfig
from edgekd.data.index import SIDES, Clip, ClipIndex, Side, Split
from edgekd.data.splits import check_no_leak, make_split, read_splits, recordings_on, write_splits
from edgekd.errors import GateError, InputError, UsageError

ROOT = Path("/data")


def make_index(
    groups: list[tuple[str, dict[int, int]]], classes: int, folds: dict[str, int] | None = None
) -> ClipIndex:
    """`groups`: name and clips of each label."""
    clips = [
        Clip(ROOT / f"{name}.wav", label, name, (folds or {}).get(name), 100 * number, 100)
        for name, labels in groups
        for label, count in labels.items()
        for number in range(count)
    ]
    return ClipIndex("folder", ROOT, tuple(f"class{label}" for label in range(classes)), tuple(clips))


def random_index(seed: int) -> ClipIndex:
    """Groups of one class and of very unequal sizes."""
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(2, 7))
    groups = [
        (f"{label}-{number}", {label: int(rng.integers(1, 40))})
        for label in range(classes)
        for number in range(rng.integers(3, 30))
    ]
    return make_index(groups, classes)


def sides_of(index: ClipIndex, split: Split) -> list[set[str]]:
    return [{index.clips[row].group for row in split.side(side)} for side in SIDES]


def by_fold() -> ClipIndex:
    groups = [(f"{fold}-{label}", {label: 2}) for fold in range(1, 6) for label in range(2)]
    return make_index(groups, 2, {name: int(name[0]) for name, _ in groups})


@pytest.mark.parametrize("seed", range(60))
def test_no_group_crosses_and_every_clip_is_on_one_side(seed: int) -> None:
    index = random_index(seed)
    split = make_split(index, DataConfig(split_seed=seed))
    train, validation, test = sides_of(index, split)
    assert not (train & validation or train & test or validation & test)
    assert sorted(split.train + split.validation + split.test) == list(range(len(index)))


@pytest.mark.parametrize("seed", range(60))
def test_shares_are_met_within_one_group_of_each_class(seed: int) -> None:
    index = random_index(seed)
    config = DataConfig(split_seed=seed)
    split = make_split(index, config)
    totals = Counter(index.labels)
    for label, total in totals.items():
        sizes = Counter(clip.group for clip in index if clip.label == label)
        for side, share in zip(SIDES, config.split, strict=True):
            clips = sum(index.clips[row].label == label for row in split.side(side))
            assert clips > 0
            if len(sizes) >= 10:
                assert abs(clips - share * total) <= max(sizes.values())


def test_equal_groups_meet_the_shares_exactly() -> None:
    index = make_index([(f"{label}-{n}", {label: 8}) for label in range(5) for n in range(20)], 5)
    split = make_split(index, DataConfig())
    for side, groups in zip(SIDES, (14, 2, 4), strict=True):
        assert Counter(index.clips[row].label for row in split.side(side)) == dict.fromkeys(range(5), groups * 8)


def test_the_seed_decides_which_groups() -> None:
    index = random_index(1)
    first = make_split(index, DataConfig(split_seed=1))
    assert first == make_split(index, DataConfig(split_seed=1))
    others = [make_split(index, DataConfig(split_seed=seed)) for seed in range(2, 6)]
    assert all(sides_of(index, other) != sides_of(index, first) for other in others)


def test_the_order_of_the_clips_does_not_matter() -> None:
    index = random_index(2)
    turned = replace(index, clips=index.clips[::-1])
    assert sides_of(index, make_split(index, DataConfig())) == sides_of(turned, make_split(turned, DataConfig()))


@pytest.mark.parametrize("seed", range(30))
def test_groups_of_several_classes_stay_whole(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = [
        (f"day{n}", {int(label): int(rng.integers(1, 9)) for label in rng.choice(4, rng.integers(1, 4), replace=False)})
        for n in range(40)
    ]
    index = make_index(groups, 4)
    split = make_split(index, DataConfig(split_seed=seed))
    check_no_leak(index, split)
    for side, share in zip(SIDES, (0.7, 0.1, 0.2), strict=True):
        assert {index.clips[row].label for row in split.side(side)} == set(range(4))
        assert abs(len(split.side(side)) / len(index) - share) < 0.1


def test_three_groups_are_enough_even_when_one_has_most_clips() -> None:
    index = make_index([("a", {0: 98}), ("b", {0: 1}), ("c", {0: 1}), *((f"d{n}", {1: 1}) for n in range(3))], 2)
    train, validation, test = sides_of(index, make_split(index, DataConfig()))
    assert "a" in train
    assert len(validation & {"b", "c"}) == len(test & {"b", "c"}) == 1


def test_a_class_with_too_few_groups_is_named() -> None:
    index = make_index([("a", {0: 50}), ("b", {0: 50}), *((f"c{n}", {1: 5}) for n in range(9))], 2)
    with pytest.raises(InputError, match=r"class 'class0' has 2 group\(s\) .* needs 3"):
        make_split(index, DataConfig())


def test_groups_shared_so_that_no_split_exists_are_named() -> None:
    # Classes 0 and 1 each need their groups on three sides, which puts c and d on one: class 2 is then short of one.
    shared = [("a", {0: 1, 1: 1}), ("b", {0: 1, 1: 1}), ("c", {0: 1, 2: 1}), ("d", {1: 1, 2: 1}), ("e", {2: 1})]
    with pytest.raises(InputError, match=r"cannot be on the \w+ side too, because its 3 groups are shared"):
        make_split(make_index(shared, 3), DataConfig())


# By fold


@pytest.mark.parametrize(
    ("fold", "val_fold", "expected"), [(1, None, (2, 1)), (5, None, (1, 5)), (2, 5, (5, 2)), (4, 1, (1, 4))]
)
def test_the_folds_chosen_are_validation_and_test(fold: int, val_fold: int | None, expected: tuple[int, int]) -> None:
    index = by_fold()
    split = make_split(index, DataConfig(fold=fold, val_fold=val_fold))
    assert {index.clips[row].fold for row in split.validation} == {expected[0]}
    assert {index.clips[row].fold for row in split.test} == {expected[1]}
    assert {index.clips[row].fold for row in split.train} == {1, 2, 3, 4, 5} - set(expected)


@pytest.mark.parametrize(("choice", "named"), [({"fold": 6}, "fold = 6"), ({"val_fold": 7}, "val_fold = 7")])
def test_an_unknown_fold_gets_the_list(choice: dict[str, int], named: str) -> None:
    with pytest.raises(UsageError, match=rf"^{named}: .*Available: 1, 2, 3, 4, 5"):
        make_split(by_fold(), DataConfig(**choice))


def test_one_fold_cannot_be_validation_and_test() -> None:
    with pytest.raises(UsageError, match="val_fold = 3: is the test fold"):
        make_split(by_fold(), DataConfig(fold=3, val_fold=3))


def test_two_folds_are_too_few() -> None:
    index = make_index([("1", {0: 1}), ("2", {0: 1})], 1, {"1": 1, "2": 2})
    with pytest.raises(InputError, match="only folds 1, 2"):
        make_split(index, DataConfig())


def test_a_class_missing_from_a_fold_is_named() -> None:
    whole = by_fold()
    index = replace(whole, clips=tuple(clip for clip in whole if (clip.fold, clip.label) != (2, 1)))
    with pytest.raises(InputError, match="class 'class1' has no clip on the test side"):
        make_split(index, DataConfig(fold=2))


def test_folds_for_some_clips_only_are_refused() -> None:
    whole = by_fold()
    index = replace(whole, clips=(replace(whole.clips[0], fold=None), *whole.clips[1:]))
    with pytest.raises(InputError, match=r"some clips have a fold and 1 have none \(1-0.wav\)"):
        make_split(index, DataConfig())


def test_folds_that_part_a_group_are_refused() -> None:
    whole = by_fold()
    clips = tuple(replace(clip, group="ferry") if clip.fold in (1, 4) and clip.label == 0 else clip for clip in whole)
    with pytest.raises(GateError, match="group 'ferry' is on the train and the test side"):
        make_split(replace(whole, clips=clips), DataConfig(fold=1))


def test_given_folds_are_left_aside_when_told_to() -> None:
    whole = by_fold()
    parted = tuple(replace(clip, group="ferry") if clip.fold in (1, 4) and clip.label == 0 else clip for clip in whole)
    some = (replace(whole.clips[0], fold=None), *whole.clips[1:])
    for index in (replace(whole, clips=parted), replace(whole, clips=some)):
        split = make_split(index, DataConfig(given_split=False))
        assert make_split(index, DataConfig(given_split=False, fold=9, val_fold=9)) == split
        without = replace(index, clips=tuple(replace(clip, fold=None) for clip in index))
        assert make_split(without, DataConfig()) == split


# By given sides


def by_side() -> ClipIndex:
    groups = [(f"{side}-{label}-{n}", {label: 3}) for side in SIDES for label in range(2) for n in range(4)]
    index = make_index(groups, 2)
    side_of = {name: side for side in SIDES for name, _ in groups if name.startswith(side)}
    return replace(index, clips=tuple(replace(clip, side=side_of[clip.group]) for clip in index))


def test_the_data_set_s_own_sides_are_the_split() -> None:
    index = by_side()
    split = make_split(index, DataConfig(split_seed=5))
    assert [{index.clips[row].side for row in split.side(side)} for side in SIDES] == [{side} for side in SIDES]
    assert sum(len(split.side(side)) for side in SIDES) == len(index)


def test_sides_come_before_folds() -> None:
    index = by_side()
    with_folds = replace(index, clips=tuple(replace(clip, fold=1 + n % 5) for n, clip in enumerate(index)))
    assert make_split(with_folds, DataConfig()) == make_split(index, DataConfig())


def test_given_sides_are_left_aside_when_told_to() -> None:
    index = by_side()
    split = make_split(index, DataConfig(given_split=False))
    without = replace(index, clips=tuple(replace(clip, side=None) for clip in index))
    assert split == make_split(without, DataConfig()) != make_split(index, DataConfig())


def test_sides_that_part_a_group_are_refused_and_the_way_out_is_named() -> None:
    whole = by_side()
    clips = tuple(replace(clip, group="ferry") if clip.group.endswith("0-0") else clip for clip in whole)
    index = replace(whole, clips=clips)
    with pytest.raises(
        GateError, match=r"group 'ferry' is on the train and the validation side.*--set data.given_split=false"
    ):
        make_split(index, DataConfig())
    check_no_leak(index, make_split(index, DataConfig(given_split=False)))


def test_sides_for_some_clips_only_are_refused() -> None:
    whole = by_side()
    index = replace(whole, clips=(*whole.clips[:-1], replace(whole.clips[-1], side=None)))
    with pytest.raises(InputError, match=r"some clips have a side and 1 have none \(test-1-3.wav\)"):
        make_split(index, DataConfig())


@pytest.mark.parametrize("side", SIDES)
def test_a_side_that_is_missing_is_named(side: Side) -> None:
    whole = by_side()
    index = replace(whole, clips=tuple(clip for clip in whole if clip.side != side))
    with pytest.raises(InputError, match=rf"own split has no {side} side. Add some, or split by group: --set data.giv"):
        make_split(index, DataConfig())


def test_a_class_missing_from_a_side_is_named() -> None:
    whole = by_side()
    index = replace(whole, clips=tuple(clip for clip in whole if (clip.side, clip.label) != ("validation", 1)))
    with pytest.raises(InputError, match=r"class 'class1' has no clip on the validation side\. Add some"):
        make_split(index, DataConfig())


# The audit


def test_a_group_on_two_sides_is_named() -> None:
    index = make_index([("a", {0: 2}), ("b", {0: 1}), ("c", {0: 1})], 1)
    check_no_leak(index, Split((0, 1), (2,), (3,)))
    with pytest.raises(GateError, match="group 'a' is on the train and the test side"):
        check_no_leak(index, Split((0,), (2,), (3, 1)))


def test_a_clip_that_is_there_twice_is_refused() -> None:
    index = make_index([("a", {0: 2}), ("b", {0: 1}), ("c", {0: 1})], 1)
    with pytest.raises(GateError, match=r"holds clip 1 \(a.wav\) twice"):
        check_no_leak(index, Split((0, 1, 1), (2,), (3,)))


# splits.csv


def test_a_split_comes_back_from_its_file(tmp_path: Path) -> None:
    for index in (random_index(3), by_fold()):
        split = make_split(index, DataConfig())
        write_splits(tmp_path / "splits.csv", index, split)
        assert read_splits(tmp_path / "splits.csv", index) == split
        on_test = {index.name(index.clips[row]) for row in split.test}
        assert set(recordings_on(tmp_path / "splits.csv", "test")) == on_test
        assert [path.name for path in tmp_path.iterdir()] == ["splits.csv"]


def test_the_file_names_every_clip_relative_to_the_data(tmp_path: Path) -> None:
    index = by_fold()
    write_splits(tmp_path / "splits.csv", index, make_split(index, DataConfig(fold=1)))
    header, first, *_ = (tmp_path / "splits.csv").read_text().splitlines()
    assert header == "path,class,group,fold,start,length,side"
    assert first == "1-0.wav,class0,1-0,1,0,100,test"


def test_a_split_is_found_again_after_the_data_moved(tmp_path: Path) -> None:
    index = random_index(4)
    split = make_split(index, DataConfig())
    write_splits(tmp_path / "splits.csv", index, split)
    clips = tuple(replace(clip, path=Path("/mnt") / clip.path.name) for clip in index)
    assert read_splits(tmp_path / "splits.csv", replace(index, root=Path("/mnt"), clips=clips)) == split


@pytest.mark.parametrize(
    "change", [{"start": 7}, {"length": 7}, {"group": "other"}, {"label": 1}, {"fold": 3}, {"path": ROOT / "other.wav"}]
)
def test_data_that_changed_since_is_noticed(tmp_path: Path, change: dict[str, object]) -> None:
    index = by_fold()
    write_splits(tmp_path / "splits.csv", index, make_split(index, DataConfig()))
    changed = replace(index, clips=(replace(index.clips[0], **change), *index.clips[1:]))
    with pytest.raises(InputError, match=r"splits.csv, line 2: 1-0.wav.* does not match the data"):
        read_splits(tmp_path / "splits.csv", changed)


def test_clips_added_since_are_noticed(tmp_path: Path) -> None:
    index = by_fold()
    write_splits(tmp_path / "splits.csv", index, make_split(index, DataConfig()))
    with pytest.raises(InputError, match=r"20 clips, but .* now has 21"):
        read_splits(tmp_path / "splits.csv", replace(index, clips=(*index.clips, index.clips[0])))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "columns are"),
        (b"a,b\n", "columns are a, b"),
        (b"\xff\xfe", "not a CSV table"),
        (b"path,class,group,fold,start,length,side\n" + b"\n" * 20, "0 clips|does not match"),
        (
            b"path,class,group,fold,start,length,side\n" + b"1-0.wav,class0,1-0,1,0,100,left\n" * 20,
            "line 2: .*side: one of",
        ),
    ],
)
def test_a_file_that_is_no_split_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "splits.csv").write_bytes(content)
    with pytest.raises(InputError, match=rf"splits.csv.*({says})"):
        read_splits(tmp_path / "splits.csv", by_fold())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"splits.csv: no such file"):
        read_splits(tmp_path / "splits.csv", by_fold())
