"""Cells are cut to the width there is, never wider, never losing what matters most."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from app.tui.cells import (
    GAP,
    Bar,
    Cell,
    Column,
    Fill,
    Row,
    Spark,
    Text,
    draw,
    draw_row,
    fit_columns,
    text,
)

texts = st.text(alphabet=st.sampled_from("ab/ …日本ｗ⏳é"), max_size=40)
spans = st.lists(st.tuples(texts, st.sampled_from(["", "dim"])), min_size=1, max_size=3).map(tuple)
cells: st.SearchStrategy[Cell] = st.one_of(
    st.builds(Text, spans, st.booleans()),
    st.builds(Bar, st.one_of(st.none(), st.floats(-1, 2))),
    st.builds(Spark, st.lists(st.floats(0, 1e12), max_size=80).map(tuple)),
    st.builds(Fill, st.floats(-1, 2), st.builds(Text, spans)),
)


def shown(cell: Cell, width: int, align: str = "left") -> str:
    return "".join(part for part, _ in draw(cell, width, align))


@given(cells, st.integers(0, 60), st.sampled_from(["left", "right"]))
def test_a_cell_is_exactly_as_wide_as_its_column(cell: Cell, width: int, align: str) -> None:
    assert cell_len(shown(cell, width, align)) == width


@given(
    st.lists(
        st.builds(
            Column, st.just("k"), st.just("t"), st.integers(1, 30), st.integers(0, 9), st.integers(0, 3)
        ),
        min_size=1,
        max_size=9,
    ),
    st.integers(1, 200),
)
def test_columns_never_take_more_than_there_is(columns: list[Column], width: int) -> None:
    layout = fit_columns(columns, width)
    assert layout
    assert sum(w for _, w in layout) + GAP * (len(layout) - 1) <= width
    if any(columns[i].flex for i, _ in layout):
        assert sum(w for _, w in layout) + GAP * (len(layout) - 1) == width


def test_columns_with_the_greatest_rank_go_first() -> None:
    columns = [Column("a", "", 10, rank=0, flex=1), Column("b", "", 5, rank=2), Column("c", "", 5, rank=1)]
    assert [i for i, _ in fit_columns(columns, 24)] == [0, 1, 2]
    assert [i for i, _ in fit_columns(columns, 20)] == [0, 2]
    assert fit_columns(columns, 12) == ((0, 12),)


@pytest.mark.parametrize(
    ("cell", "width", "expected"),
    [
        (text("hello"), 8, "hello   "),
        (text("hello world"), 8, "hello w…"),
        (Text((("photos/2024/", ""), ("film.mov", "")), path=True), 14, "…2024/film.mov"),
        (Text((("photos/", ""), ("a very long name.mov", "")), path=True), 12, "a very…e.mov"),
        (Text((("↓ ", ""), ("photos/", ""), ("film.mov", "")), path=True, lead=1), 12, "↓ …/film.mov"),
        (Bar(0.5), 15, "━━━━━─────  50%"),
        (Bar(0.0), 15, "──────────   0%"),
        (Bar(1.0), 15, "━━━━━━━━━━ 100%"),
        (Spark((0.0, 1.0, 8.0)), 5, "   ▁█"),
    ],
)
def test_what_is_drawn(cell: Cell, width: int, expected: str) -> None:
    assert shown(cell, width) == expected


def test_a_fill_marks_its_part_of_the_text() -> None:
    assert draw(Fill(0.5, text("abcd")), 4) == (("ab", "|fill"), ("cd", ""))


def test_a_wide_cell_takes_the_rest_of_the_row() -> None:
    columns = [Column(key, "", 4) for key in "abc"]
    row = Row(1, (text("x"), Text((("because of it", ""),), wide=True), text("never")))
    drawn = ["".join(part for part, _ in cell) for cell in draw_row(row, fit_columns(columns, 16), columns)]
    assert drawn == ["x   ", "because o…"]
