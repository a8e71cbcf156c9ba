"""TLS 1.3 over a socket, both sides pinned to configured certificates.

`Tls` makes the contexts and checks who arrived; `TlsStream` moves bytes. The standard `ssl` is driven
through memory buffers: 256 KiB of ciphertext per system call, decrypted straight into the memory
that `net.frames` lends, which moves about twice what `trio.SSLStream` does.

Foreign exceptions (`ssl`, `OSError`, trio's) become `NetError` here.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable, Mapping, Sequence

import trio

from core.errors import AuthError, DisconnectedError, RemoteProtocolError
from net.identity import Certificate, Identity, fingerprint_of_der

_CIPHERTEXT_BYTES = 256 * 1024
_JOINED_BYTES = 16 * 1024
"""Pieces up to a TLS record are joined before encryption: a record costs more than a copy."""
_MAX_UNSENT = 64 * 1024
"""LIMIT: answers of TLS itself (key updates) that a peer can make us keep."""
_CERTIFICATE_MESSAGE = 11


class PeerRejectedError(AuthError):
    """The other side is not a peer. ``fingerprint`` is that of its certificate, if one arrived."""

    def __init__(self, message: str, *, fingerprint: bytes | None = None, hint: str = "") -> None:
        """Make the error; the message is the reason of the ``realize.auth`` line."""
        super().__init__(message, hint=hint)
        self.fingerprint = fingerprint


class TlsStream(trio.abc.Stream):
    """A TLS stream over a connected socket. One task may receive while another sends."""

    def __init__(self, stream: trio.SocketStream, context: ssl.SSLContext, *, server_side: bool) -> None:
        """Wrap ``stream``; nothing is sent before `handshake`."""
        self._stream = stream
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side)
        self._ciphertext = memoryview(bytearray(_CIPHERTEXT_BYTES))
        self._ended = False

    @property
    def peer_der(self) -> bytes:
        """The certificate of the other side, after the handshake."""
        return self._ssl.getpeercert(binary_form=True) or b""

    async def handshake(self) -> None:
        """Authenticate both sides, as far as trust anchors go.

        Raises:
            PeerRejectedError: the other side has no certificate that is trusted, or refused ours.
            DisconnectedError: the connection ended.
        """
        while True:
            try:
                self._ssl.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except ssl.SSLError as error:
                await self._flush()  # The alert tells the other side why.
                untrusted = isinstance(error, ssl.SSLCertVerificationError)
                reason = "unknown certificate" if untrusted else f"handshake failed: {_reason(error)}"
                raise PeerRejectedError(reason) from error
            else:
                await self._flush()
                return

    async def _flush(self) -> None:
        data = self._outgoing.read()
        if data:
            await self._send(data)

    async def _send(self, data: bytes) -> None:
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            raise DisconnectedError(f"connection lost: {_cause(error)}") from error

    async def _fill(self) -> None:
        try:
            count = await self._stream.socket.recv_into(self._ciphertext)
        except (trio.ClosedResourceError, OSError) as error:
            raise DisconnectedError(f"connection lost: {_cause(error)}") from error
        if count:
            self._incoming.write(self._ciphertext[:count])
        else:
            self._incoming.write_eof()

    async def receive_into(self, buffer: memoryview) -> int:
        """Receive at least one byte into ``buffer``, as many as are there; 0 at the end of the stream.

        Raises:
            DisconnectedError: the connection broke.
            AuthError: the other side refused our certificate.
            RemoteProtocolError: what came is not TLS.
        """
        filled = self._decrypt(buffer)
        if filled or self._ended:
            await trio.lowlevel.checkpoint()
        while not filled and not self._ended:
            await self._fill()
            filled = self._decrypt(buffer)
        return filled

    def _decrypt(self, buffer: memoryview) -> int:
        filled, read, size = 0, self._ssl.read, len(buffer)
        try:
            while filled < size and not self._ended:
                count = read(size - filled, buffer[filled:])
                self._ended = not count
                filled += count  # type: ignore[operator]  # a number, since a buffer is given
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLEOFError:
            self._ended = True  # LIMIT: no close_notify is asked for; frames say where they end.
        except ssl.SSLError as error:
            raise _translated(error) from error
        if self._outgoing.pending > _MAX_UNSENT:
            raise RemoteProtocolError("too many key updates")
        return filled

    async def send_parts(self, parts: Sequence[bytes | memoryview]) -> None:
        """Send ``parts`` one after the other.

        Raises:
            DisconnectedError: the connection broke.
        """
        small: list[bytes | memoryview] = []
        pending = 0
        for part in parts:
            if pending + len(part) > _JOINED_BYTES:
                self._encrypt(b"".join(small))
                small, pending = [], 0
            if len(part) > _JOINED_BYTES:
                self._encrypt(part)
            else:
                small.append(part)
                pending += len(part)
        self._encrypt(b"".join(small))
        await self._send(self._outgoing.read())

    def _encrypt(self, data: bytes | memoryview) -> None:
        if not data:
            return
        try:
            self._ssl.write(data)
        except ssl.SSLError as error:
            raise _translated(error) from error

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive some bytes, ``b""`` at the end; for users that have no buffer of their own."""
        buffer = memoryview(bytearray(max_bytes or 65536))
        return bytes(buffer[: await self.receive_into(buffer)])

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of ``data``."""
        await self.send_parts([memoryview(data)])

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the socket takes more."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the socket."""
        await self._stream.aclose()


