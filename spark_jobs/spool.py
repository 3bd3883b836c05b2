"""A partition's rows as one row-major float32 matrix in an unlinked file.

Invariants
----------
1. The file has no name from the moment it is opened (mode 0600 before that), so nothing is left
   behind when the worker dies.
2. User code gets a second descriptor, opened read-only, and maps it private: what it writes into the
   map stays in its own memory.
3. Rows are found by their global number, so the size of Arrow's batches cannot change a result.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from fedhouse.errors import FedhouseError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FLOAT32_BYTES = 4


class Spool:
    """Collects rows of `width` float32 values, then offers them read-only.

    Example::

        with Spool(width=31) as spool:
            for matrix in matrices:
                spool.append(matrix)
            descriptor = spool.read_only()
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.rows = 0
        descriptor, name = tempfile.mkstemp(prefix="fedhouse-", dir=local_directory())
        os.unlink(name)  # noqa: PTH108 - before anything is written
        self._descriptor = descriptor
        self._reader: int | None = None

    def append(self, matrix: NDArray[np.float32]) -> None:
        """Add rows: float32 [rows, width], C-contiguous."""
        if matrix.ndim != 2 or matrix.shape[1] != self.width or matrix.dtype.str != "<f4":
            raise FedhouseError(
                f"Internal: a spool of width {self.width} was given {matrix.dtype} {matrix.shape}."
            )
        rest = matrix.reshape(-1).view("u1").data
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            raise FedhouseError(
                f"The partition could not be spooled to Spark's local directory: {error.strerror}.",
                mend="Free space there, or raise the number of partitions.",
            ) from error
        self.rows += len(matrix)

    def read_only(self) -> int:
        """A descriptor of the whole matrix, opened read-only. Belongs to the spool."""
        if self._reader is None:
            self._reader = os.open(f"/proc/self/fd/{self._descriptor}", os.O_RDONLY | os.O_CLOEXEC)
        return self._reader

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return self.rows * self.width * _FLOAT32_BYTES

    def close(self) -> None:
        """Give the file back to the system."""
        for descriptor in (self._descriptor, self._reader):
            if descriptor is not None and descriptor >= 0:
                os.close(descriptor)
        self._descriptor, self._reader = -1, None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def local_directory() -> Path:
    """Where Spark puts an executor's local files: its first local directory, else the system's."""
    told = os.environ.get("SPARK_LOCAL_DIRS") or os.environ.get("LOCAL_DIRS") or ""
    for text in told.split(","):
        path = Path(text.strip())
        if text.strip() and path.is_dir() and os.access(path, os.W_OK):
            return path
    return Path(tempfile.gettempdir())
