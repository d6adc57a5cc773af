"""Answer accuracy, its floors, caption bits per byte, and the intervals beside them."""

import math

import pytest
from scipy import stats

from tessella.metrics.intervals import t_interval, wilson_interval
from tessella.metrics.results import row
from tessella.metrics.understanding import MajorityFloor, answer_accuracy, caption_bits_per_byte

KINDS = ["colour", "colour", "colour", "shape", "shape"]
ANSWERS = ["red", "blue", "red", "ring", "star"]
TRAINING = MajorityFloor(["colour", "colour", "shape", "shape", "shape"], ["blue", "blue", "star", "star", "ring"])


def test_accuracy_by_kind_beside_its_floor() -> None:
    rows = answer_accuracy(KINDS, ANSWERS, [" Red\n", "blue", "green", "RING", "ring"], TRAINING)
    assert rows["und/accuracy"]["value"] == pytest.approx(3 / 5)
    assert rows["und/accuracy/colour"]["value"] == pytest.approx(2 / 3)
    assert rows["und/accuracy/shape"]["value"] == pytest.approx(1 / 2)
    assert rows["und/floor/colour"]["value"] == pytest.approx(1 / 3)  # "blue" everywhere
    assert rows["und/floor/shape"]["value"] == pytest.approx(1 / 2)  # "star" everywhere
    assert rows["und/floor"]["value"] == pytest.approx(2 / 5)
    assert {name: r["n"] for name, r in rows.items() if "accuracy" in name} == {
        "und/accuracy": 5,
        "und/accuracy/colour": 3,
        "und/accuracy/shape": 2,
    }
    assert rows["und/accuracy/colour"]["floor"] == rows["und/floor/colour"]["value"]
    assert rows["und/accuracy"]["interval"] == list(wilson_interval(3, 5))
    assert "training" in rows["und/floor/shape"]["note"]


def test_floor_of_the_split_is_its_best_constant_answer() -> None:
    floor = MajorityFloor(KINDS, ANSWERS, source="split")
    rows = answer_accuracy(KINDS, ANSWERS, ANSWERS, floor)
    assert rows["und/accuracy"]["value"] == 1
    assert rows["und/floor/colour"]["value"] == pytest.approx(2 / 3)
    assert "scored answers" in rows["und/floor"]["note"]


def test_majority_ignores_case_and_order() -> None:
    assert MajorityFloor(["a"] * 3, ["Red ", "red", "blue"]).answer("a") == "red"
    assert MajorityFloor(["a", "a"], ["red", "blue"]).answer("a") == "blue"
    assert MajorityFloor(["a", "a"], ["blue", "red"]).answer("a") == "blue"


def test_a_kind_without_training_questions_has_floor_zero_and_says_so() -> None:
    rows = answer_accuracy(["count"], ["two"], ["two"], TRAINING)
    assert rows["und/floor/count"]["value"] == 0
    assert "no count question" in rows["und/floor/count"]["note"]


def test_misaligned_or_empty_answers_are_named() -> None:
    with pytest.raises(ValueError, match="'predictions': 1"):
        answer_accuracy(KINDS, ANSWERS, ["red"], TRAINING)
    with pytest.raises(ValueError, match="at least one question"):
        answer_accuracy([], [], [], TRAINING)
    with pytest.raises(ValueError, match="at least one question"):
        MajorityFloor([], [])
    with pytest.raises(ValueError, match="'training' or 'split'"):
        MajorityFloor(["a"], ["b"], source="test")  # type: ignore[arg-type]


def test_bits_per_byte_counts_utf8_bytes() -> None:
    scored = caption_bits_per_byte(10 * math.log(2), iter(["né", "ab"]))  # 3 + 2 bytes, 10 bits
    assert scored == {"value": pytest.approx(2.0), "n": 2, "bytes": 5}
    with pytest.raises(ValueError, match="no text"):
        caption_bits_per_byte(1.0, ["", ""])


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (3, 10), (10, 10), (47, 60), (1, 1)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_wilson_interval_matches_scipy(successes: int, n: int, confidence: float) -> None:
    expected = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    low, high = wilson_interval(successes, n, confidence)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= low <= successes / n <= high <= 1


def test_t_interval_matches_scipy() -> None:
    values = [0.91, 0.95, 0.90]
    mean, low, high = t_interval(values)
    assert mean == pytest.approx(sum(values) / 3)
    assert (low, high) == pytest.approx(stats.t.interval(0.95, 2, loc=mean, scale=stats.sem(values)))
    assert t_interval([0.5, 0.5, 0.5]) == (0.5, 0.5, 0.5)


def test_impossible_intervals_are_named() -> None:
    with pytest.raises(ValueError, match="at least 2 values, got 1"):
        t_interval([0.5])
    with pytest.raises(ValueError, match="3 successes out of n=2"):
        wilson_interval(3, 2)
    with pytest.raises(ValueError, match="confidence=95"):
        wilson_interval(1, 2, confidence=95)


def test_rows_hold_finite_numbers_and_only_extras_that_exist() -> None:
    assert row(1, 2, note=None, floor=0.5) == {"value": 1.0, "n": 2, "floor": 0.5}
    with pytest.raises(ValueError, match="came out as nan over n=3"):
        row(float("nan"), 3)
