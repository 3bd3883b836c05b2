"""The tree in memory, against the one that reads its nodes from a store."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedhouse.chain_adapters.merkle_log.tree import Tree
from fedhouse.errors import IntegrityError
from fedhouse.governance.merkle import Frontier, leaf_hash, root_of


@given(st.integers(0, 70))
def test_nodes_roots_and_earlier_sizes(size: int) -> None:
    tree, frontier, nodes, roots = Tree(), Frontier(), {}, [Frontier().root()]
    for index in range(size):
        leaf = leaf_hash(b"%d" % index)
        tree.append(leaf)
        nodes |= {(level, place): node for level, place, node in frontier.append(leaf)}
        roots.append(frontier.root())
    assert tree.size == size
    assert [tree.root(earlier) for earlier in range(size + 1)] == roots
    assert tree.root() == roots[-1] == root_of(size, lambda level, place: nodes[level, place])
    assert list(tree.nodes()) == [nodes[place] for place in sorted(nodes)]
    other = tree.frontier()
    other.append(leaf_hash(b"more"))
    assert tree.root() == roots[-1]


@pytest.mark.parametrize(("level", "index"), [(0, 5), (0, -1), (2, 1), (3, 0), (-1, 0)])
def test_there_are_no_other_nodes(level: int, index: int) -> None:
    tree = Tree()
    for number in range(5):
        tree.append(leaf_hash(b"%d" % number))
    with pytest.raises(IntegrityError):
        tree.read(level, index)
    with pytest.raises(IntegrityError):
        tree.root(6)
