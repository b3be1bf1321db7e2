"""Charts, read back as XML: what is drawn is where the results say."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from edgekd.report import charts
from edgekd.report.results import Profile, Robustness, Subject
from edgekd.report.svg import WIDTH
from edgekd.scoring.scores import Scores

ALL: list[Callable[[Profile], str]] = [
    charts.pareto,
    charts.latency_distribution,
    charts.robustness_noise,
    charts.robustness_length,
    lambda profile: charts.confusion(profile.subjects[0]),
    lambda profile: charts.layers(profile.subjects[0]),
]


def drawn(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def of_class(svg: str, name: str) -> list[ElementTree.Element]:
    return [one for one in drawn(svg).iter() if name in one.get("class", "").split()]


def centre(mark: ElementTree.Element) -> tuple[float, float]:
    if mark.tag == "circle":
        return float(mark.attrib["cx"]), float(mark.attrib["cy"])
    return tuple(np.mean(places(mark), axis=0))


def places(path: ElementTree.Element) -> np.ndarray:
    return np.array([[float(part) for part in one.split()] for one in re.split("[MLZ]", path.attrib["d"]) if one])


def words(svg: str) -> list[str]:
    return [one.text or "" for one in drawn(svg).iter("text")]


def only(profile: Profile, *subjects: Subject) -> Profile:
    return profile.model_copy(update={"subjects": subjects})


def timed(subject: Subject, name: str, p50_ms: float, accuracy: float) -> Subject:
    assert subject.scores
    latency = subject.latency.model_copy(update={"p50_ms": p50_ms, "p50_interval_ms": (p50_ms, p50_ms)})
    scores = replace(subject.scores, accuracy=accuracy, accuracy_interval=(accuracy - 0.01, accuracy))
    return subject.model_copy(update={"name": name, "host": None, "latency": latency, "scores": scores})


@pytest.mark.parametrize("chart", ALL)
def test_every_chart_is_xml_with_a_title_and_a_description(
    chart: Callable[[Profile], str], sample_profile: Profile
) -> None:
    hard = sample_profile.subjects[0].model_copy(update={"name": "<b>&'\" |"})
    svg = drawn(chart(only(sample_profile, hard, *sample_profile.subjects[1:])))
    title, description = svg.find("title"), svg.find("desc")
    assert title is not None and description is not None and title.text and description.text
    assert svg.get("role") == "img"
    assert svg.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"


def test_faster_is_further_left_and_better_is_higher(sample_profile: Profile) -> None:
    found = [centre(mark) for mark in of_class(charts.pareto(sample_profile), "mark")]
    times = [one.latency.p50_ms for one in sample_profile.subjects]
    shares = [one.scores.accuracy for one in sample_profile.subjects if one.scores]
    assert list(np.argsort([x for x, _ in found])) == list(np.argsort(times))
    for (_, high), (_, low), better, worse in zip(found, found[1:], shares, shares[1:], strict=False):
        assert high < low if better > worse else high == pytest.approx(low, abs=2)


def test_the_front_joins_what_nobody_beats(sample_profile: Profile) -> None:
    one = sample_profile.subjects[0]
    fast, slow = timed(one, "fast", 1.0, 0.8), timed(one, "slow", 4.0, 0.9)
    beaten = timed(one, "beaten", 5.0, 0.85)
    svg = charts.pareto(only(sample_profile, fast, beaten, slow))
    marks = [centre(mark) for mark in of_class(svg, "mark")]
    (front,) = of_class(svg, "front")
    assert places(front)[0] == pytest.approx(marks[0], abs=2)
    assert places(front)[-1] == pytest.approx(marks[2], abs=2)
    assert not of_class(charts.pareto(only(sample_profile, fast)), "front")


def test_names_stand_beside_their_points_and_never_on_each_other(sample_profile: Profile) -> None:
    same = [timed(sample_profile.subjects[0], f"subject number {place}", 1.0, 0.8) for place in range(8)]
    named = [one for one in words(charts.pareto(only(sample_profile, *same))) if one.startswith("subject")]
    assert 1 <= len(named) < 8
    apart = [timed(sample_profile.subjects[0], f"no {place}", 2.0**place, 0.1 * place + 0.2) for place in range(8)]
    assert len([one for one in words(charts.pareto(only(sample_profile, *apart))) if one.startswith("no")]) == 8


@pytest.mark.parametrize(("slowest", "log"), [(2.0, False), (50.0, True)])
def test_times_far_apart_get_a_logarithmic_axis_that_says_so(
    slowest: float, log: bool, sample_profile: Profile
) -> None:
    one = sample_profile.subjects[0]
    svg = charts.pareto(only(sample_profile, timed(one, "a", 1.0, 0.8), timed(one, "b", slowest, 0.9)))
    assert ("time of one clip, ms, log scale" in words(svg)) == log


def test_a_latency_row_holds_its_quantiles_in_order(sample_profile: Profile) -> None:
    svg = charts.latency_distribution(sample_profile)
    boxes, medians = of_class(svg, "box"), of_class(svg, "median")
    assert len(boxes) == len(medians) == len(sample_profile.subjects)
    for box, median in zip(boxes, medians, strict=True):
        left, width = float(box.attrib["x"]), float(box.attrib["width"])
        assert left - 0.2 <= places(median)[0][0] <= left + width + 0.2
    assert "p50 3.37 ms, p99 4.77 ms" in words(svg)


def test_a_subject_whose_time_never_changes_is_drawn_too(sample_profile: Profile) -> None:
    one = sample_profile.subjects[0]
    latency = one.latency.model_copy(
        update={"quantiles_ms": (2.0,) * 101, "p50_interval_ms": (2.0, 2.0), "p50_ms": 2.0}
    )
    constant = only(sample_profile, one.model_copy(update={"latency": latency}))
    for svg in (charts.latency_distribution(constant), charts.pareto(constant)):
        assert "nan" not in svg and "inf" not in svg


def confused(classes: int, seed: int = 0) -> Scores:
    cells = np.random.default_rng(seed).poisson(0.3, (classes, classes)) + 5 * np.eye(classes, dtype=int)
    share = float(np.trace(cells) / cells.sum())
    return Scores(
        classes=tuple(f"class with a long name {number}" for number in range(classes)),
        clips=int(cells.sum()),
        groups=classes,
        accuracy=share,
        accuracy_interval=(share, share),
        macro_f1=share,
        macro_f1_interval=(share, share),
        recall=(1.0,) * classes,
        confusion=tuple(tuple(int(cell) for cell in line) for line in cells),
        calibration_error=0.1,
    )


@pytest.mark.parametrize(
    ("classes", "counted", "named"), [(2, True, True), (12, True, True), (13, False, True), (50, False, False)]
)
def test_a_confusion_matrix_shades_every_cell_that_has_clips(
    classes: int, counted: bool, named: bool, sample_profile: Profile
) -> None:
    scores = confused(classes)
    svg = charts.confusion(sample_profile.subjects[0].model_copy(update={"scores": scores}))
    shades = [one for one in drawn(svg).iter("rect") if re.fullmatch(r"h[1-6]", one.get("class", ""))]
    assert len(shades) == np.count_nonzero(scores.confusion)
    counts = [int(one.text or 0) for one in drawn(svg).iter("text") if one.get("class", "").startswith("on")]
    assert sum(counts) == (scores.clips if counted else 0)
    assert any("…" in word for word in words(svg)) == named
    sure = [one for one in shades if one.get("class") == "h6"]
    assert all("taken for" in "".join(one.itertext()) for one in sure)


def test_noise_grows_to_the_right_of_the_clip_as_it_is(sample_profile: Profile) -> None:
    svg = charts.robustness_noise(sample_profile)
    assert len(of_class(svg, "curve")) == len(sample_profile.subjects)
    for curve in of_class(svg, "curve"):
        assert len(places(curve)) == 7
        assert (np.diff(places(curve)[:, 0]) > 0).all()
    told = words(svg)
    assert told.index("as it is") < told.index("20") < told.index("\N{MINUS SIGN}5")
    teacher = of_class(svg, "mark")[0]
    assert "".join(teacher.itertext()).startswith("teacher, as it is: 98.8%")


def test_curves_need_not_be_over_the_same_values(sample_profile: Profile) -> None:
    teacher, student = sample_profile.subjects[:2]
    assert student.robustness
    fewer = Robustness(noise=student.robustness.noise[2:3], length=student.robustness.length[:1])
    unscored = student.model_copy(update={"robustness": fewer, "scores": None})
    assert len(of_class(charts.robustness_noise(only(sample_profile, teacher, unscored)), "mark")) == 7 + 1
    assert len(of_class(charts.robustness_length(only(sample_profile, unscored)), "mark")) == 1


def test_lengths_begin_with_the_whole_clip(sample_profile: Profile) -> None:
    teacher = sample_profile.subjects[0]
    assert teacher.robustness and teacher.scores
    shorter = teacher.robustness.model_copy(update={"length": teacher.robustness.length[1:]})
    (points,) = charts.length_curves(only(sample_profile, teacher.model_copy(update={"robustness": shorter}))).values()
    assert [point.value for point in points] == [5.0, 2.5, 1.25, 0.625]
    assert points[0].accuracy == teacher.scores.accuracy
    assert charts.length_curves(only(sample_profile, teacher)) == {0: teacher.robustness.length}


def test_the_slowest_layers_come_first_and_bars_are_as_long_as_they_take(sample_profile: Profile) -> None:
    subject = sample_profile.subject("int8")
    svg = charts.layers(subject, top=4)
    slowest = sorted(subject.layers, key=lambda layer: -layer.ms)[:4]
    bars = [one for one in of_class(svg, "bar") if one.find("title") is not None]
    lengths = [float(bar.attrib["width"]) for bar in bars]
    assert lengths == pytest.approx([layer.ms / slowest[0].ms * WIDTH for layer in slowest], abs=0.1)
    assert [word for word in words(svg) if "/" in word] == [layer.name for layer in slowest]
    assert of_class(svg, "hatch") and not of_class(charts.layers(sample_profile.subject("student")), "hatch")


def test_there_is_no_chart_of_nothing(sample_profile: Profile) -> None:
    none = {"scores": None, "robustness": None, "layers": ()}
    bare = only(sample_profile, sample_profile.subjects[0].model_copy(update=none))
    assert [chart(bare) for chart in ALL] == ["", charts.latency_distribution(bare), "", "", "", ""]