def _translated(error: ssl.SSLError) -> AuthError | RemoteProtocolError:
    reason = _reason(error)
    if "ALERT" in (error.reason or ""):
        return AuthError(
            f"the peer refused the connection: {reason}", hint="its config must hold this host's certificate"
        )
    return RemoteProtocolError(f"TLS failed: {reason}")


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or type(error).__name__).lower().replace("_", " ")


def _cause(error: BaseException) -> str:
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    return getattr(cause, "strerror", None) or str(cause) or "closed"


class Tls:
    """Who this host is and who its peers are. Replace it when the config changes."""

    def __init__(self, identity: Identity, peers: Mapping[str, Certificate]) -> None:
        """Keep an identity and the certificates of the peers by name."""
        self._identity = identity
        self._names = {certificate.der: name for name, certificate in peers.items()}
        self._peers = dict(peers)

    def _context(self, protocol: ssl._SSLMethod, anchors: Iterable[Certificate]) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        _load_identity(context, self._identity)
        for certificate in anchors:
            context.load_verify_locations(cadata=certificate.pem)
        return context

    async def accept(self, stream: trio.SocketStream) -> tuple[TlsStream, str]:
        """Let a client in; returns the stream and the name of the peer.

        Raises:
            PeerRejectedError: it is none of the peers.
            DisconnectedError: it went away.
        """
        context = self._context(ssl.PROTOCOL_TLS_SERVER, self._peers.values())
        context.num_tickets = 0
        tls = await _shaken(stream, context, server_side=True)
        name = self._names.get(tls.peer_der)
        if name is None:
            raise PeerRejectedError("unknown certificate", fingerprint=fingerprint_of_der(tls.peer_der))
        return tls, name

    async def connect(self, stream: trio.SocketStream, name: str) -> TlsStream:
        """Authenticate to the peer ``name`` over a connected socket.

        The peer may still refuse us: TLS 1.3 tells a client at its first read.

        Raises:
            PeerRejectedError: the other side is not that peer.
            DisconnectedError: it went away.
        """
        meant = self._peers[name]
        context = self._context(ssl.PROTOCOL_TLS_CLIENT, [meant])
        tls = await _shaken(stream, context, server_side=False)
        if tls.peer_der != meant.der:
            raise PeerRejectedError("another certificate", fingerprint=fingerprint_of_der(tls.peer_der))
        return tls


async def _shaken(stream: trio.SocketStream, context: ssl.SSLContext, *, server_side: bool) -> TlsStream:
    """Do the handshake, and learn the certificate of who is refused.

    `ssl` keeps no certificate that is not trusted; its hook for messages is the only way to see it. The
    hook would cost a tenth of the speed of the connection, so every connection has a context of its own, and
    drops it after the handshake. A Python that has no such hook leaves the fingerprint out of the log line.
    """
    arrived = b""

    def on_message(
        connection: ssl.SSLObject,
        direction: str,
        version: object,
        content: object,
        message: object,
        data: bytes,
    ) -> None:
        nonlocal arrived
        if direction == "read" and message == _CERTIFICATE_MESSAGE:
            arrived = _first_certificate(data)

    if hasattr(context, "_msg_callback"):
        context._msg_callback = on_message
    tls = TlsStream(stream, context, server_side=server_side)
    try:
        await tls.handshake()
    except PeerRejectedError as error:
        error.fingerprint = fingerprint_of_der(arrived) if arrived else None
        raise
    finally:
        if hasattr(context, "_msg_callback"):
            context._msg_callback = None
    return tls


def _load_identity(context: ssl.SSLContext, identity: Identity) -> None:
    # `ssl` reads keys from files only; this one is never on a disk.
    descriptor = os.memfd_create("identity", os.MFD_CLOEXEC)
    with open(descriptor, "wb") as file:
        file.write(identity.key_pem + identity.cert_pem.encode("ascii"))
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")


def _first_certificate(message: bytes) -> bytes:
    """Return the first certificate in a TLS 1.3 Certificate message (RFC 8446 §4.4.2), ``b""`` if none."""
    at = 4
    at += 1 + message[at] if len(message) > at else 0
    at += 3
    length = int.from_bytes(message[at : at + 3], "big")
    return message[at + 3 : at + 3 + length]
