"""The panes and keys as a person uses them, at three sizes of terminal."""

from __future__ import annotations

import pytest

from app.tui.actions import PANES
from core.api import ArenaPath
from core.events import ConflictChanged, JobChanged, PeerChanged, Warned
from core.types import Mark
from tests.app.tui.conftest import SIZES, Opener, Screen
from tests.fakes import household
from tests.fakes.api import FakeFile, FakeJob

pytestmark = pytest.mark.asyncio
at_each_size = pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")


@at_each_size
async def test_each_number_brings_its_pane_with_the_keys(dashboard: Opener, size: tuple[int, int]) -> None:
    async with dashboard(household.sample(), size) as screen:
        for number, pane in enumerate(PANES, 1):
            await screen.press(str(number))
            assert screen.app.front == pane
            assert screen.app.focused is screen.app.panes[pane].table
            assert screen.app.panes[pane].region.height > 3
        shown = [pane for pane in screen.app.panes.values() if pane.region.height]
        assert len(shown) == (5 if size[0] == 200 else 1)


@at_each_size
async def test_nothing_is_wider_than_the_terminal_and_the_bars_stay(
    dashboard: Opener, size: tuple[int, int]
) -> None:
    async with dashboard(household.sample(), size) as screen:
        for number in "12345":
            await screen.press(number)
            assert len(screen.lines) == size[1]
            assert "peers up" in screen.lines[0] or "2/4" in screen.lines[0]
            assert "help" in screen.lines[-1]
            assert "quit" in screen.lines[-1]


@at_each_size
async def test_the_tree_opens_and_closes(dashboard: Opener, size: tuple[int, int]) -> None:
    async with dashboard(household.sample(), size) as screen:
        assert screen.has("docs", "photos", "music")
        assert not screen.has("README.md")
        await screen.press("enter")
        assert screen.has("README.md", "contracts")
        await screen.press("down", "down", "down", "right")
        assert screen.has("insurance.pdf")
        await screen.press("right")
        await screen.press("left")
        assert screen.has("insurance.pdf"), "left on a file goes to its directory"
        await screen.press("left")
        assert not screen.has("insurance.pdf")
        await screen.press("left", "enter")
        assert not screen.has("README.md")


async def test_states_have_glyph_and_word_and_marks_say_where_they_come_from(dashboard: Opener) -> None:
    async with dashboard(household.sample(), (140, 40)) as screen:
        await screen.press("z", "enter")
        assert screen.has("■  real", "⚠  conflict", "◐  partial", "own", "watch", "server")


async def test_what_names_hold_is_never_obeyed(dashboard: Opener) -> None:
    async with dashboard(household.sample(), (140, 40)) as screen:
        await screen.press("z", "enter", "down", "down", "down", "enter")
        assert screen.has("[bold red]not markup[b].txt")
        await screen.press("left", "down", "enter")
        assert screen.has("bad\\xffname\\x1b[2J\\u202e.txt", "日本語のファイル名.txt")
        assert "\x1b" not in screen.text
        assert "\u202e" not in screen.text
        await screen.press("2")
        assert screen.has("old-\\x1b[31m")
        await screen.press("down", "down", "down", "enter")
        assert screen.has("192.168.1.40:9771", "old-\\x1b[31mlaptop")


@at_each_size
async def test_filter_finds_anywhere_in_the_arena_and_esc_leaves(
    dashboard: Opener, size: tuple[int, int]
) -> None:
    async with dashboard(household.sample(), size) as screen:
        await screen.press("down", "slash")
        await screen.type("wdfilm")
        assert screen.has("film.mov", "1 found") or screen.has("film.mov")
        assert not screen.has("README.md")
        await screen.press("enter", "enter")
        assert screen.app.arenas.targets() == (ArenaPath("photos", b"2024/wedding/film.mov"),)
        assert screen.app.arenas.source.found is None
        await screen.press("slash")
        await screen.type("zzzz")
        assert screen.has("Nothing matches")
        await screen.press("escape")
        assert screen.has("film.mov")
        assert screen.app.focused is screen.app.arenas.table


async def test_an_older_search_is_given_up_for_a_newer_one(dashboard: Opener) -> None:
    async with dashboard(household.sample()) as screen:
        await screen.press("slash")
        await screen.type("lease")
        assert screen.api.calls["search"] == 1
        assert screen.has("lease.pdf")


