"""Who a host is: an Ed25519 key in a self-signed certificate, and its fingerprint.

The certificate is only a carrier of the key: names and dates in it mean nothing. The fingerprint is the
SHA-256 of the public key (SubjectPublicKeyInfo, DER); its first 8 bytes are the `PeerKey`.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import NameOID

from core.errors import ConfigError
from core.types import PEER_KEY_BYTES, PeerKey

_CONSONANTS = "bdfghjklmnprstvz"
_VOWELS = "aiou"
_SHORT_GROUPS = 6
"""LIMIT: groups of 16 bits in the short form; 96 bits are out of reach of a search for a twin."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A peer's certificate. ``pem`` is only the certificate, re-encoded; ``der`` what TLS carries."""

    pem: str
    der: bytes
    fingerprint: bytes

    @property
    def key(self) -> PeerKey:
        """The peer's key in version vectors."""
        return peer_key(self.fingerprint)


@dataclass(frozen=True, slots=True)
class Identity:
    """This host's own certificate and private key, both PEM."""

    certificate: Certificate
    key_pem: bytes = field(repr=False)

    @property
    def key(self) -> PeerKey:
        """This host's key in version vectors."""
        return self.certificate.key

    @property
    def cert_pem(self) -> str:
        """The certificate to give to peers."""
        return self.certificate.pem

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the public key."""
        return self.certificate.fingerprint


def peer_key(fingerprint: bytes) -> PeerKey:
    """Return the key in version vectors that belongs to a fingerprint."""
    return PeerKey(fingerprint[:PEER_KEY_BYTES])


def short_form(fingerprint: bytes) -> str:
    """Return the first 96 bits of a fingerprint as six pronounceable groups of letters.

    Each group is 16 bits as consonant-vowel-consonant-vowel-consonant, after D. Wilkerson,
    *A Proposal for Proquints: Identifiers that are Readable, Spellable, and Pronounceable* (2009).
    """
    words = []
    for at in range(0, 2 * _SHORT_GROUPS, 2):
        value = int.from_bytes(fingerprint[at : at + 2], "big")
        head = _CONSONANTS[value >> 12] + _VOWELS[value >> 10 & 3] + _CONSONANTS[value >> 6 & 15]
        words.append(head + _VOWELS[value >> 4 & 3] + _CONSONANTS[value & 15])
    return "-".join(words)


def create(path: Path) -> Identity:
    """Make a new identity and write it to ``path``, mode 0600.

    Raises:
        ConfigError: the file exists already, or cannot be written.
    """
    private = ed25519.Ed25519PrivateKey.generate()
    certificate = _self_signed(private)
    key_pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    cert_pem = certificate.public_bytes(serialization.Encoding.PEM)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(key_pem + cert_pem)
            file.flush()
            os.fsync(descriptor)
    except FileExistsError as error:
        raise ConfigError([f"{path}: exists already"], hint="an identity is never overwritten") from error
    except OSError as error:
        raise ConfigError([f"{path}: cannot be written: {error.strerror}"]) from error
    return Identity(_describe(certificate), key_pem)


def _self_signed(private: ed25519.Ed25519PrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "realize")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        # RFC 5280 §4.1.2.5: the last date stands for "no well-defined expiration".
        .not_valid_before(datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC))
        .not_valid_after(datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(private, None)
    )


def load(path: Path) -> Identity:
    """Read the identity that `create` wrote.

    Raises:
        ConfigError: the file is missing, readable by others, or not an Ed25519 key with its certificate.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read()
    except FileNotFoundError as error:
        raise ConfigError([f"{path}: no such file"], hint="`realize init` makes one") from error
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from error
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigError(
            [f"{path}: mode {stat.S_IMODE(mode):04o} lets other users read the private key"],
            hint=f"chmod 600 {path}",
        )
    return _parse_identity(path, data)


def _parse_identity(path: Path, data: bytes) -> Identity:
    try:
        private = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError([f"{path}: holds no usable private key"]) from error
    certificate = parse_certificate(data.decode("ascii", "replace"), source=str(path))
    if not isinstance(private, ed25519.Ed25519PrivateKey):
        raise ConfigError([f"{path}: the private key is not an Ed25519 key"])
    if _fingerprint(private.public_key()) != certificate.fingerprint:
        raise ConfigError([f"{path}: the certificate is not that of the private key"])
    key_pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Identity(certificate, key_pem)


def parse_certificate(pem: str, *, source: str) -> Certificate:
    """Return the certificate in ``pem``; other PEM blocks around it are ignored.

    Args:
        pem: what the config holds for a peer.
        source: what to call it in the error (a file, or the peer).

    Raises:
        ConfigError: it is not exactly one certificate with an Ed25519 key.
    """
    hint = "`realize id` on that host prints its certificate"
    try:
        found = x509.load_pem_x509_certificates(pem.encode("ascii"))
        if len(found) != 1:
            raise ConfigError([f"{source}: {len(found)} certificates instead of one"], hint=hint)
        return _describe(found[0])
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError([f"{source}: not a certificate in PEM form"], hint=hint) from error
    except TypeError as error:
        raise ConfigError([f"{source}: {error}"], hint=hint) from error


def _describe(certificate: x509.Certificate) -> Certificate:
    public = certificate.public_key()
    if not isinstance(public, ed25519.Ed25519PublicKey):
        raise TypeError("the certificate does not hold an Ed25519 key")
    return Certificate(
        certificate.public_bytes(serialization.Encoding.PEM).decode("ascii"),
        certificate.public_bytes(serialization.Encoding.DER),
        _fingerprint(public),
    )


def _fingerprint(public: ed25519.Ed25519PublicKey) -> bytes:
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).digest()


def fingerprint_of_der(der: bytes) -> bytes | None:
    """Return the fingerprint of a certificate from outside; None when it is not one."""
    try:
        return _describe(x509.load_der_x509_certificate(der)).fingerprint
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
