"""Reading IDX files, the format in which MNIST and Fashion-MNIST are published.

Decides whether the bytes of a file are what its header says. Independent of what the numbers mean.

Source:
    LeCun, Cortes and Burges, "The MNIST database of handwritten digits", section on file formats.
"""

from __future__ import annotations

import gzip
import io
import math
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sparserl.errors import ConfigError
from sparserl.text_files import read_bytes

GZIP = b"\x1f\x8b"
UNSIGNED_BYTE = 0x08
MOST_BYTES = 2**29
"""Of a file, packed or not; the pictures of MNIST have 47 million."""


def read_idx(path: Path, n_dims: int) -> npt.NDArray[np.uint8]:
    """The array of an IDX file of unsigned bytes; read-only.

    Args:
        path: The file, packed by gzip or plain; its first bytes tell, not its name.
        n_dims: Dimensions that the array must have.

    Raises:
        ConfigError: If the file cannot be read, or is not a whole IDX file of `n_dims` dimensions of unsigned bytes.
    """
    raw = _unpacked(path)
    # Two zero bytes, the type of the elements, the number of dimensions, then the dimensions as big-endian int32.
    if len(raw) < 4:
        raise ConfigError(f"{path} is not an IDX file: it has {len(raw)} bytes")
    if raw[:2] != b"\0\0":
        raise ConfigError(f"{path} is not an IDX file: it starts with the bytes {raw[:4].hex(' ')}")
    if raw[2] != UNSIGNED_BYTE:
        raise ConfigError(f"{path} has elements of type 0x{raw[2]:02x} instead of unsigned bytes (0x08)")
    if raw[3] != n_dims:
        raise ConfigError(f"{path} has {raw[3]} dimensions instead of {n_dims}")
    start = 4 + 4 * n_dims
    if len(raw) < start:
        raise ConfigError(f"{path} is truncated: it ends inside its header, after {len(raw)} bytes")
    shape: list[int] = np.frombuffer(raw, ">u4", n_dims, offset=4).tolist()
    announced = start + math.prod(shape)
    if len(raw) != announced:
        problem = "is truncated" if len(raw) < announced else "is too long"
        raise ConfigError(f"{path} {problem}: {len(raw)} bytes instead of the {announced} that its header announces")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def _unpacked(path: Path) -> bytes:
    raw = read_bytes(path, MOST_BYTES)
    if not raw.startswith(GZIP):
        return raw
    try:
        with gzip.open(io.BytesIO(raw)) as file:  # which reads as much as it is asked for, whatever is packed
            unpacked = file.read(MOST_BYTES + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise ConfigError(f"{path} is corrupt: {error}") from None
    if len(unpacked) > MOST_BYTES:
        raise ConfigError(f"{path} is too large: unpacked, it has more than {MOST_BYTES:,} bytes")
    return unpacked
