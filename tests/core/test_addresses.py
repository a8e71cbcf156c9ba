import pytest

from core.addresses import parse_address


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("localhost:9771", ("localhost", 9771)),
        ("server.local:1", ("server.local", 1)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        ("[::1]:9771", ("::1", 9771)),
        ("[fe80::1%eth0]:65535", ("fe80::1%eth0", 65535)),
    ],
)
def test_host_and_port_are_told_apart(text: str, expected: tuple[str, int]) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("localhost", "port is missing"),
        ("[::1]", "port is missing"),
        ("::1:9771", "needs brackets"),
        (":9771", "host is missing"),
        ("h:http", "not a port"),
        ("h:", "not a port"),
        ("h:-1", "not a port"),
        ("h:²", "not a port"),
        ("h:65536", "above 65535"),
        ("h:" + "9" * 5000, "above 65535"),
        ("[localhost]:1", "not an IPv6 address"),
        ("a b:1", "not a host"),
        ("a\n:1", "not a host"),
        ("http://h:1", "needs brackets"),
        ("", "port is missing"),
    ],
)
def test_other_text_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_address(text)
