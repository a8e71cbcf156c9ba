"""Sample files of a few kinds for the demo household: notes, pictures, nested folders, odd names.

They are made here, from nothing but these lines, so that the demo needs no download.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

FILM_BYTES = 64 * 1024 * 1024
PICTURE_PIXELS = 160
DAY_NS = 86_400 * 10**9
FIRST_DAY_NS = 1_700_000_000 * 10**9
"""The oldest sample's mtime, with a nanosecond part added so that rounding would be noticed."""

ODD_NAMES = (
    b"  two leading spaces.txt",
    b".hidden",
    b"back\\slash.txt",
    b"colon: a title.txt",
    b"latin-1 caf\xe9.txt",
    b"line\nbreak.txt",
    "日本語 – ✓.txt".encode(),
    b"x" * 251 + b".txt",
)


@dataclass(frozen=True, slots=True)
class Sample:
    """A file to be made: where, and what is in it."""

    path: bytes
    content: bytes


def picture(hue: int, pixels: int = PICTURE_PIXELS) -> bytes:
    """Return a PNG image: a gradient of one of 256 hues."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(
        b"\0" + bytes(value for x in range(pixels) for value in (hue, x * 255 // pixels, y * 255 // pixels))
        for y in range(pixels)
    )
    header = struct.pack(">IIBBBBB", pixels, pixels, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def drawing(colour: str) -> bytes:
    """Return an SVG image."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="120" height="120">'
        f'<circle cx="60" cy="60" r="50" fill="{colour}"/></svg>\n'
    ).encode()


def note(title: str, lines: int = 12) -> bytes:
    """Return a text of a few lines."""
    body = "".join(f"- {title.lower()}, point {number}\n" for number in range(1, lines + 1))
    return f"# {title}\n\n{body}".encode()


def documents() -> list[Sample]:
    """Return the documents: notes in nested folders, and names that trip programs up."""
    titles = ("Shopping", "Ideas", "Reading list", "Garden")
    samples = [Sample(f"notes/{title}.md".encode(), note(title)) for title in titles]
    samples += [
        Sample(f"letters/{year}/{month:02}/letter.txt".encode(), note(f"Letter {year}-{month:02}", 40))
        for year in (2023, 2024)
        for month in range(1, 7)
    ]
    samples += [Sample(b"odd names/" + name, b"content of " + name) for name in ODD_NAMES]
    samples.append(Sample(b"table.csv", b"".join(b"%d,%d\n" % (n, n * n) for n in range(20_000))))
    return samples


def media(film_bytes: int = FILM_BYTES) -> list[Sample]:
    """Return the media: pictures and drawings in albums, and one large film of random bytes."""
    albums = {"harbour": 10, "mountains": 90, "winter": 170}
    samples = [
        Sample(f"albums/{album}/{number:02}.png".encode(), picture(hue + number * 6))
        for album, hue in albums.items()
        for number in range(1, 7)
    ]
    samples += [
        Sample(f"drawings/{colour}.svg".encode(), drawing(colour)) for colour in ("teal", "orange", "navy")
    ]
    samples.append(Sample(b"films/holiday.mkv", os.urandom(film_bytes)))
    return samples


def write(datadir: Path, samples: list[Sample]) -> None:
    """Write the files below ``datadir``, each with an mtime of its own, and an empty folder."""
    root = os.fsencode(datadir)
    for number, sample in enumerate(samples):
        path = os.path.join(root, sample.path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(sample.content)
        mtime_ns = FIRST_DAY_NS + number * DAY_NS + 123_456_789
        os.utime(path, ns=(mtime_ns, mtime_ns))
    os.makedirs(os.path.join(root, b"empty folder"), exist_ok=True)