async def test_marks_are_set_on_a_selection_and_undone(dashboard: Opener) -> None:
    async with dashboard(household.sample()) as screen:
        await screen.press("enter", "down", "space", "space")
        assert screen.has("2 selected")
        await screen.press("o")
        paths = [ArenaPath("docs", b"README.md"), ArenaPath("docs", b"budget 2025.ods")]
        assert [screen.api.marks.get(path) for path in paths] == [Mark.OWN, Mark.OWN]
        assert not screen.has("2 selected")
        assert any("2 paths" in toast for toast in screen.toasts)
        await screen.press("ctrl+z")
        assert [screen.api.marks.get(path) for path in paths] == [None, None]
        await screen.press("ctrl+z")
        assert any("no change of a mark to undo" in toast for toast in screen.toasts)


async def test_a_mark_that_moves_more_than_a_gibibyte_asks_and_no_is_the_default(dashboard: Opener) -> None:
    async with dashboard(household.sample()) as screen:
        before = dict(screen.api.marks)
        await screen.press("down", "k")
        assert screen.has("Mark photos keep?", "to fetch", "No", "Yes, do it")
        await screen.press("enter")
        assert screen.api.marks == before
        for answer in ("escape", "n"):
            await screen.press("k", answer)
            assert screen.api.marks == before
        await screen.press("k", "y")
        assert screen.api.marks == before | {ArenaPath("photos"): Mark.KEEP}


@at_each_size
async def test_marks_pane_sets_unsets_and_sorts(dashboard: Opener, size: tuple[int, int]) -> None:
    async with dashboard(household.sample(), size) as screen:
        await screen.press("4")
        assert screen.has("lease.pdf", "keep")
        await screen.press("w")
        assert screen.api.marks[ArenaPath("docs", b"contracts/lease.pdf")] == Mark.WATCH
        await screen.press("u")
        assert ArenaPath("docs", b"contracts/lease.pdf") not in screen.api.marks
        await screen.until(lambda: not screen.has("lease.pdf ") or screen.app.settled)
        await screen.press("s", "s", "s", "S")
        assert (screen.app.marks.sort, screen.app.marks.reverse) == ("held", True)


async def test_unset_says_why_when_the_mark_is_inherited(dashboard: Opener) -> None:
    async with dashboard(household.sample()) as screen:
        await screen.press("enter", "down", "u")
        assert any("inherited" in toast for toast in screen.toasts)
        assert screen.api.calls["mark_apply"] == 0


@at_each_size
async def test_peers_connect_and_disconnect(dashboard: Opener, size: tuple[int, int]) -> None:
    async with dashboard(household.sample(), size) as screen:
        await screen.press("2", "c")
        assert any("server is connected" in toast for toast in screen.toasts)
        assert screen.api.calls["peer_connect"] == 0
        await screen.press("d")
        assert str(screen.api.peer_list[0].state) == "disabled"
        await screen.press("c")
        assert str(screen.api.peer_list[0].state) == "connecting"
        await screen.press("y")
        assert screen.app.clipboard == screen.api.peer_list[0].fingerprint
        await screen.press("enter")
        assert screen.has("fingerprint")
        await screen.press("escape")
        assert len(screen.app.screen_stack) == 1


@at_each_size
async def test_churten_starts_stops_and_retries(dashboard: Opener, size: tuple[int, int]) -> None:
    async with dashboard(household.sample(), size) as screen:
        await screen.press("3")
        source = screen.app.churten.table.source
        shown = str([source.row(index) for index in range(source.count())])
        assert all(word in shown for word in ("film.mov", "return.pdf", "waits", "failed", "music"))
        await screen.press("s")
        assert any("churten runs already" in toast for toast in screen.toasts)
        await screen.press("x")
        assert not screen.api.running
        assert screen.has("stopped")
        await screen.press("s")
        assert screen.api.running
        await screen.press("r")
        assert any("can be retried" in toast for toast in screen.toasts)
        await screen.press("end", "r")
        assert all(job.state != "failed" for job in screen.api.job_list)


async def test_a_transfer_is_followed_until_it_has_ended(dashboard: Opener) -> None:
    async with dashboard(household.sample(), (140, 40)) as screen:
        await screen.press("3")
        assert screen.has("film.mov", "38%")
        await screen.engine(lambda api: api.tick(120))
        assert screen.has("film.mov", "60%")
        await screen.engine(lambda api: api.tick(3600))
        assert screen.api.job_list
        await screen.until(lambda: "film.mov" not in screen.text.split("5 Activity")[0])
        assert any("film.mov" in line.text for line in screen.app.activity.journal.lines)


