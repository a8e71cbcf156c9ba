"""What every `core.ports.LocalStore` must do. Subclass and define the fixture ``store``."""

from __future__ import annotations

from core.paths import join
from core.ports import Found, Hashed, LocalStore, Marked
from core.types import BlockList, Hash, Kind, RelPath

ROOT = RelPath(b"")
CONTENT = Hash(b"h" * 32)


def file(path: bytes, *, size: int = 3, mtime_ns: int = 10, ino: int = 7, mode: int = 0o644) -> Found:
    directory, _, name = path.rpartition(b"/")
    return Found(RelPath(directory), name, Kind.FILE, size, mtime_ns, mode, ino)


def folder(path: bytes, *, ino: int = 99) -> Found:
    directory, _, name = path.rpartition(b"/")
    return Found(RelPath(directory), name, Kind.DIR, 0, 5, 0o755, ino)


def hashed(found: Found, content: Hash = CONTENT) -> Hashed:
    return Hashed(join(found.directory, found.name), found.size, found.mtime_ns, found.ino, content, None)


def pending(store: LocalStore) -> set[bytes]:
    return {item.path for item in store.unhashed(None, 100)}


class LocalStoreContract:
    def test_a_new_file_is_known_without_hash(self, store: LocalStore) -> None:
        store.record([folder(b"d"), file(b"d/f")])
        row = store.local_children(RelPath(b"d"))[b"f"]
        assert row == store.local_row(RelPath(b"d/f"))
        assert (row.kind, row.size, row.mtime_ns, row.mode, row.ino) == (Kind.FILE, 3, 10, 0o644, 7)
        assert not row.hashed
        assert pending(store) == {b"d/f"}
        assert store.local_file_count() == 1

    def test_unknown_directories_have_no_children(self, store: LocalStore) -> None:
        assert store.local_children(RelPath(b"no/such")) == {}
        assert store.local_row(RelPath(b"no/such")) is None

    def test_names_of_any_bytes_are_kept(self, store: LocalStore) -> None:
        names = [b"\xff\xfe", b"a\nb", b"c:\\d", b".hidden", b"x" * 255]
        store.record([file(name) for name in names])
        assert set(store.local_children(ROOT)) == set(names)

    def test_a_hash_is_taken_for_the_entry_that_was_read(self, store: LocalStore) -> None:
        store.record([file(b"f")])
        store.hashed([hashed(file(b"f"))])
        row = store.local_row(RelPath(b"f"))
        assert row is not None
        assert row.hashed
        assert pending(store) == set()

    def test_a_hash_of_another_state_is_ignored(self, store: LocalStore) -> None:
        store.record([file(b"f")])
        store.hashed([hashed(file(b"f", mtime_ns=11)), hashed(file(b"f", size=4)), hashed(file(b"f", ino=8))])
        assert pending(store) == {b"f"}

    def test_a_block_list_may_come_with_a_hash(self, store: LocalStore) -> None:
        found = file(b"f", size=300_000)
        store.record([found])
        blocks = BlockList(131072, b"b" * 96)
        store.hashed([hashed(found)._replace(blocks=blocks)])
        assert pending(store) == set()

    def test_changed_content_loses_its_hash(self, store: LocalStore) -> None:
        store.record([file(b"f")])
        store.hashed([hashed(file(b"f"))])
        store.record([file(b"f", mtime_ns=20)])
        assert pending(store) == {b"f"}

    def test_changed_metadata_keeps_the_hash(self, store: LocalStore) -> None:
        store.record([file(b"f")])
        store.hashed([hashed(file(b"f"))])
        store.record([file(b"f", mode=0o600)._replace(same_content=True)])
        row = store.local_row(RelPath(b"f"))
        assert row is not None
        assert row.mode == 0o600
        assert row.hashed

    def test_recording_the_same_again_changes_nothing(self, store: LocalStore) -> None:
        store.record([file(b"f")])
        store.hashed([hashed(file(b"f"))])
        store.record([file(b"f")])
        assert pending(store) == set()

    def test_a_renamed_file_brings_its_hash(self, store: LocalStore) -> None:
        store.record([file(b"old")])
        store.hashed([hashed(file(b"old"))])
        store.record([file(b"new")._replace(hash_from=RelPath(b"old"))])
        store.remove([RelPath(b"old")])
        assert pending(store) == set()
        assert store.local_row(RelPath(b"old")) is None

    def test_a_file_met_before_its_old_name_was_missed_still_gets_the_hash(self, store: LocalStore) -> None:
        store.record([file(b"old")])
        store.hashed([hashed(file(b"old"))])
        store.record([file(b"new")])
        store.record([file(b"new")._replace(hash_from=RelPath(b"old"))])
        assert pending(store) == set()

    def test_a_rename_moves_the_entry(self, store: LocalStore) -> None:
        store.record([file(b"old"), file(b"in the way", ino=9)])
        store.hashed([hashed(file(b"old"))])
        for name in (b"new", b"in the way"):
            before = b"old" if name == b"new" else b"new"
            assert store.renamed(file(name, mode=0o600)._replace(hash_from=RelPath(before)))
            row = store.local_row(RelPath(name))
            assert row is not None
            assert (row.hashed, row.ino, row.mode) == (True, 7, 0o600)
            assert store.local_row(RelPath(before)) is None
        assert set(store.local_children(ROOT)) == {b"in the way"}
        assert store.local_file_count() == 1

    def test_a_rename_moves_what_is_below_a_directory(self, store: LocalStore) -> None:
        store.record([folder(b"d"), folder(b"d/e", ino=98), file(b"d/e/f"), file(b"d/g", ino=8)])
        store.hashed([hashed(file(b"d/e/f"))])
        store.record([folder(b"to", ino=97)])
        assert store.renamed(folder(b"to/n")._replace(hash_from=RelPath(b"d")))
        assert set(store.local_children(ROOT)) == {b"to"}
        assert set(store.local_children(RelPath(b"to/n"))) == {b"e", b"g"}
        row = store.local_row(RelPath(b"to/n/e/f"))
        assert row is not None
        assert row.hashed
        assert store.local_children(RelPath(b"d/e")) == {}
        assert pending(store) == {b"to/n/g"}
        assert store.renamed(folder(b"d")._replace(hash_from=RelPath(b"to/n")))
        assert set(store.local_children(RelPath(b"d/e"))) == {b"f"}
        assert store.local_children(RelPath(b"to/n")) == {}
        assert store.local_file_count() == 2

    def test_a_rename_of_a_listed_directory_moves_what_was_found_there(self, store: LocalStore) -> None:
        store.record([folder(b"d"), file(b"d/same"), file(b"d/other", ino=8), file(b"d/gone", ino=9)])
        store.hashed([hashed(file(b"d/same"))])
        store.record([folder(b"n"), file(b"n/same"), file(b"n/other", ino=80)])
        assert store.renamed(folder(b"n")._replace(hash_from=RelPath(b"d")), listed=True)
        assert set(store.local_children(RelPath(b"d"))) == {b"other", b"gone"}
        assert set(store.left_behind()) == {b"d/other", b"d/gone"}
        store.remove(store.left_behind())
        assert store.left_behind() == []
        found = store.local_children(RelPath(b"n"))
        assert {name: row.ino for name, row in found.items()} == {b"same": 7, b"other": 80}
        assert found[b"same"].hashed

    def test_a_file_that_could_not_be_read_is_hashed_where_it_was_renamed_to(self, store: LocalStore) -> None:
        store.record([file(b"old")])
        store.unreadable([RelPath(b"old")])
        assert store.renamed(file(b"new", mode=0o600)._replace(hash_from=RelPath(b"old")))
        row = store.local_row(RelPath(b"new"))
        assert row is not None
        assert not row.unreadable
        assert pending(store) == {b"new"}

    def test_another_file_is_no_rename(self, store: LocalStore) -> None:
        store.record([file(b"old"), folder(b"d")])
        for other in (file(b"new", ino=8), file(b"new", size=4), file(b"new", mtime_ns=11), folder(b"new")):
            assert not store.renamed(other._replace(hash_from=RelPath(b"old")))
        assert not store.renamed(file(b"new")._replace(hash_from=RelPath(b"unknown")))
        assert not store.renamed(folder(b"new", ino=1)._replace(hash_from=RelPath(b"d")))
        assert set(store.local_children(ROOT)) == {b"old", b"d"}

    def test_another_file_does_not_get_the_hash(self, store: LocalStore) -> None:
        store.record([file(b"old")])
        store.hashed([hashed(file(b"old"))])
        store.record([file(b"new", ino=8)._replace(hash_from=RelPath(b"old"))])
        assert pending(store) == {b"new"}

    def test_removing_a_directory_removes_what_is_below(self, store: LocalStore) -> None:
        store.record([folder(b"d"), file(b"d/f"), folder(b"d/e"), file(b"d/e/g"), file(b"df")])
        store.remove([RelPath(b"d"), RelPath(b"unknown")])
        assert set(store.local_children(ROOT)) == {b"df"}
        assert store.local_children(RelPath(b"d")) == {}
        assert store.local_row(RelPath(b"d/e/g")) is None
        assert store.local_file_count() == 1

    def test_what_was_removed_can_come_back(self, store: LocalStore) -> None:
        store.record([file(b"f")])
        store.remove([RelPath(b"f")])
        store.record([file(b"f", ino=9)])
        assert store.local_file_count() == 1
        assert pending(store) == {b"f"}

    def test_a_path_may_become_another_kind(self, store: LocalStore) -> None:
        store.record([file(b"f")])
        store.remove([RelPath(b"f")])
        store.record([Found(ROOT, b"f", Kind.SYMLINK, 0, 3, 0o777, 4, b"to/there")])
        row = store.local_row(RelPath(b"f"))
        assert row is not None
        assert (row.kind, row.target) == (Kind.SYMLINK, b"to/there")
        assert store.local_file_count() == 0

    def test_an_unreadable_file_keeps_its_entry_and_is_not_offered_for_hashing(
        self, store: LocalStore
    ) -> None:
        store.record([file(b"f")])
        store.unreadable([RelPath(b"f")])
        row = store.local_row(RelPath(b"f"))
        assert row is not None
        assert row.unreadable
        assert pending(store) == set()

    def test_recording_a_file_again_makes_it_readable(self, store: LocalStore) -> None:
        store.record([file(b"f")])
        store.unreadable([RelPath(b"f")])
        store.record([file(b"f")])
        assert pending(store) == {b"f"}

    def test_unhashed_files_come_page_by_page(self, store: LocalStore) -> None:
        store.record([file(b"%d" % number, ino=number) for number in range(10)])
        seen: list[bytes] = []
        cursor: bytes | None = None
        while page := store.unhashed(cursor, 3):
            assert len(page) <= 3
            seen += [item.path for item in page]
            cursor = page[-1].cursor
        assert sorted(seen) == sorted(b"%d" % number for number in range(10))

    def test_marks_are_known_by_the_file_that_has_them(self, store: LocalStore) -> None:
        store.record([folder(b"d", ino=5), file(b"d/f", ino=7), file(b"d/g", ino=8)])
        found = [Marked(RelPath(b"d"), 5, b"keep"), Marked(RelPath(b"d/f"), 7, b"own\n")]
        assert store.marked(found) == []
        assert store.marked([Marked(RelPath(b"d/g"), 99, b"own"), Marked(RelPath(b"no"), 7, b"own")]) == []
        rows = [store.local_row(RelPath(path)) for path in (b"d", b"d/f", b"d/g")]
        assert [row is not None and row.marked for row in rows] == [True, True, False]
        assert store.local_children(RelPath(b"d"))[b"f"].marked
        assert store.marked([Marked(RelPath(b"d/f"), 7, b"")]) == []
        assert not store.local_children(RelPath(b"d"))[b"f"].marked

    def test_an_unknown_mark_is_ignored_and_told(self, store: LocalStore) -> None:
        store.record([file(b"f")])
        assert store.marked([Marked(RelPath(b"f"), 7, b"sometimes"), Marked(ROOT, 1, b"\xff")]) == [b"f", b""]
        row = store.local_row(RelPath(b"f"))
        assert row is not None
        assert not row.marked
        store.marked([Marked(RelPath(b"f"), 7, b"keep"), Marked(RelPath(b"f"), 7, b"junk")])
        row = store.local_row(RelPath(b"f"))
        assert row is not None
        assert row.marked

    def test_the_time_of_the_last_scan_is_remembered(self, store: LocalStore) -> None:
        assert store.scanned_ns() == 0
        store.set_scanned_ns(2**60)
        assert store.scanned_ns() == 2**60

    def test_the_datadir_is_remembered(self, store: LocalStore) -> None:
        assert store.datadir_id() is None
        store.set_datadir_id(3, 2**40)
        assert store.datadir_id() == (3, 2**40)
