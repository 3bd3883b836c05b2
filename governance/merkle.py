"""The Merkle tree of the log: SHA-256, as RFC 6962 draws it and RFC 9162 verifies it.

A tree of n leaves splits at the largest power of two below n, so its left parts are perfect subtrees that
never change again. A node is named by its level (leaves are level 0) and its place in that level: node
(2, 3) covers the leaves 12 to 15. Only nodes of perfect subtrees have names, and a store keeps only them.

Invariants
----------
1. A `Frontier` of n leaves holds one hash for each bit of n that is set; they and n determine the root.
2. A completed node never changes: `append` gives each node exactly once, children before parents.
3. Proofs are made from stored nodes alone, with O(log n) reads and no leaf data.
4. Leaves and inner nodes are hashed with different prefixes, so that no inner node passes for a leaf.
   Whoever verifies computes the leaf's hash from the data; a leaf hash that came with a proof shows nothing.

Example::

    frontier, nodes = Frontier(), {}
    for data in entries:
        for level, index, node in frontier.append(leaf_hash(data)):
            nodes[level, index] = node
    read = lambda level, index: nodes[level, index]
    proof = prove_inclusion(3, frontier.size, read)
    verify_inclusion(leaf_hash(entries[3]), 3, frontier.size, proof, frontier.root())

Sources: RFC 6962 section 2.1; RFC 9162 sections 2.1.3.2 (inclusion) and 2.1.4.2 (consistency).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final

from fedhouse.errors import IntegrityError

NodeReader = Callable[[int, int], bytes]
"""Gives the hash of the perfect subtree at (level, index)."""

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = sha256(b"").digest()
# What other implementations of the same formats can count to.
MAX_SIZE: Final = 2**63 - 1

_ASK = "Ask for entries that the log has."
_REFUSED = "Do not rely on it; fetch the proof and the checkpoint again, and keep both if it stays so."


def leaf_hash(data: bytes) -> bytes:
    """The hash of a leaf that holds `data`."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of the node above `left` and `right`."""
    return sha256(b"\x01" + left + right).digest()


def peaks(size: int) -> list[tuple[int, int]]:
    """The perfect subtrees that make up a tree of `size` leaves, as (level, index), from left to right."""
    return _peaks(0, size)


def _peaks(start: int, end: int) -> list[tuple[int, int]]:
    """The peaks of the leaves `start` to `end - 1`, where `start` is a multiple of the largest of them."""
    found = []
    while start < end:
        level = (end - start).bit_length() - 1
        found.append((level, start >> level))
        start += 1 << level
    return found


class Frontier:
    """A growing tree, of which only the peaks are kept: mutable, not for use by two threads at once."""

    __slots__ = ("_peaks", "_size")

    def __init__(self) -> None:
        self._peaks: list[bytes] = []
        self._size = 0

    @classmethod
    def of(cls, size: int, nodes: Sequence[bytes]) -> Frontier:
        """The frontier of a tree of `size` leaves whose peaks have the hashes `nodes`, from left to right.

        Raises
        ------
        IntegrityError
            If a tree of this size has another number of peaks, or a hash is not of 32 bytes.
        """
        if not 0 <= size <= MAX_SIZE or len(nodes) != size.bit_count():
            raise IntegrityError(
                f"A frontier of {size} leaves cannot have {len(nodes)} peaks.",
                mend="Rebuild it from the leaves.",
            )
        _require_hashes(nodes, "A frontier's peak")
        frontier = cls()
        frontier._peaks = list(nodes)
        frontier._size = size
        return frontier

    @property
    def size(self) -> int:
        """Number of leaves."""
        return self._size

    @property
    def nodes(self) -> tuple[bytes, ...]:
        """The hashes of the peaks, from left to right; see `peaks` for their places."""
        return tuple(self._peaks)

    def append(self, leaf: bytes) -> list[tuple[int, int, bytes]]:
        """Add a leaf by its hash; gives the nodes that it completes as (level, index, hash), leaf first.

        `leaf` is what `leaf_hash` gave; its length is not checked here, where every entry passes.
        """
        index = self._size
        self._size = index + 1
        completed = [(0, index, leaf)]
        held, level = self._peaks, 0
        while index & 1:
            leaf = sha256(b"\x01" + held.pop() + leaf).digest()
            level += 1
            index >>= 1
            completed.append((level, index, leaf))
        held.append(leaf)
        return completed

    def root(self) -> bytes:
        """The root of the tree as it is now."""
        return _fold(self._peaks)


def root_of(size: int, read: NodeReader) -> bytes:
    """The root of the first `size` leaves.

    Raises
    ------
    IntegrityError
        If no tree has this size.
    """
    if not 0 <= size <= MAX_SIZE:
        raise IntegrityError(f"A log cannot have {size} entries.", mend=_ASK)
    return _subtree(0, size, read)


def prove_inclusion(index: int, size: int, read: NodeReader) -> list[bytes]:
    """The path from leaf `index` to the root of the first `size` leaves, the leaf's sibling first.

    Raises
    ------
    IntegrityError
        If the tree has no such leaf.
    """
    if not 0 <= index < size <= MAX_SIZE:
        raise IntegrityError(f"Entry {index} is not in a log of {size} entries.", mend=_ASK)
    start, end, siblings = 0, size, []
    while end - start > 1:
        middle = _split(start, end)
        if index < middle:
            siblings.append((middle, end))
            end = middle
        else:
            siblings.append((start, middle))
            start = middle
    return [_subtree(low, high, read) for low, high in reversed(siblings)]


def prove_consistency(old: int, new: int, read: NodeReader) -> list[bytes]:
    """The proof that the first `new` leaves begin with the first `old` ones.

    Empty if `old` is 0 or equals `new`: there is nothing to prove.

    Raises
    ------
    IntegrityError
        If `old` is negative or more than `new`.
    """
    if not 0 <= old <= new <= MAX_SIZE:
        raise IntegrityError(f"A log of {new} entries has no earlier state of {old} entries.", mend=_ASK)
    if old in (0, new):
        return []
    start, end, parts = 0, new, []
    while old < end:
        middle = _split(start, end)
        if old <= middle:
            parts.append((middle, end))
            end = middle
        else:
            parts.append((start, middle))
            start = middle
    # The part that old and new have in common ends here. If it is all of the old tree, the verifier has it.
    if start > 0:
        parts.append((start, end))
    return [_subtree(low, high, read) for low, high in reversed(parts)]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that a tree of `size` leaves with this root has a leaf of hash `leaf` at `index`.

    Raises
    ------
    IntegrityError
        If it does not follow from `proof`; says what is wrong with it.
    """
    _require_hashes((leaf, root), "A leaf or root")
    if not 0 <= index < size <= MAX_SIZE:
        raise IntegrityError(f"Entry {index} is not in a log of {size} entries.", mend=_REFUSED)
    inner = (index ^ (size - 1)).bit_length()
    _require_proof(proof, inner + (index >> inner).bit_count(), f"entry {index} in a log of {size} entries")
    here, last, found = index, size - 1, leaf
    for sibling in proof:
        if here & 1 or here == last:
            found = node_hash(sibling, found)
            while not here & 1 and here:
                here, last = here >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        here, last = here >> 1, last >> 1
    if last != 0 or found != root:
        raise IntegrityError(
            f"The proof of entry {index} does not lead to the root of the log.", mend=_REFUSED
        )


def verify_consistency(
    old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that the new tree begins with all leaves of the old one, in their order.

    Raises
    ------
    IntegrityError
        If it does not follow from `proof`; says what is wrong with it.
    """
    _require_hashes((old_root, new_root), "A root")
    if not 0 <= old_size <= new_size <= MAX_SIZE:
        raise IntegrityError(f"A log of {new_size} entries cannot follow one of {old_size}.", mend=_REFUSED)
    what = f"growth from {old_size} to {new_size} entries"
    for size, root in ((old_size, old_root), (new_size, new_root)):
        if size == 0 and root != EMPTY_ROOT:
            raise IntegrityError("The root of an empty log is not that of an empty tree.", mend=_REFUSED)
    _require_proof(proof, _consistency_length(old_size, new_size), what)
    if old_size == new_size and old_root != new_root:
        raise IntegrityError(f"Two logs of {new_size} entries have different roots.", mend=_REFUSED)
    if old_size in (0, new_size):
        return
    found_old, found_new = _climb(old_size, new_size, old_root, proof)
    if found_old != old_root:
        raise IntegrityError(f"The proof of {what} does not lead to the old root.", mend=_REFUSED)
    if found_new != new_root:
        raise IntegrityError(f"The proof of {what} does not lead to the new root.", mend=_REFUSED)


def _climb(old_size: int, new_size: int, old_root: bytes, proof: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Both roots as the proof gives them, for 0 < old_size < new_size and a proof of the right length."""
    path = list(proof) if old_size & (old_size - 1) else [old_root, *proof]
    here, last = old_size - 1, new_size - 1
    while here & 1:
        here, last = here >> 1, last >> 1
    old = new = path[0]
    for node in path[1:]:
        if here & 1 or here == last:
            old, new = node_hash(node, old), node_hash(node, new)
            while not here & 1 and here:
                here, last = here >> 1, last >> 1
        else:
            new = node_hash(new, node)
        here, last = here >> 1, last >> 1
    return old, new


def _consistency_length(old: int, new: int) -> int:
    """How many hashes the proof from `old` to `new` leaves has."""
    if old in (0, new):
        return 0
    # The largest perfect subtree that ends the old tree: the climb starts at its root.
    level = (old & -old).bit_length() - 1
    here, last = (old - 1) >> level, (new - 1) >> level
    inner = (here ^ last).bit_length()
    return inner + (here >> inner).bit_count() + (1 if old & (old - 1) else 0)


def _split(start: int, end: int) -> int:
    """Where a subtree of more than one leaf splits: after the largest power of two below its size."""
    return start + (1 << (end - start - 1).bit_length() - 1)


def _subtree(start: int, end: int, read: NodeReader) -> bytes:
    """The root of the leaves `start` to `end - 1`, which must be a subtree of some tree."""
    return _fold([read(level, index) for level, index in _peaks(start, end)])


def _fold(hashes: Sequence[bytes]) -> bytes:
    """The root above peaks, given from left to right."""
    if not hashes:
        return EMPTY_ROOT
    root = hashes[-1]
    for left in reversed(hashes[:-1]):
        root = node_hash(left, root)
    return root


def _require_proof(proof: Sequence[bytes], length: int, what: str) -> None:
    if len(proof) != length:
        raise IntegrityError(f"The proof of {what} has {len(proof)} hashes, not {length}.", mend=_REFUSED)
    _require_hashes(proof, f"A hash in the proof of {what}")


def _require_hashes(hashes: Sequence[bytes], what: str) -> None:
    for node in hashes:
        if len(node) != HASH_BYTES:
            raise IntegrityError(f"{what} has {len(node)} bytes, not {HASH_BYTES}.", mend=_REFUSED)
