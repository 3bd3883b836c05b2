"""An RFC 6962 tree with all its nodes in memory: 64 bytes a leaf.

For whoever replays: proofs, and roots of earlier sizes, without a database.
"""

from __future__ import annotations

from collections.abc import Iterator

from fedhouse.errors import IntegrityError
from fedhouse.governance.merkle import HASH_BYTES, Frontier, root_of


class Tree:
    """A growing tree; `read` gives its nodes. Mutable, not for use by two threads at once."""

    def __init__(self) -> None:
        self._frontier = Frontier()
        self._levels: list[bytearray] = []

    @property
    def size(self) -> int:
        """Number of leaves."""
        return self._frontier.size

    def append(self, leaf: bytes) -> None:
        """Add a leaf by its hash."""
        levels = self._levels
        for level, _, node in self._frontier.append(leaf):
            # A level's nodes are completed in their order.
            if level == len(levels):
                levels.append(bytearray())
            levels[level] += node

    def read(self, level: int, index: int) -> bytes:
        """The node at (level, index).

        Raises
        ------
        IntegrityError
            If the tree has no such perfect subtree.
        """
        if 0 <= level < len(self._levels) and 0 <= index < len(self._levels[level]) // HASH_BYTES:
            return bytes(self._levels[level][index * HASH_BYTES : (index + 1) * HASH_BYTES])
        raise IntegrityError(
            f"A tree of {self.size} leaves has no node ({level}, {index}).",
            mend="Ask for entries that the log has.",
        )

    def root(self, size: int | None = None) -> bytes:
        """The root of the first `size` leaves, or of all."""
        return self._frontier.root() if size is None else root_of(size, self.read)

    def frontier(self) -> Frontier:
        """A frontier of its own that goes on from here."""
        return Frontier.of(self.size, self._frontier.nodes)

    def nodes(self) -> Iterator[bytes]:
        """All nodes, by level and place."""
        for level in self._levels:
            for start in range(0, len(level), HASH_BYTES):
                yield bytes(level[start : start + HASH_BYTES])
