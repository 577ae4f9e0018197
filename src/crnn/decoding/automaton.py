"""The texts that a search may give, as an automaton over classes: a lexicon's words, or any text at all."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.intp]


class Automaton(NamedTuple):
    """Nodes, and arcs that each write a class: arcs ``arcs[n]`` to ``arcs[n + 1] - 1`` leave node n.

    ``classes`` and ``targets`` are each arc's class (1 to C - 1) and the node that it leads to. A text that ends at
    node n has the weight ``final[n]``, 0 to 1, where 0 says that no text ends there; ``bound[n]`` is the largest weight
    of any text that goes through n. ``roots`` are the nodes where the texts of each picture begin.
    """

    arcs: Indices
    classes: Indices
    targets: Indices
    final: NDArray[np.float64]
    bound: NDArray[np.float64]
    roots: Indices

    def leaving(self, nodes: Indices) -> tuple[Indices, Indices]:
        """Every arc that leaves each of ``nodes``, K of them: (places in ``nodes``, arcs), ordered by place."""
        counts = self.arcs[nodes + 1] - self.arcs[nodes]
        places = np.repeat(np.arange(len(nodes)), counts)
        return places, np.arange(len(places)) + np.repeat(self.arcs[nodes] - np.cumsum(counts) + counts, counts)


def trie(codes: Indices, weights: NDArray[np.float64]) -> Automaton:
    """The prefix tree of words: their classes ``codes``, intp[W, L], padded with 0 on the right, in ascending order.

    They are all different and not empty, at least one. ``weights``, float64[W], are above 0, at most 1. ``roots`` is
    one node, for any number of pictures.
    """
    # Sorted words that share a prefix lie together: where one first differs from the word before, a new branch begins.
    fresh = codes != 0
    fresh[1:] &= np.logical_or.accumulate(codes[1:] != codes[:-1], axis=1)
    lengths = (codes != 0).sum(axis=1)
    # Nodes are numbered by depth, then in the words' order, so the children of a node lie together as well, and the arc
    # into node n is arc n - 1. Counting the branches gives the node of each word's prefix of each length.
    by_depth = fresh.T
    nodes = np.cumsum(by_depth).reshape(by_depth.shape)
    parents = np.concatenate([np.zeros_like(nodes[:1]), nodes[:-1]])[by_depth]
    classes = codes.T[by_depth]
    count = 1 + len(classes)
    final = np.zeros(count)
    final[nodes[lengths - 1, np.arange(len(codes))]] = weights
    bound = final.copy()
    edges = np.cumsum([0, *fresh.sum(axis=0)])  # arcs of each depth
    for low, high in zip(edges[-2::-1], edges[:0:-1], strict=True):
        np.maximum.at(bound, parents[low:high], bound[low + 1 : high + 1])
    arcs = np.concatenate([[0], np.cumsum(np.bincount(parents, minlength=count))])
    return Automaton(arcs, classes, np.arange(1, count), final, bound, np.zeros(1, np.intp))


def free(y: NDArray[np.floating[Any]], least: NDArray[np.float64], weight: float = 1.0) -> Automaton:
    """Any text, for pictures with the probabilities ``y``, float[T, N, C]: one node a picture, with arcs to itself.

    Left out are arcs of classes that picture n has with a probability below ``least[n]``, float[N]: no text that has
    one of them is more probable than that. Every text has the same ``weight``.
    """
    occurs = y[:, :, 1:].sum(axis=0) >= least[:, None]  # a sum of probabilities is no less than that of their union
    pictures, classes = np.nonzero(occurs)
    arcs = np.concatenate([[0], np.cumsum(occurs.sum(axis=1))])
    weights = np.full(len(occurs), weight)
    return Automaton(arcs, classes + 1, pictures, weights, weights, np.arange(len(occurs)))
