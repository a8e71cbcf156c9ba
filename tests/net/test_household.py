"""Hosts that find, let in, refuse and lose each other over real sockets."""

from __future__ import annotations

import errno
import logging
import random
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from core.config import PeerConfig
from core.errors import ConfigError, NetError, PathNotFoundError
from core.types import Hash
from net import household as household_module
from net import listener
from net.household import Peers
from net.identity import Identity, short_form
from net.tls import Tls
from tests.net.fakes import DirectoryContent, MemoryHousehold

pytestmark = pytest.mark.trio
ACCEPTED = re.compile(r"accepted peer=(\S+) addr=(\S+:\d+) fingerprint=([a-z]{5}(?:-[a-z]{5}){5})")
REJECTED = re.compile(r"rejected (?:peer=(\S+) )?addr=(\S+:\d+) reason=(.*?)(?: fingerprint=(\S+))?")


@dataclass
class Host:
    peers: Peers
    household: MemoryHousehold
    content: DirectoryContent
    changes: list[tuple[str, str, str]] = field(default_factory=list)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with self.scope:
            await self.peers.run(task_status=task_status)

    def state(self, name: str) -> str:
        return next(row.state for row in self.peers.status() if row.name == name)


def peer(
    name: str, identity: Identity, port: int | None = None, arenas: tuple[str, ...] | None = None
) -> PeerConfig:
    return PeerConfig(name, identity.cert_pem, None if port is None else f"localhost:{port}", arenas)


def host(
    identity: Identity,
    *peers: PeerConfig,
    listen: tuple[str, ...] = ("localhost:0",),
    arenas: str = "docs music",
) -> Host:
    household, content, changes = MemoryHousehold(), DirectoryContent(), []
    made = Peers(
        identity,
        "node",
        arenas.split(),
        peers,
        household,
        content,
        listen=listen,
        on_change=lambda *change: changes.append(change),
        rng=random.Random(1),
    )
    return Host(made, household, content, changes)


@asynccontextmanager
async def running(*hosts: Host) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        for each in hosts:
            await nursery.start(each.run)
        yield
        nursery.cancel_scope.cancel()


@pytest.fixture
def auth(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.INFO, logger="realize.auth")
    return lambda: [r.getMessage() for r in caplog.records if r.name == "realize.auth"]


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not condition():
            await trio.testing.wait_all_tasks_blocked(0.001)


async def test_two_hosts_find_each_other_and_say_so(
    identities: dict[str, Identity], auth: Callable[[], list[str]], tmp_path: Path
) -> None:
    b = host(identities["b"], peer("alice", identities["a"]))
    async with running(b):
        a = host(identities["a"], peer("bob", identities["b"], b.peers.ports[0], ("docs",)), listen=())
        content = a.content.add("docs", tmp_path / "x", b"x")
        async with running(a):
            await a.household.until(1)
            await b.household.until(1)
            link = b.household.links[0]
            assert link.name == "alice"
            assert link.key == identities["a"].key
            assert link.arenas == {"docs"}
            assert await link.have("docs", [content, Hash(bytes(32))]) == [True, False]
            assert a.state("bob") == b.state("alice") == "connected"
            row = a.peers.status()[0]
            assert row.stats is not None
            assert row.arenas == {"docs"}
            assert a.peers.link("bob") is a.household.links[0]
        await b.household.until(0)
        assert b.state("alice") == "disconnected"
        assert b.peers.status()[0].last_seen_ns is not None
        assert "stopping" in b.peers.status()[0].reason
        assert [state for _, state, _ in b.changes] == ["connected", "disconnected"]
        assert [state for _, state, _ in a.changes][:2] == ["connecting", "connected"]
    lines = [ACCEPTED.fullmatch(line) for line in auth()]
    assert {match and (match[1], match[3]) for match in lines} == {
        ("bob", short_form(identities["b"].fingerprint)),
        ("alice", short_form(identities["a"].fingerprint)),
    }
    assert len(lines) == 2


