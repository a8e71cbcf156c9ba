"""Sample households for the fake `Api`: what the dashboard's tests, its runner and its screenshots show."""

from __future__ import annotations

from core.api import ArenaPath, PeerStatus
from core.types import Kind, Mark
from tests.fakes.api import FakeApi, FakeFile, FakeJob

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
START_NS = 1_760_000_000_000_000_000
"""The frozen clock: 2025-10-09 08:53:20 UTC."""

_DAY_NS = 86_400 * 1_000_000_000


def _peer(name: str, state: str, **fields: object) -> PeerStatus:
    values: dict[str, object] = {
        "name": name, "state": state, "address": f"{name}.local:9771", "rtt_ms": None, "rx_bytes": 0,
        "tx_bytes": 0, "rx_rate": 0.0, "tx_rate": 0.0, "arenas": (),
        "fingerprint": "kilo-" + "-".join(name[:1] + c for c in "abcdef"),
    }  # fmt: skip
    return PeerStatus(**(values | fields))  # type: ignore[arg-type]


def peers() -> list[PeerStatus]:
    """One peer in each state, one of them with a hostile name."""
    return [
        _peer("server", "connected", rtt_ms=1.8, rx_bytes=7 * GIB, tx_bytes=312 * MIB, rx_rate=11.4 * MIB,
              tx_rate=220.0 * KIB, arenas=("docs", "photos", "music"), last_seen_ns=START_NS),
        _peer("nas", "connected", rtt_ms=0.6, rx_bytes=41 * GIB, tx_bytes=2 * GIB, rx_rate=3.1 * MIB,
              arenas=("photos", "music"), last_seen_ns=START_NS),
        _peer("phone", "disconnected", address=None, reason="deaf peer: it connects when it is awake",
              arenas=("photos",), last_seen_ns=START_NS - 3 * 3600 * 1_000_000_000),
        _peer("old-\x1b[31mlaptop", "disabled", address="192.168.1.40:9771",
              reason="disabled here", arenas=("docs",), last_seen_ns=START_NS - 40 * _DAY_NS),
    ]  # fmt: skip


def _tree(api: FakeApi, arena: str, files: dict[str, FakeFile]) -> None:
    for path, file in files.items():
        api.add(arena, path.encode("utf-8", "surrogateescape"), file)


def _docs() -> dict[str, FakeFile]:
    server, both = ("server",), ("nas", "server")
    return {
        "README.md": FakeFile(4 * KIB, real=True, holders=server),
        "budget 2025.ods": FakeFile(182 * KIB, real=True, holders=server, conflict=True),
        "contracts/lease.pdf": FakeFile(2 * MIB, held=2 * MIB, holders=both),
        "contracts/insurance.pdf": FakeFile(3 * MIB + 412 * KIB, holders=both),
        "contracts/[bold red]not markup[b].txt": FakeFile(312, holders=server),
        "drafts/novel.md": FakeFile(740 * KIB, real=True),
        "drafts/日本語のファイル名.txt": FakeFile(12 * KIB, real=True, holders=server),
        "drafts/bad\udcffname\x1b[2J\u202e.txt": FakeFile(1 * KIB, holders=server),
        "drafts/latest.md": FakeFile(0, kind=Kind.SYMLINK, target=b"novel.md", real=True, holders=server),
        "taxes/2024/return.pdf": FakeFile(5 * MIB, holders=()),
        "taxes/2023/return.pdf": FakeFile(4 * MIB, held=4 * MIB, holders=server),
    }


def _photos() -> dict[str, FakeFile]:
    files: dict[str, FakeFile] = {}
    for year in (2022, 2023, 2024):
        for n in range(1, 25):
            size = (3 + n * 7 % 9) * MIB + n * 1013
            held = size if n % 4 == 0 else size // 3 if n % 5 == 0 else 0
            holders = ("nas", "server") if n % 3 else ("nas",)
            files[f"{year}/summer/IMG_{n:04}.jpg"] = FakeFile(size, held=held, holders=holders)
    files["2024/wedding/film.mov"] = FakeFile(6 * GIB, held=2 * GIB + 300 * MIB, holders=("nas",))
    files["2024/wedding/speech.mov"] = FakeFile(1 * GIB + 700 * MIB, holders=("nas", "server"))
    files["portrait.raw"] = FakeFile(48 * MIB, real=True, holders=("nas",))
    return files


