"""Reading IDX files."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.idx_files import idx_bytes

from sparserl.continual.supervised.idx import read_idx
from sparserl.errors import ConfigError

# Two pictures of 2 x 3 pixels: two zeros, unsigned bytes, three dimensions, 2, 2, 3, then the pixels.
HEADER = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 3])
WORKED = HEADER + bytes([1, 2, 3, 4, 5, 255, 7, 8, 9, 10, 11, 12])


@pytest.mark.parametrize(
    ("name", "content"),
    [("x", WORKED), ("x.gz", gzip.compress(WORKED)), ("x.gz", WORKED), ("x", gzip.compress(WORKED))],
    ids=["plain", "packed", "unpacked under its packed name", "packed without the ending"],
)
def test_worked_by_hand(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    array = read_idx(tmp_path / name, 3)
    assert array.dtype == np.uint8
    assert array.tolist() == [[[1, 2, 3], [4, 5, 255]], [[7, 8, 9], [10, 11, 12]]]


def test_sizes_are_big_endian(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes([0, 0, 8, 1, 0, 0, 1, 2]) + bytes(258))
    assert read_idx(tmp_path / "x", 1).shape == (258,)


def test_nothing_in_it_is_an_empty_array(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 0, 0, 0, 0, 28, 0, 0, 0, 28]))
    assert read_idx(tmp_path / "x", 3).shape == (0, 28, 28)


PACKED = gzip.compress(WORKED, mtime=0)
BAD = {
    "empty": (b"", "is not an IDX file: it has 0 bytes"),
    "three bytes": (b"\0\0\x08", "is not an IDX file: it has 3 bytes"),
    "a web page": (b"<!doctype html>", "is not an IDX file: it starts with the bytes 3c 21 64 6f"),
    "floats": (WORKED[:2] + b"\x0d" + WORKED[3:], r"has elements of type 0x0d instead of unsigned bytes \(0x08\)"),
    "labels": (idx_bytes([1, 2]), "has 1 dimensions instead of 3"),
    "header ends early": (WORKED[:15], "is truncated: it ends inside its header, after 15 bytes"),
    "truncated": (WORKED[:-1], "is truncated: 27 bytes instead of the 28 that its header announces"),
    "too long": (WORKED + b"\0", "is too long: 29 bytes instead of the 28 that its header announces"),
    "huge sizes": (
        HEADER[:4] + b"\xff" * 12,
        "is truncated: 16 bytes instead of the 79228162458924105385300197391 that its header announces",
    ),
    "packed and truncated": (gzip.compress(WORKED[:-1]), "is truncated: 27 bytes instead of the 28"),
    "gzip ends early": (PACKED[:-9], "is corrupt: Compressed file ended before"),
    "gzip with a wrong checksum": (PACKED[:-8] + bytes(8), "is corrupt: CRC check failed"),
    "gzip with other bytes behind it": (PACKED + b"x", "is corrupt: Not a gzipped file"),
    "gzip with a broken stream": (PACKED[:10] + b"\xff" + PACKED[11:], "is corrupt: Error -3 while decompressing"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_named_with_what_is_wrong(case: str, tmp_path: Path) -> None:
    content, problem = BAD[case]
    path = tmp_path / "some-images"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"some-images {problem}") as caught:
        read_idx(path, 3)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*none: No such file"):
        read_idx(tmp_path / "none", 1)
    with pytest.raises(ConfigError, match=r"cannot read .*: Is a directory"):
        read_idx(tmp_path, 1)


shapes = st.lists(st.integers(0, 5), min_size=1, max_size=3)


@given(shape=shapes, packed=st.booleans(), data=st.data())
def test_what_was_written_is_read_and_a_part_of_it_never(shape: list[int], packed: bool, data: st.DataObject) -> None:
    written = np.random.default_rng(shape).integers(0, 256, shape).astype(np.uint8)
    content = gzip.compress(idx_bytes(written)) if packed else idx_bytes(written)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        path.write_bytes(content)
        np.testing.assert_array_equal(read_idx(path, len(shape)), written)
        path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
        with pytest.raises(ConfigError):
            read_idx(path, len(shape))


@given(bit=st.integers(0, 8 * len(PACKED) - 1))
def test_a_flipped_bit_in_a_packed_file_is_seen_or_harmless(bit: int) -> None:
    content = bytearray(PACKED)
    content[bit // 8] ^= 1 << bit % 8
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        path.write_bytes(content)
        try:
            read = read_idx(path, 3)
        except ConfigError:
            return
        assert read.tobytes() == WORKED[16:]