async def test_only_one_connection_stays_when_both_dial(
    identities: dict[str, Identity], auth: Callable[[], list[str]]
) -> None:
    ports = _free_ports(2)
    a = host(identities["a"], peer("bob", identities["b"], ports[1]), listen=(f"127.0.0.1:{ports[0]}",))
    b = host(identities["b"], peer("alice", identities["a"], ports[0]), listen=(f"127.0.0.1:{ports[1]}",))
    async with running(a, b):
        for _ in range(3):
            await a.household.until(1)
            await b.household.until(1)
            a.peers.network_changed()
            b.peers.network_changed()
            await trio.testing.wait_all_tasks_blocked(0.02)
        assert len(a.household.links) == len(b.household.links) == 1
        assert a.state("bob") == b.state("alice") == "connected"
    for log in (a.household.log, b.household.log):
        assert log[::2] == [log[0]] * len(log[::2])
        assert [entry.split()[0] for entry in log] == ["up", "down"] * (len(log) // 2)


@pytest.mark.parametrize("lower_first", [True, False])
async def test_the_connection_dialled_by_the_lower_fingerprint_stays(
    identities: dict[str, Identity], lower_first: bool
) -> None:
    # The order in which the two come up must not matter: in memory it can be chosen.
    a = host(identities["a"], peer("bob", identities["b"]), listen=())
    b = host(identities["b"], peer("alice", identities["a"]), listen=())
    async with running(a, b), trio.open_nursery() as nursery:

        async def connect(a_dials: bool) -> None:
            left, right = trio.testing.memory_stream_pair()
            async with trio.open_nursery() as both:
                both.start_soon(_attach, a, "bob", left, a_dials)
                both.start_soon(_attach, b, "alice", right, not a_dials)

        nursery.start_soon(connect, lower_first)
        await a.household.until(1)
        await b.household.until(1)
        first = a.peers.link("bob")
        nursery.start_soon(connect, not lower_first)
        await trio.testing.wait_all_tasks_blocked(0.02)
        await a.household.until(1)
        await b.household.until(1)
        assert (a.peers.link("bob") is first) == lower_first
        nursery.cancel_scope.cancel()
    expected = ["up", "down"] if lower_first else ["up", "down", "up", "down"]
    assert [entry.split()[0] for entry in a.household.log] == expected
    assert [entry.split()[0] for entry in b.household.log] == expected


async def _attach(which: Host, name: str, stream: trio.abc.Stream, dialled: bool) -> None:
    await which.peers.attach(name, stream, dialled=dialled, address="memory:0")


async def test_a_newer_connection_of_the_same_side_replaces_the_older(
    identities: dict[str, Identity],
) -> None:
    b = host(identities["b"], peer("alice", identities["a"]))
    async with running(b):
        first = host(identities["a"], peer("bob", identities["b"], b.peers.ports[0]), listen=())
        second = host(identities["a"], peer("bob", identities["b"], b.peers.ports[0]), listen=())
        async with running(first):
            await b.household.until(1)
            before = b.household.links[0]
            first.peers.disconnect("bob")
            await b.household.until(0)
            first.peers.connect("bob")
            await b.household.until(1)
            async with running(second):
                await second.household.until(1)
                assert b.household.links != [before]
                await until(lambda: b.household.log.count("up alice") >= 3)


async def test_strangers_are_refused_with_their_fingerprint(
    identities: dict[str, Identity], auth: Callable[[], list[str]]
) -> None:
    b = host(identities["b"], peer("alice", identities["a"]))
    async with running(b):
        c = host(identities["c"], peer("bob", identities["b"], b.peers.ports[0]), listen=())
        async with running(c):
            await until(lambda: "refused" in c.peers.status()[0].reason)
        assert b.household.log == []
        assert c.household.log == []
        lines = [line for line in auth() if "peer=bob" not in line]
        match = REJECTED.fullmatch(lines[0])
        assert match
        assert match[3] == "unknown certificate"
        assert match[4] == short_form(identities["c"].fingerprint)


async def test_the_peer_that_was_dialled_must_be_the_one_meant(
    identities: dict[str, Identity], auth: Callable[[], list[str]]
) -> None:
    b = host(identities["b"], peer("alice", identities["a"]))
    async with running(b):
        # b listens where d is expected; a knows b as well, but did not dial it.
        a = host(
            identities["a"],
            peer("dora", identities["d"], b.peers.ports[0]),
            peer("bob", identities["b"]),
            listen=(),
        )
        async with running(a):
            await until(lambda: "certificate" in a.peers.status()[0].reason)
            assert a.household.log == []
        match = next(filter(None, (REJECTED.fullmatch(line) for line in auth() if "peer=dora" in line)))
        assert match[3] == "unknown certificate"
        assert match[4] == short_form(identities["b"].fingerprint)


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0" * 100,
        b"\x16\x03\x01\xff\xff" + b"x" * 70_000,
        b"\x16\x03\x01\x00\x05hello",
    ],
)
async def test_garbage_is_refused_in_one_line(
    identities: dict[str, Identity], auth: Callable[[], list[str]], garbage: bytes
) -> None:
    b = host(identities["b"], peer("alice", identities["a"]))
    async with running(b):
        stream = await trio.open_tcp_stream("localhost", b.peers.ports[0])
        await stream.send_all(garbage)
        await _drained(stream)
        assert len(auth()) == 1
        assert REJECTED.fullmatch(auth()[0])
        assert b.household.log == []