def _music() -> dict[str, FakeFile]:
    return {
        f"{artist}/{album}/{n:02} - {title}.flac": FakeFile(
            (22 + n * 5 % 13) * MIB,
            held=(22 + n * 5 % 13) * MIB if artist < "M" else 0,
            holders=("nas", "server"),
        )
        for artist, album in (("Ella Fitzgerald", "Mack the Knife"), ("Nina Simone", "Pastel Blues"))
        for n, title in enumerate(
            ("Be My Husband", "Nobody Knows You", "End of the Line", "Trouble in Mind"), 1
        )
    }


def sample() -> FakeApi:
    """A household with something in every state, in the middle of its work."""
    api = FakeApi("laptop", START_NS)
    api.add_arena("docs", cache_max=2 * GIB)
    api.add_arena("photos", cache_max=40 * GIB)
    api.add_arena("music", mark=Mark.WATCH, cache_max=10 * GIB)
    _tree(api, "docs", _docs())
    _tree(api, "photos", _photos())
    _tree(api, "music", _music())
    api.peer_list = peers()
    api.marks = {
        ArenaPath("docs", b"drafts"): Mark.OWN,
        ArenaPath("docs", b"contracts/lease.pdf"): Mark.KEEP,
        ArenaPath("music", b"Ella Fitzgerald"): Mark.KEEP,
        ArenaPath("photos", b"2024/wedding"): Mark.KEEP,
    }
    film, speech = (
        ArenaPath("photos", b"2024/wedding/film.mov"),
        ArenaPath("photos", b"2024/wedding/speech.mov"),
    )
    api.job_list = [
        FakeJob(1, film, "download", "active", 2 * GIB + 300 * MIB, 6 * GIB, rate=11.4 * MIB, peers=("nas",)),
        FakeJob(2, speech, "download", "active", 120 * MIB, GIB + 700 * MIB, rate=3.1 * MIB,
                peers=("server",)),
        FakeJob(3, ArenaPath("docs", b"contracts/lease.pdf"), "verify", "active", MIB, 2 * MIB),
        FakeJob(4, ArenaPath("photos", b"2023/summer"), "download", "queued", 0, 130 * MIB, files=17),
        FakeJob(5, ArenaPath("docs", b"drafts/bad\xffname\x1b[2J\xe2\x80\xae.txt"), "realize",
                "queued", 0, KIB),
        FakeJob(6, ArenaPath("docs", b"taxes/2024/return.pdf"), "download", "waiting", 0, 5 * MIB,
                reason="no connected peer holds it", retry_s=42.0),
        FakeJob(7, ArenaPath("docs", b"budget 2025.ods"), "realize", "failed", 0, 182 * KIB,
                reason="the disk is full: 12.0 K free", retry_s=300.0),
    ]  # fmt: skip
    api.hash_progress = ("music", 1_240, 5_000, 30 * GIB, 110 * GIB, 95.0)
    return api


def empty() -> FakeApi:
    """A household of a new user: no arena, no peer."""
    return FakeApi("laptop", START_NS)


def big(files: int = 100_000, flat: int = 12_000) -> FakeApi:
    """An arena with ``files`` files, ``flat`` of them in one directory."""
    api = FakeApi("laptop", START_NS)
    api.add_arena("big", cache_max=10 * GIB)
    for n in range(flat):
        api.add("big", b"flat/file-%06d.dat" % n, FakeFile(1000 + n, holders=("server",)))
    for n in range(files - flat):
        path = b"deep/%02d/%02d/file-%05d.dat" % (n % 40, n // 40 % 30, n)
        api.add("big", path, FakeFile(1000 + n, held=1000 + n if n % 3 == 0 else 0, holders=("server",)))
    api.peer_list = [_peer("server", "connected", rtt_ms=1.8, arenas=("big",), last_seen_ns=START_NS)]
    return api