async def test_each_waiting_job_is_the_one_that_is_asked_about(dashboard: Opener) -> None:
    api = household.sample()
    api.job_list.clear()
    for number in range(3):
        api.add("docs", b"wait%d" % number, FakeFile(5))
        api.job_list.append(
            FakeJob(0, ArenaPath("docs", b"wait%d" % number), "download", "waiting", 0, 5, reason="no room")
        )
    async with dashboard(api) as screen:
        assert screen.has("3 waiting")
        await screen.press("3", "end", "up", "i")
        assert screen.has("Why docs/wait1")


async def test_enter_on_a_job_shows_it_in_the_tree_and_i_says_why(dashboard: Opener) -> None:
    async with dashboard(household.sample()) as screen:
        await screen.press("3", "down", "down", "enter")
        assert screen.app.front == "arenas"
        assert screen.app.arenas.targets() == (ArenaPath("photos", b"2024/wedding/film.mov"),)
        await screen.press("i")
        assert screen.has("Why photos/2024/wedding/film.mov", "a read would")
        await screen.press("escape")
        assert len(screen.app.screen_stack) == 1


@at_each_size
async def test_activity_has_conflicts_first_and_is_filtered(dashboard: Opener, size: tuple[int, int]) -> None:
    async with dashboard(household.sample(), size) as screen:
        await screen.press("5")
        await screen.engine(
            lambda api: api.bus.emit(Warned(arena="docs", text="disk nearly full", hint="make room"))
        )
        await screen.engine(
            lambda api: api.bus.emit(
                ConflictChanged(arena="docs", path=b"budget 2025.ods", peers=("server",))
            )
        )
        rows = screen.app.activity.table
        assert "budget" in str(rows.source.row(0))
        assert "disk nearly full" in str(rows.source.row(2))
        await screen.press("slash")
        await screen.type("disk")
        assert rows.source.count() == 1
        await screen.press("escape")
        assert rows.source.count() == 3
        await screen.engine(
            lambda api: api.bus.emit(
                ConflictChanged(arena="docs", path=b"budget 2025.ods", peers=("server",), resolved=True)
            )
        )
        assert ArenaPath("docs", b"budget 2025.ods") not in screen.app.activity.journal.conflicts


@at_each_size
async def test_held_deletions_are_shown_and_confirmed(dashboard: Opener, size: tuple[int, int]) -> None:
    api = household.sample()
    api.held_deletes["docs"] = 250
    async with dashboard(api, size) as screen:
        assert screen.has("250 held")
        await screen.press("5")
        rows = screen.app.activity.table
        assert "docs: 250 deletions" in str(rows.source.row(0))
        await screen.press("D")
        assert screen.has("Delete 250 files")
        await screen.press("enter")
        assert "arena_confirm_deletes" not in api.calls, "No is the default"
        await screen.press("D", "y")
        await screen.until(lambda: screen.has("docs: 250 files deleted"))
        await screen.until(lambda: "250 deletions" not in str(rows.source.row(0)))
        await screen.press("D")
        assert api.calls["arena_confirm_deletes"] == 1


async def test_toasts_are_kept_in_the_activity_pane(dashboard: Opener) -> None:
    async with dashboard(household.sample()) as screen:
        await screen.press("2", "d", "5")
        assert screen.has("server is disconnected")


async def test_a_failure_says_what_why_and_what_next(dashboard: Opener) -> None:
    from core.errors import StoreError

    api = household.sample()
    api.failing["churten_stop"] = StoreError("the database is locked", hint="stop the other daemon")
    async with dashboard(api) as screen:
        await screen.press("3", "x")
        assert any(
            "stopping churten failed" in t and "locked" in t and "stop the other daemon" in t
            for t in screen.toasts
        )


async def test_a_bug_in_a_call_leaves_the_dashboard_standing(dashboard: Opener) -> None:
    api = household.sample()
    api.failing["churten_stop"] = ZeroDivisionError("oops")
    async with dashboard(api) as screen:
        await screen.press("3", "x")
        assert any("internal error" in toast for toast in screen.toasts)
        await screen.press("1", "enter")
        assert screen.has("README.md")


async def test_the_ui_goes_on_while_the_engine_does_not_answer(dashboard: Opener) -> None:
    import trio

    api = household.sample()
    async with dashboard(api) as screen:
        gate = trio.Event()
        api.held_up["listdir"] = gate
        await screen.pilot.press("enter")
        await screen.pilot.pause()
        assert screen.has("loading …")
        await screen.pilot.press("2")
        await screen.pilot.press("question_mark")
        await screen.pilot.pause()
        assert screen.has("Keys and words")
        await screen.pilot.press("escape")
        await screen.engine(lambda _: gate.set())
        assert screen.has("README.md")