async def _drained(stream: trio.abc.Stream) -> None:
    try:
        while await stream.receive_some():
            pass
    except (trio.BrokenResourceError, ssl.SSLError):
        return


async def test_older_tls_is_refused(identities: dict[str, Identity], auth: Callable[[], list[str]]) -> None:
    b = host(identities["b"], peer("alice", identities["a"]))
    async with running(b):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        stream = trio.SSLStream(await trio.open_tcp_stream("localhost", b.peers.ports[0]), context)
        with pytest.raises(trio.BrokenResourceError):
            await stream.do_handshake()
        await until(lambda: len(auth()) == 1)
        assert "unsupported protocol" in auth()[0]


async def test_who_shows_no_certificate_is_refused(
    identities: dict[str, Identity], auth: Callable[[], list[str]]
) -> None:
    b = host(identities["b"], peer("alice", identities["a"]))
    async with running(b):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        stream = trio.SSLStream(await trio.open_tcp_stream("localhost", b.peers.ports[0]), context)
        await stream.do_handshake()
        await _drained(stream)
        assert len(auth()) == 1
        match = REJECTED.fullmatch(auth()[0])
        assert match
        assert match[4] is None


async def test_silence_and_slow_handshakes_end_at_the_deadline_and_delay_nobody(
    identities: dict[str, Identity], auth: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(household_module, "GREETING_S", 0.5)
    b = host(identities["b"], peer("alice", identities["a"]))
    async with running(b):
        port = b.peers.ports[0]
        silent = await trio.open_tcp_stream("localhost", port)
        slow = await trio.open_tcp_stream("localhost", port)
        await slow.send_all(b"\x16\x03\x01")
        # Authenticated, but never says hello.
        tls = Tls(identities["a"], {"bob": identities["b"].certificate})
        mute = await tls.connect(await trio.open_tcp_stream("localhost", port), "bob")
        a = host(identities["a"], peer("bob", identities["b"], port), listen=())
        async with running(a):
            await a.household.until(1)
            assert auth()[0].startswith("accepted")
            for stream in (silent, slow):
                await _drained(stream)
            await _drained(mute)
            await until(lambda: len(auth()) == 5)
            assert sum("no handshake in time" in line for line in auth()) == 2
            assert sum("no hello in time" in line for line in auth()) == 1


async def test_unauthenticated_connections_are_limited_per_address(
    identities: dict[str, Identity], auth: Callable[[], list[str]]
) -> None:
    b = host(identities["b"], peer("alice", identities["a"]), listen=("127.0.0.1:0",))
    async with running(b):
        streams = [
            await trio.open_tcp_stream("127.0.0.1", b.peers.ports[0])
            for _ in range(listener.UNAUTHENTICATED_PER_ADDRESS)
        ]
        await trio.testing.wait_all_tasks_blocked(0.01)
        extra = await trio.open_tcp_stream("127.0.0.1", b.peers.ports[0])
        await _drained(extra)
        assert [REJECTED.fullmatch(line)[3] for line in auth()] == [  # type: ignore[index]
            "too many unauthenticated connections from this address"
        ]
        for stream in streams:
            await stream.aclose()
        a = host(identities["a"], peer("bob", identities["b"], b.peers.ports[0]), listen=())
        async with running(a):
            await a.household.until(1)


async def test_errors_of_accept_back_off_and_go_on(
    identities: dict[str, Identity], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = [errno.EMFILE, errno.EMFILE, errno.ECONNABORTED]
    with trio.socket.socket() as unused:
        kind = type(unused)
    real = kind.accept

    async def accept(sock: trio.socket.SocketType) -> tuple[trio.socket.SocketType, object]:
        if failures:
            raise OSError(failures.pop(0), "injected")
        return await real(sock)

    b = host(identities["b"], peer("alice", identities["a"]), listen=("127.0.0.1:0",))
    monkeypatch.setattr(kind, "accept", accept)
    async with running(b):
        a = host(identities["a"], peer("bob", identities["b"], b.peers.ports[0]), listen=())
        async with running(a):
            await a.household.until(1)
    assert [r.getMessage() for r in caplog.records if r.name == "realize.net.listener"] == [
        "cannot accept connections: injected; trying again"
    ]


async def test_disconnect_closes_both_ways_and_refuses_until_connect(
    identities: dict[str, Identity], auth: Callable[[], list[str]]
) -> None:
    b = host(identities["b"], peer("alice", identities["a"]))
    async with running(b):
        a = host(identities["a"], peer("bob", identities["b"], b.peers.ports[0]), listen=())
        async with running(a):
            await b.household.until(1)
            b.peers.disconnect("alice")
            await a.household.until(0)
            await b.household.until(0)
            assert b.state("alice") == "disabled"
            await until(lambda: any("disabled" in line for line in auth()))
            assert b.household.log == ["up alice", "down alice"]
            b.peers.connect("alice")
            a.peers.connect("bob")
            await a.household.until(1)
            await b.household.until(1)
            a.peers.disconnect("bob")
            await b.household.until(0)
            assert a.state("bob") == "disabled"
            assert a.peers.link("bob") is None
        with pytest.raises(PathNotFoundError) as caught:
            a.peers.connect("nobody")
        assert "bob" in caught.value.hint


async def test_peers_that_start_disabled_are_neither_dialled_nor_let_in(
    identities: dict[str, Identity],
) -> None:
    b = host(identities["b"], peer("alice", identities["a"]))
    async with running(b):
        config = peer("bob", identities["b"], b.peers.ports[0])
        a = Peers(
            identities["a"],
            "a",
            ["docs"],
            [config],
            MemoryHousehold(),
            DirectoryContent(),
            disabled=["bob", "x"],
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(a.run)
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert b.household.log == []
            assert a.status()[0].state == "disabled"
            a.connect("bob")
            await b.household.until(1)
            nursery.cancel_scope.cancel()


async def test_a_changed_config_is_taken_over(identities: dict[str, Identity]) -> None:
    b = host(identities["b"], peer("alice", identities["a"]))
    async with running(b):
        port = b.peers.ports[0]
        a = host(identities["a"], listen=())
        async with running(a):
            a.peers.update(["docs", "music"], [peer("bob", identities["b"], port)])
            await a.household.until(1)
            kept = a.household.links[0]
            a.peers.update(
                ["docs", "music"], [peer("bob", identities["b"], port), peer("carl", identities["c"])]
            )
            assert a.peers.link("bob") is kept
            assert [row.name for row in a.peers.status()] == ["bob", "carl"]
            b.peers.update(["docs"], [peer("alice", identities["a"])])
            await until(lambda: [link.arenas for link in a.household.links] == [{"docs"}])
            with pytest.raises(ConfigError):
                a.peers.update(["docs"], [PeerConfig("bad", "garbage")])
            assert [row.name for row in a.peers.status()] == ["bob", "carl"]
            a.peers.update(["docs"], [])
            await b.household.until(0)
            assert a.peers.status() == []


async def test_all_addresses_of_a_name_are_bound_on_one_port(identities: dict[str, Identity]) -> None:
    sockets = await listener.open_sockets("localhost:0")
    try:
        families = {sock.family for sock in sockets}
        found = {family for family, *_ in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
        assert families <= found
        assert len({sock.getsockname()[1] for sock in sockets}) == 1
        port = sockets[0].getsockname()[1]
        with pytest.raises(NetError, match="cannot listen on") as caught:
            await listener.open_sockets(f"localhost:{port}")
        assert "another program" in caught.value.hint
    finally:
        for sock in sockets:
            sock.close()
    with pytest.raises(ConfigError):
        await listener.open_sockets("localhost")
    with pytest.raises(NetError):
        await listener.open_sockets("no-such-host.invalid:1")


@pytest.mark.skipif(not socket.has_ipv6, reason="this Python has no IPv6")
async def test_an_ipv6_address_in_brackets_is_listened_on_and_dialled(
    identities: dict[str, Identity],
) -> None:
    b = host(identities["b"], peer("alice", identities["a"]), listen=("[::1]:0",))
    async with running(b):
        config = PeerConfig("bob", identities["b"].cert_pem, f"[::1]:{b.peers.ports[0]}")
        a = host(identities["a"], config, listen=())
        async with running(a):
            await a.household.until(1)


async def test_a_peer_that_is_not_there_is_tried_until_it_is(
    identities: dict[str, Identity], auth: Callable[[], list[str]]
) -> None:
    port = _free_ports(1)[0]
    a = host(identities["a"], peer("bob", identities["b"], port), listen=())
    async with running(a):
        await until(lambda: "cannot reach" in a.peers.status()[0].reason)
        assert a.state("bob") == "disconnected"
        b = host(identities["b"], peer("alice", identities["a"]), listen=(f"localhost:{port}",))
        async with running(b):
            await a.household.until(1)
            assert a.peers.status()[0].reason == ""
    assert sum("cannot reach" in line for line in auth()) == 1


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(sock.getsockname()[1]) for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports
