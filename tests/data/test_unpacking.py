import gzip
import io
from pathlib import Path

import pytest
import zstandard

from medqa.data import unpacking
from medqa.errors import DataError

TEXT = b"".join(b'{"row": %d}\n' % number for number in range(200_000))
PACK = {".gz": gzip.compress, ".zst": zstandard.compress}


def unpack(folder: Path, suffix: str, packed: bytes) -> tuple[bytes, str | None]:
    file = folder / f"x.jsonl{suffix}"
    file.write_bytes(packed)
    out = io.BytesIO()
    damage = unpacking.unpack(file, out)
    return out.getvalue(), damage


@pytest.mark.parametrize("suffix", unpacking.SUFFIXES)
def test_whole_files_of_one_and_several_members(tmp_path: Path, suffix: str) -> None:
    pack = PACK[suffix]
    assert unpack(tmp_path, suffix, pack(TEXT)) == (TEXT, None)
    assert unpack(tmp_path, suffix, pack(TEXT) + pack(b"more\n")) == (TEXT + b"more\n", None)


@pytest.mark.parametrize("suffix", unpacking.SUFFIXES)
def test_a_file_cut_short_gives_what_can_be_read(tmp_path: Path, suffix: str) -> None:
    packed = PACK[suffix](TEXT)
    found, damage = unpack(tmp_path, suffix, packed[: len(packed) // 2])
    assert TEXT.startswith(found) and len(found) > len(TEXT) // 4
    assert damage and "ended before the end" in damage


@pytest.mark.parametrize("suffix", unpacking.SUFFIXES)
def test_a_file_damaged_in_its_middle(tmp_path: Path, suffix: str) -> None:
    first, second = PACK[suffix](TEXT), PACK[suffix](b"more\n" * 100)
    found, damage = unpack(tmp_path, suffix, first + b"damage" + second)
    assert found == TEXT and damage


@pytest.mark.parametrize("suffix", unpacking.SUFFIXES)
@pytest.mark.parametrize("content", [b"not packed at all", b"\x1f\x8b", b"\x28\xb5\x2f\xfd\x00"])
def test_a_file_that_gives_nothing(tmp_path: Path, suffix: str, content: bytes) -> None:
    with pytest.raises(DataError, match=rf"is no readable {suffix} file: .*; fetch it again"):
        unpack(tmp_path, suffix, content)


def test_plain_copies_vanish(tmp_path: Path) -> None:
    file = tmp_path / "x.csv.gz"
    file.write_bytes(gzip.compress(b"text"))
    with unpacking.plain(file) as copy:
        assert (copy.name, copy.read_bytes()) == ("x.csv", b"text")
    assert not copy.exists()
    with unpacking.plain(tmp_path / "x.csv") as same:
        assert same == tmp_path / "x.csv"
