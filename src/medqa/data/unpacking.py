"""Compressed raw files, unpacked once to plain ones; a file that ends early gives what it has."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from medqa.errors import DataError
from medqa.paths import shown

BLOCK_BYTES = 1 << 20
# A block of Zstandard can grow by a factor of 30,000; small bites keep memory bounded.
BITE_BYTES = 1 << 14


def plain_name(name: str) -> str:
    """Returns ``x.csv`` for ``x.csv.gz``, and a name without such a suffix as it is."""
    return next((name.removesuffix(s) for s in SUFFIXES if name.endswith(s)), name)


def unpack(file: Path, out: BinaryIO) -> str | None:
    """Writes what `file` holds to `out`.

    Returns:
        None, or what is wrong with the rest of the file.

    Raises:
        DataError: Nothing of it can be read.
        OSError: No space, no permission.
    """
    written = 0
    try:
        for block in _READERS[file.suffix](file):
            written += out.write(block)
    except _damage() as error:
        if not written:
            raise DataError(
                f"{shown(file)} is no readable {file.suffix} file: {error}; fetch it again"
            ) from None
        return str(error)
    return None


@contextmanager
def plain(file: Path) -> Iterator[Path]:
    """Yields `file`, or where it is compressed a plain copy that is gone after the block."""
    if file.suffix not in SUFFIXES:
        yield file
        return
    with TemporaryDirectory(prefix="medqa-") as folder:
        copy = Path(folder) / plain_name(file.name)
        with copy.open("wb") as out:
            unpack(file, out)
        yield copy


def _gzip(file: Path) -> Iterator[bytes]:
    with gzip.open(file, "rb") as packed:
        while block := packed.read1(BLOCK_BYTES):
            yield block  # `read` would lose what comes before the damage


def _zstandard(file: Path) -> Iterator[bytes]:
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=2**31)
    frame = None
    with file.open("rb") as packed:
        while bite := packed.read(BITE_BYTES):
            while bite:
                frame = frame or decompressor.decompressobj()
                yield frame.decompress(bite)
                bite = frame.unused_data if frame.eof else b""
                frame = None if frame.eof else frame
    if frame is not None:
        raise EOFError("Compressed file ended before the end of a frame")


def _damage() -> tuple[type[Exception], ...]:
    import zstandard

    return EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError


_READERS = {".gz": _gzip, ".zst": _zstandard}
SUFFIXES = tuple(_READERS)
