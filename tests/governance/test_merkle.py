"""The tree: against the recursive definitions of RFC 6962, its published vectors, and forged proofs."""

from __future__ import annotations

from functools import cache
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedhouse.errors import IntegrityError
from fedhouse.governance.merkle import (
    EMPTY_ROOT,
    MAX_SIZE,
    Frontier,
    NodeReader,
    leaf_hash,
    node_hash,
    peaks,
    prove_consistency,
    prove_inclusion,
    root_of,
    verify_consistency,
    verify_inclusion,
)

SMALL = 70
LARGE = 3000

# --- the slow oracle: the definitions of RFC 6962, section 2.1, over the leaves themselves -------------


def leaf_of(index: int) -> bytes:
    return b"entry %d" % index


@cache
def mth(start: int, end: int) -> bytes:
    """MTH(D[start:end])."""
    if start == end:
        return sha256(b"").digest()
    if end - start == 1:
        return sha256(b"\x00" + leaf_of(start)).digest()
    middle = start + largest_power_below(end - start)
    return sha256(b"\x01" + mth(start, middle) + mth(middle, end)).digest()


def largest_power_below(number: int) -> int:
    power = 1
    while power * 2 < number:
        power *= 2
    return power


def path(index: int, start: int, end: int) -> list[bytes]:
    """PATH(index, D[start:end])."""
    if end - start == 1:
        return []
    middle = start + largest_power_below(end - start)
    if index < middle - start:
        return [*path(index, start, middle), mth(middle, end)]
    return [*path(index - (middle - start), middle, end), mth(start, middle)]


def subproof(old: int, start: int, end: int, whole: bool) -> list[bytes]:
    """SUBPROOF(old, D[start:end], whole); PROOF(m, D[n]) is SUBPROOF(m, D[n], true)."""
    if old == end - start:
        return [] if whole else [mth(start, end)]
    power = largest_power_below(end - start)
    middle = start + power
    if old <= power:
        return [*subproof(old, start, middle, whole), mth(middle, end)]
    return [*subproof(old - power, middle, end, False), mth(start, middle)]


# --- the tree under test -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nodes() -> dict[tuple[int, int], bytes]:
    """What a store has after LARGE appends."""
    frontier, found = Frontier(), {}
    for index in range(LARGE):
        for level, place, node in frontier.append(leaf_hash(leaf_of(index))):
            assert (level, place) not in found
            found[level, place] = node
    return found


@pytest.fixture(scope="module")
def read(nodes: dict[tuple[int, int], bytes]) -> NodeReader:
    return lambda level, index: nodes[level, index]


def test_the_empty_tree() -> None:
    assert Frontier().root() == EMPTY_ROOT == mth(0, 0)
    assert root_of(0, lambda *_: b"") == EMPTY_ROOT
    assert peaks(0) == []


def test_a_frontier_completes_each_node_once_children_first() -> None:
    frontier, found = Frontier(), {}
    for index in range(SMALL):
        for level, place, node in frontier.append(leaf_hash(leaf_of(index))):
            start = place << level
            assert node == mth(start, start + (1 << level))
            if level:
                assert node == node_hash(found[level - 1, 2 * place], found[level - 1, 2 * place + 1])
            found[level, place] = node
        assert frontier.size == index + 1
        assert frontier.root() == mth(0, index + 1)
    assert set(found) == {(level, place) for level in range(7) for place in range(SMALL >> level)}


@pytest.mark.parametrize("size", [0, 1, 2, 3, 7, 8, 41, 64])
def test_a_frontier_goes_on_from_its_stored_peaks(size: int, nodes: dict[tuple[int, int], bytes]) -> None:
    frontier = Frontier.of(size, [nodes[place] for place in peaks(size)])
    assert frontier.root() == mth(0, size)
    for index in range(size, SMALL):
        for level, place, node in frontier.append(leaf_hash(leaf_of(index))):
            assert nodes[level, place] == node
    assert (frontier.size, frontier.root()) == (SMALL, mth(0, SMALL))
    assert frontier.nodes == tuple(nodes[place] for place in peaks(SMALL))


@pytest.mark.parametrize(
    ("size", "hashes"),
    [(1, []), (0, [b"x" * 32]), (3, [b"x" * 32]), (1, [b"x" * 31]), (-1, []), (2**63, [b"x" * 32])],
)
def test_a_frontier_refuses_peaks_that_are_not_its_own(size: int, hashes: list[bytes]) -> None:
    with pytest.raises(IntegrityError):
        Frontier.of(size, hashes)


