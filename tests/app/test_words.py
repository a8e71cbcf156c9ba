import pytest

from app.words import ago, counted, glyph, human_bytes, human_duration, human_rate, label, word
from core.types import FileState


def test_the_states_look_as_the_specification_says() -> None:
    assert [label(state) for state in FileState] == [
        "○ online",
        "◐ partial",
        "● cached",
        "✔ kept",
        "■ real",
        "↓ fetching",
        "⚠ conflict",
        "✖ unavailable",
        "⏳ only here",
    ]


def test_every_state_has_a_glyph_and_a_word_of_its_own() -> None:
    assert len({glyph(state) for state in FileState}) == len(FileState)
    assert len({word(state) for state in FileState}) == len(FileState)


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 K"),
        (1024, "1.0 K"),
        (1536, "1.5 K"),
        (10 * 1024, "10.0 K"),
        (101 * 1024, "101 K"),
        (999 * 1024, "999 K"),
        (1023 * 1024, "1.0 M"),
        (5 << 30, "5.0 G"),
        (3 << 40, "3.0 T"),
        (1 << 62, "4.0 E"),
        (-1536, "-1.5 K"),
    ],
)
def test_sizes_have_at_most_three_digits(n: int, text: str) -> None:
    assert human_bytes(n) == text


def test_rates_are_sizes_a_second() -> None:
    assert human_rate(3.2 * 1024 * 1024) == "3.2 M/s"
    assert human_rate(0.3) == "0 B/s"


@pytest.mark.parametrize(
    ("s", "text"),
    [
        (0, "0 s"),
        (0.3, "0.3 s"),
        (1, "1 s"),
        (9.96, "10 s"),
        (59.6, "1 m 00 s"),
        (245, "4 m 05 s"),
        (7800, "2 h 10 m"),
        (273600, "3 d 4 h"),
        (-5, "-5 s"),
    ],
)
def test_durations_have_their_two_largest_units(s: float, text: str) -> None:
    assert human_duration(s) == text


def test_times_are_told_from_now() -> None:
    second = 1_000_000_000
    assert ago(0, 12 * second) == "12 s ago"
    assert ago(0, second // 2) == "now"
    assert ago(5 * second, 0) == "in 5 s"


def test_a_noun_follows_its_number() -> None:
    assert [counted(n, "file") for n in (0, 1, 2)] == ["0 files", "1 file", "2 files"]