async def test_an_engine_that_ends_is_said_and_not_a_crash(dashboard: Opener) -> None:
    async with dashboard(household.sample()) as screen:
        screen.loop.stop()
        await screen.until(lambda: screen.app.status_bar.problem)
        await screen.pilot.pause()
        assert screen.has("the daemon is gone")
        await screen.pilot.press("down", "enter", "3", "x")
        await screen.pilot.pause()
        await screen.pilot.press("q", "y")
        await screen.until(lambda: screen.app.return_code is not None)


@at_each_size
async def test_zoom_and_escape(dashboard: Opener, size: tuple[int, int]) -> None:
    async with dashboard(household.sample(), size) as screen:
        await screen.press("4", "z")
        assert [p for p, pane in screen.app.panes.items() if pane.region.height] == ["marks"]
        await screen.press("2")
        assert [p for p, pane in screen.app.panes.items() if pane.region.height] == ["connections"]
        await screen.press("escape")
        assert not screen.app.zoomed


@at_each_size
async def test_help_lists_every_key_and_word(dashboard: Opener, size: tuple[int, int]) -> None:
    from app.tui.actions import COMMANDS
    from app.tui.screens.help import help_text

    async with dashboard(household.sample(), size) as screen:
        await screen.press("question_mark")
        assert screen.has("Keys and words")
        await screen.press("pagedown", "escape")
        assert len(screen.app.screen_stack) == 1
    text = help_text("arenas").plain
    assert all(command.help in text for command in COMMANDS)
    assert "⏳ only here" in text


async def _choose(screen: Screen) -> None:
    """Press enter until the palette is left: the first may only highlight what is found."""
    while len(screen.app.screen_stack) > 1:
        await screen.press("enter")


async def test_palette_finds_commands_peers_and_files(dashboard: Opener) -> None:
    async with dashboard(household.sample()) as screen:
        await screen.press("ctrl+p")
        await screen.type("insur")
        await screen.until(lambda: screen.has("docs/contracts/insurance.pdf"))
        await _choose(screen)
        await screen.until(
            lambda: screen.app.arenas.targets() == (ArenaPath("docs", b"contracts/insurance.pdf"),)
        )
        await screen.press("ctrl+p")
        await screen.type("peer nas")
        await screen.until(lambda: screen.text.count("go there") == 1)
        await _choose(screen)
        await screen.until(
            lambda: screen.app.front == "connections" and screen.app.connections.table.cursor == 1
        )
        await screen.press("ctrl+p")
        await screen.type("checkpoint and stop")
        await screen.until(lambda: screen.has("Churten: Checkpoint"))
        await _choose(screen)
        await screen.until(lambda: not screen.api.running)


async def test_quit_asks_when_work_exists_only_here(dashboard: Opener) -> None:
    async with dashboard(household.sample()) as screen:
        await screen.press("q")
        assert screen.has("1 file only here", "Quit anyway")
        await screen.press("enter")
        assert screen.app.return_code is None
        await screen.press("q")
        await screen.pilot.press("y")
        await screen.until(lambda: screen.app.return_code == 0)


async def test_quit_of_an_attached_dashboard_only_leaves(dashboard: Opener) -> None:
    async with dashboard(household.sample(), attached=True) as screen:
        assert screen.has("laptop (attached)")
        await screen.pilot.press("q")
        await screen.until(lambda: screen.app.return_code == 0)


@at_each_size
async def test_a_new_household_is_told_what_to_do(dashboard: Opener, size: tuple[int, int]) -> None:
    async with dashboard(household.empty(), size) as screen:
        for number, words in zip(
            "12345",
            (
                "realize arena add",
                "realize peer add",
                "Nothing to do",
                "No explicit mark",
                "Nothing has happened",
            ),
            strict=True,
        ):
            await screen.press(number)
            assert screen.has(words)
        assert screen.app.focused is screen.app.activity.table


async def test_what_changes_in_the_engine_appears_by_itself(dashboard: Opener) -> None:
    async with dashboard(household.sample()) as screen:
        await screen.press("enter")

        def add(api: object) -> None:
            screen.api.add("docs", b"AAA new.txt", FakeFile(5, holders=("server",)))
            screen.api.changed("docs", b"AAA new.txt")

        await screen.engine(add)
        assert screen.has("AAA new.txt")

        def remove(api: object) -> None:
            screen.api.remove("docs", b"AAA new.txt")
            screen.api.changed("docs", b"AAA new.txt")

        await screen.engine(remove)
        assert not screen.has("AAA new.txt")
        await screen.engine(
            lambda api: api.bus.emit(PeerChanged(peer="nas", state="disconnected", reason="timeout"))
        )
        assert any("nas is disconnected" in line.text for line in screen.app.activity.journal.lines)


