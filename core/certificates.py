"""What can be said of a peer's certificate without a network: that it is one, and whose key it holds."""

from __future__ import annotations

import re

_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


def check_certificate(text: str) -> str:
    """Return the one certificate in a PEM text, without what stands around it.

    Raises:
        ValueError: there is none or several, or it is not an Ed25519 certificate.
    """
    blocks = _BLOCK.findall(text)
    if len(blocks) != 1:
        raise ValueError("holds no certificate" if not blocks else f"holds {len(blocks)} certificates")
    lines = [line.strip() for line in blocks[0].splitlines()]
    pem = "\n".join(line for line in lines if line) + "\n"
    public_key(pem)
    return pem


def public_key(pem: str) -> bytes:
    """Return the 32 bytes of the Ed25519 public key in a certificate.

    Raises:
        ValueError: it is not an Ed25519 certificate.
    """
    # Costs 50 ms to import, which commands that read no certificate need not pay.
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key = x509.load_pem_x509_certificate(pem.encode()).public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("is not a valid certificate") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("is not a certificate with an Ed25519 key")  # noqa: TRY004 - the text is wrong
    return key.public_bytes_raw()