def test_every_proof_of_small_trees_is_that_of_the_definition(read: NodeReader) -> None:
    for size in range(SMALL + 1):
        assert root_of(size, read) == mth(0, size)
        for index in range(size):
            proof = prove_inclusion(index, size, read)
            assert proof == path(index, 0, size)
            verify_inclusion(leaf_hash(leaf_of(index)), index, size, proof, mth(0, size))
        for old in range(size + 1):
            growth = prove_consistency(old, size, read)
            assert growth == (subproof(old, 0, size, True) if old else [])
            verify_consistency(old, mth(0, old), size, mth(0, size), growth)


@given(data=st.data(), size=st.integers(1, LARGE))
def test_proofs_of_larger_trees(read: NodeReader, data: st.DataObject, size: int) -> None:
    index = data.draw(st.integers(0, size - 1))
    old = data.draw(st.integers(1, size))
    root = mth(0, size)
    assert root_of(size, read) == root
    assert prove_inclusion(index, size, read) == path(index, 0, size)
    verify_inclusion(leaf_hash(leaf_of(index)), index, size, path(index, 0, size), root)
    assert prove_consistency(old, size, read) == subproof(old, 0, size, True)
    verify_consistency(old, mth(0, old), size, root, subproof(old, 0, size, True))


@given(data=st.data(), size=st.integers(1, 2**63 - 1))
def test_proofs_read_a_number_of_nodes_that_grows_like_the_logarithm(data: st.DataObject, size: int) -> None:
    index = data.draw(st.integers(0, size - 1))
    asked: list[tuple[int, int]] = []

    def read(level: int, place: int) -> bytes:
        asked.append((level, place))
        assert (place + 1) << level <= size
        return sha256(b"%d %d" % (level, place)).digest()

    prove_inclusion(index, size, read)
    assert len(asked) <= 2 * size.bit_length()
    asked.clear()
    prove_consistency(index, size, read)
    assert len(asked) <= 2 * size.bit_length()


# --- published vectors: the reference tree of Certificate Transparency, its paths and its growth --------

CT_LEAVES = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
]
CT_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
CT_PATHS = {
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 7): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
}


def test_published_vectors() -> None:
    frontier, stored = Frontier(), {}
    for count, leaf in enumerate(CT_LEAVES, 1):
        for level, index, node in frontier.append(leaf_hash(bytes.fromhex(leaf))):
            stored[level, index] = node
        assert frontier.root().hex() == CT_ROOTS[count]
    assert EMPTY_ROOT.hex() == CT_ROOTS[0]
    for (index, size), hashes in CT_PATHS.items():
        proof = prove_inclusion(index, size, lambda *place: stored[place])
        assert [node.hex() for node in proof] == hashes
        leaf = leaf_hash(bytes.fromhex(CT_LEAVES[index]))
        verify_inclusion(leaf, index, size, proof, bytes.fromhex(CT_ROOTS[size]))


# --- forgeries -----------------------------------------------------------------------------------------


def flipped(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


def test_a_leaf_is_proved_nowhere_else_and_with_no_other_proof() -> None:
    for size in range(1, 18):
        root = mth(0, size)
        for index in range(size):
            leaf, proof = leaf_hash(leaf_of(index)), path(index, 0, size)
            forged = [(leaf, other, proof, root) for other in range(-1, size + 1) if other != index]
            forged += [
                (leaf_hash(leaf_of(other)), index, proof, root) for other in range(size) if other != index
            ]
            forged += [(leaf, index, proof, flipped(root)), (leaf, index, [*proof, root], root)]
            forged += [(leaf, index, [*proof, b""], root), (leaf, index, [], leaf_hash(root))]
            for place, node in enumerate(proof):
                without = [*proof[:place], *proof[place + 1 :]]
                changed = [*proof[:place], flipped(node), *proof[place + 1 :]]
                short = [*proof[:place], node[:31], *proof[place + 1 :]]
                forged += [(leaf, index, bad, root) for bad in (without, changed, short)]
            for leaf_, index_, proof_, root_ in forged:
                with pytest.raises(IntegrityError):
                    verify_inclusion(leaf_, index_, size, proof_, root_)


def test_an_inner_node_does_not_pass_for_an_entry() -> None:
    """The concatenation of two children, offered as an entry of a smaller tree."""
    children = mth(0, 1) + mth(1, 2)
    with pytest.raises(IntegrityError, match="does not lead to the root"):
        verify_inclusion(leaf_hash(children), 0, 2, [mth(2, 4)], mth(0, 4))


def test_growth_is_proved_with_no_other_roots_and_no_other_proof() -> None:
    for new in range(1, 18):
        for old in range(1, new):
            first, second, proof = mth(0, old), mth(0, new), subproof(old, 0, new, True)
            forged = [(flipped(first), second, proof), (first, flipped(second), proof), (first, first, proof)]
            forged += [(first, second, [*proof, second]), (first, second, proof[:-1]), (first, second, [])]
            for place, node in enumerate(proof):
                forged += [
                    (first, second, [*proof[:place], *proof[place + 1 :]]),
                    (first, second, [*proof[:place], flipped(node), *proof[place + 1 :]]),
                ]
            for old_root, new_root, bad in forged:
                with pytest.raises(IntegrityError):
                    verify_consistency(old, old_root, new, new_root, bad)


def test_a_rewritten_past_is_not_growth(read: NodeReader) -> None:
    frontier = Frontier()
    for index in range(20):
        frontier.append(leaf_hash(leaf_of(index) if index != 4 else b"another entry"))
    with pytest.raises(IntegrityError, match="old root"):
        verify_consistency(11, frontier.root(), 20, mth(0, 20), prove_consistency(11, 20, read))
    with pytest.raises(IntegrityError, match="new root"):
        verify_consistency(11, mth(0, 11), 20, frontier.root(), prove_consistency(11, 20, read))


@pytest.mark.parametrize(
    ("old", "old_root", "new", "new_root", "proof"),
    [
        (5, mth(0, 5), 4, mth(0, 4), []),
        (5, mth(0, 5), 5, mth(0, 6), []),
        (5, mth(0, 5), 5, mth(0, 5), [mth(0, 5)]),
        (0, EMPTY_ROOT, 5, mth(0, 5), [mth(0, 5)]),
        (0, mth(0, 1), 5, mth(0, 5), []),
        (0, EMPTY_ROOT, 0, mth(0, 1), []),
        (-1, EMPTY_ROOT, 5, mth(0, 5), []),
        (1, mth(0, 1), 2**63, mth(0, 5), [mth(0, 1)] * 63),
        (4, mth(0, 4)[:31], 5, mth(0, 5), [mth(4, 5)]),
        (4, mth(0, 4), 5, mth(0, 5) + b"\0", [mth(4, 5)]),
    ],
)
def test_impossible_growth_is_refused(
    old: int, old_root: bytes, new: int, new_root: bytes, proof: list[bytes]
) -> None:
    with pytest.raises(IntegrityError):
        verify_consistency(old, old_root, new, new_root, proof)


def test_what_the_log_does_not_have_cannot_be_asked_for(read: NodeReader) -> None:
    for index, size in ((5, 5), (-1, 5), (0, 0), (0, MAX_SIZE + 1)):
        with pytest.raises(IntegrityError, match="is not in a log"):
            prove_inclusion(index, size, read)
    for old, new in ((6, 5), (-1, 5), (0, MAX_SIZE + 1)):
        with pytest.raises(IntegrityError, match="has no earlier state"):
            prove_consistency(old, new, read)
    with pytest.raises(IntegrityError):
        root_of(-1, read)


hashes = st.binary(min_size=32, max_size=32)


@given(
    sizes=st.tuples(st.integers(-2, 40), st.integers(-2, 40)),
    roots=st.tuples(hashes, hashes),
    proof=st.lists(hashes, max_size=8),
)
def test_random_proofs_are_refused_and_raise_nothing_else(
    sizes: tuple[int, int], roots: tuple[bytes, bytes], proof: list[bytes]
) -> None:
    index, size = sizes
    if (index, size, proof) != (0, 1, []) or roots[0] != roots[1]:
        with pytest.raises(IntegrityError):
            verify_inclusion(roots[0], index, size, proof, roots[1])
    if index != size or roots[0] != roots[1]:
        with pytest.raises(IntegrityError):
            verify_consistency(index, roots[0], size, roots[1], proof)