async def test_a_storm_of_events_is_a_few_updates(dashboard: Opener) -> None:
    async with dashboard(household.sample()) as screen:
        calls = screen.api.calls["jobs"]

        def storm(api: object) -> None:
            for job in range(5_000):
                screen.api.bus.emit(
                    JobChanged(job=job, arena="docs", path=b"d/%d" % job, action="download", phase="finished")
                )

        await screen.engine(storm)
        assert screen.api.calls["jobs"] - calls <= 3
        assert len(screen.app.activity.journal.lines) < 100


async def test_nothing_is_drawn_while_nothing_changes(dashboard: Opener) -> None:
    async with dashboard(household.empty()) as screen:
        drawn: list[object] = []
        original = screen.app._display
        screen.app._display = lambda *args: (drawn.append(args), original(*args))  # type: ignore[method-assign,assignment,func-returns-value]
        for _ in range(3):
            screen.app.feed.read_all()
            await screen.settle()
        assert not drawn


async def test_the_mouse_chooses_rows_tabs_headers_and_keys(dashboard: Opener) -> None:
    async with dashboard(household.sample(), (80, 24)) as screen:
        table = screen.app.arenas.table
        await screen.pilot.click(table, offset=(4, 2))
        assert table.cursor == 1
        await screen.pilot.click(table, offset=(4, 2), times=2)
        await screen.settle()
        assert screen.has("portrait.raw")
        await screen.pilot.click(table, offset=(1, 0))
        await screen.settle()
        assert (screen.app.arenas.sort, screen.app.arenas.reverse) == ("name", True)
        await screen.pilot.click(screen.app.tabs, offset=(14, 0))
        await screen.settle()
        assert screen.app.front == "connections"
        await screen.pilot.click(screen.app.key_bar, offset=(2, 0))
        await screen.settle()
        assert any("server is connected" in toast for toast in screen.toasts)


async def test_focus_order_and_theme_are_remembered(dashboard: Opener) -> None:
    async with dashboard(household.sample()) as screen:
        await screen.press("T", "s", "4", "z")
        theme = screen.app.theme
    async with dashboard(household.sample()) as screen:
        assert (screen.app.front, screen.app.zoomed, screen.app.theme) == ("marks", True, theme)
        assert screen.app.arenas.sort == "size"


async def test_tab_goes_round_the_panes(dashboard: Opener) -> None:
    async with dashboard(household.sample(), (80, 24)) as screen:
        for pane in (*PANES[1:], PANES[0]):
            await screen.press("tab")
            assert screen.app.front == pane
        await screen.press("shift+tab")
        assert screen.app.front == PANES[-1]


async def test_keys_can_be_remapped(dashboard: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    async with dashboard(household.sample()) as screen:
        screen.app.set_keymap({"churten.stop": "ctrl+x"})
        await screen.press("3", "x")
        assert screen.api.running
        await screen.press("ctrl+x")
        assert not screen.api.running


async def test_get_fetches_and_says_what_could_not_be(dashboard: Opener) -> None:
    async with dashboard(household.sample()) as screen:
        await screen.press("enter", "down", "down", "down", "g")
        await screen.until(lambda: any("fetched docs/contracts" in toast for toast in screen.toasts))
        await screen.press("down", "down", "g")
        await screen.until(lambda: any("no connected peer holds it" in toast for toast in screen.toasts))


async def test_verify_says_what_it_found(dashboard: Opener) -> None:
    async with dashboard(household.sample()) as screen:
        await screen.press("v")
        await screen.until(lambda: any("as they should be" in toast for toast in screen.toasts))
        screen.api.damaged[ArenaPath("docs", b"README.md")] = "no connected peer holds it"
        await screen.press("v")
        await screen.until(lambda: any("should be: docs/README.md" in toast for toast in screen.toasts))


@pytest.mark.parametrize(
    "theme", ["realize", "realize-light", "high-contrast", "colour-blind-safe", "ansi-dark"]
)
async def test_every_theme_draws(dashboard: Opener, theme: str) -> None:
    async with dashboard(household.sample()) as screen:
        screen.app.theme = theme
        await screen.settle()
        assert screen.has("docs", "film.mov")


async def test_a_signal_leaves_without_asking(dashboard: Opener) -> None:
    async with dashboard(household.sample()) as screen:
        screen.app.request_stop()
        await screen.until(lambda: screen.app.return_code == 0)
