from __future__ import annotations

import hashlib
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from core.errors import ConfigError
from net import identity
from net.identity import Identity, parse_certificate, short_form


def test_an_identity_is_read_as_it_was_made(tmp_path: Path) -> None:
    path = tmp_path / "identity.pem"
    made = identity.create(path)
    assert identity.load(path) == made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    certificate = x509.load_pem_x509_certificate(made.cert_pem.encode())
    spki = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert made.fingerprint == hashlib.sha256(spki).digest()
    assert made.key == made.fingerprint[:8]
    assert certificate.not_valid_after_utc.year == 9999


def test_an_identity_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "identity.pem"
    path.write_bytes(b"precious")
    with pytest.raises(ConfigError, match="exists already"):
        identity.create(path)
    assert path.read_bytes() == b"precious"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "identity.pem"
    identity.create(path)
    path.chmod(mode)
    with pytest.raises(ConfigError, match="lets other users read") as caught:
        identity.load(path)
    assert "chmod 600" in caught.value.hint


def test_what_is_no_identity_is_named(tmp_path: Path) -> None:
    path = tmp_path / "identity.pem"
    with pytest.raises(ConfigError, match="no such file"):
        identity.load(path)
    one, other = identity.create(tmp_path / "1"), identity.create(tmp_path / "2")
    ec_key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for data, match in (
        (b"", "no usable private key"),
        (b"\xff\xfe garbage", "no usable private key"),
        (one.key_pem, "not a certificate"),
        (one.key_pem + other.cert_pem.encode(), "not that of the private key"),
        (ec_key + one.cert_pem.encode(), "not an Ed25519 key"),
    ):
        path.write_bytes(data)
        path.chmod(0o600)
        with pytest.raises(ConfigError, match=match):
            identity.load(path)


def test_a_certificate_from_a_config_is_read_with_what_surrounds_it(identities: dict[str, Identity]) -> None:
    pem = identities["a"].cert_pem
    assert parse_certificate(f"copied from a:\n{pem}\n", source="peer a") == identities["a"].certificate


def test_certificates_that_are_none_are_named(identities: dict[str, Identity]) -> None:
    pem = identities["a"].cert_pem
    damaged = pem.replace(pem[100:110], "A" * 10)
    for text in (
        "",
        "nonsense ä",
        damaged,
        pem[:-40],
        "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----",
    ):
        with pytest.raises(ConfigError, match="peer bob: not a certificate"):
            parse_certificate(text, source="peer bob")
    with pytest.raises(ConfigError, match="2 certificates"):
        parse_certificate(pem + identities["b"].cert_pem, source="peer bob")


def test_keys_of_another_kind_are_refused() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    ours = x509.load_pem_x509_certificate(_ed25519_certificate())
    other = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(ours.not_valid_before_utc)
        .not_valid_after(ours.not_valid_after_utc)
        .sign(ed25519.Ed25519PrivateKey.generate(), None)
    )
    pem = other.public_bytes(serialization.Encoding.PEM).decode()
    with pytest.raises(ConfigError, match="does not hold an Ed25519 key"):
        parse_certificate(pem, source="peer bob")
    assert identity.fingerprint_of_der(other.public_bytes(serialization.Encoding.DER)) is None
    assert identity.fingerprint_of_der(b"garbage") is None


def _ed25519_certificate() -> bytes:
    private = ed25519.Ed25519PrivateKey.generate()
    return identity._self_signed(private).public_bytes(serialization.Encoding.PEM)


def test_the_short_form_is_letters_that_can_be_read_aloud() -> None:
    # The examples of the proquint proposal: 127.0.0.1 and 63.84.220.193.
    assert short_form(bytes([127, 0, 0, 1, 63, 84, 220, 193]) + bytes(24)) == (
        "lusab-babad-gutih-tugad-babab-babab"
    )
