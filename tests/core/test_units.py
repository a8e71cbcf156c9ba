import pytest

from core.units import parse_duration, parse_rate, parse_share, parse_size


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0),
        (5, 5),
        ("5", 5),
        ("7b", 7),
        ("1K", 1024),
        ("2 kb", 2048),
        ("3m", 3 << 20),
        ("1.5G", 3 << 29),
        ("1.5gB", 3 << 29),
        (" 2TB ", 2 << 40),
        ("0.5K", 512),
        (str(2**62), 2**62),
    ],
)
def test_sizes_are_powers_of_1024_in_any_case(value: object, expected: int) -> None:
    assert parse_size(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        "",
        "K",
        "1.5.5G",
        "-1",
        "1P",
        "1KiB",
        "1e3",
        "٣",
        "50%",
        -1,
        True,
        1.5,
        [],
        {},
        2**63,
        "9" * 400,
        "9" * 5000,
    ],
)
def test_what_is_no_size_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"size|large"):
        parse_size(value)


@pytest.mark.parametrize(("value", "expected"), [("50%", 0.5), ("0%", 0.0), ("12.5 %", 0.125), ("100%", 1.0)])
def test_shares_are_percentages(value: str, expected: float) -> None:
    assert parse_share(value) == expected


@pytest.mark.parametrize("value", ["101%", "%", "-1%", "50", "50%%", ""])
def test_what_is_no_share_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match=r"share|100%"):
        parse_share(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("500ms", 0.5),
        ("3s", 3),
        ("5m", 300),
        ("1h", 3600),
        (2, 2),
        (0.25, 0.25),
        ("7", 7),
        ("1.5 S", 1.5),
        (0, 0),
    ],
)
def test_durations_are_seconds(value: object, expected: float) -> None:
    assert parse_duration(value) == pytest.approx(expected)


@pytest.mark.parametrize("value", ["", "3x", "-1s", -1, float("inf"), float("nan"), True, "1d", [], "s"])
def test_what_is_no_duration_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(value)


def test_a_rate_is_a_size_above_zero() -> None:
    assert parse_rate("512K") == 512 << 10
    with pytest.raises(ValueError, match="a rate of 0"):
        parse_rate(0)
    with pytest.raises(ValueError, match="not a rate"):
        parse_rate("fast")
