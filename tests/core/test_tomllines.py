import tomllib

import tomlkit
from hypothesis import given, settings
from hypothesis import strategies as st

from core.tomllines import Place, line_numbers

DOCUMENT = '''\
# a comment = [[with]] {signs}
top.dotted = 1
"quoted.key" = """ # no comment
[not.a.table]
"quoted" \\""" text"""" # a comment
[node]
listen = [
  "a:1", # , ]
  'b:2',
]
[[arena]]
name = 'x'  # '
disk_usage = { max = "50%", leave = "1G" }

[[arena]]
name = "y\\""
[arena.sub]
z = 2020-01-01T00:00:00
[[arena.sub.rows]]
a = 1
[[arena.sub.rows]]
a = 2
[[peer]]
inline = [{a=1, b=[2,
3]}, {}]
last = true'''


def test_every_place_has_the_line_it_is_written_on() -> None:
    assert tomllib.loads(DOCUMENT)
    lines = line_numbers(DOCUMENT)
    expected: dict[Place, int] = {
        ("top",): 2,
        ("top", "dotted"): 2,
        ("quoted.key",): 3,
        ("node",): 6,
        ("node", "listen"): 7,
        ("node", "listen", 0): 8,
        ("node", "listen", 1): 9,
        ("arena", 0): 11,
        ("arena", 0, "name"): 12,
        ("arena", 0, "disk_usage", "leave"): 13,
        ("arena", 1): 15,
        ("arena", 1, "name"): 16,
        ("arena", 1, "sub"): 17,
        ("arena", 1, "sub", "z"): 18,
        ("arena", 1, "sub", "rows", 0, "a"): 20,
        ("arena", 1, "sub", "rows", 1, "a"): 22,
        ("peer", 0, "inline", 0, "b", 0): 24,
        ("peer", 0, "inline", 0, "b", 1): 25,
        ("peer", 0, "inline", 1): 25,
        ("peer", 0, "last"): 26,
    }
    assert {place: lines[place] for place in expected} == expected


def test_windows_line_ends_count_once() -> None:
    assert line_numbers('a = 1\r\nb = """x\r\ny"""\r\nc = 2\r\n')[("c",)] == 4


VALUES = st.recursive(
    st.booleans() | st.integers(-9, 9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.text(max_size=4), VALUES, max_size=4))
def test_every_value_of_any_document_has_a_line(data: dict[str, object]) -> None:
    text = tomlkit.dumps(data)
    lines = line_numbers(text)
    count = text.count("\n") + 1

    def check(place: Place, value: object) -> None:
        if place:
            assert 1 <= lines[place] <= count
        if isinstance(value, dict):
            for key, inner in value.items():
                check((*place, key), inner)
        elif isinstance(value, list):
            for index, inner in enumerate(value):
                check((*place, index), inner)

    check((), tomllib.loads(text))
