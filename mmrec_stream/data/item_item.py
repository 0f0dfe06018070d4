"""Item-to-item weights learned from interaction logs: whoever has item i will take item j, as a matrix (i, j).

All of them are asked the same way: a history with weights that fall with age, times the matrix.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, overload

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.linalg import lapack

from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.data.dataset import Interactions
from mmrec_stream.data.splits import Cases
from mmrec_stream.ranking.content import words

Matrix = NDArray[np.float32]
Entries = tuple[NDArray[Any], NDArray[Any], Matrix]

REACH = 12
"""Positions that a decayed history reaches back in training. At the slowest useful decay, .8 a position, the
thirteenth item weighs 7%, which changes no neighbour worth keeping."""


def directed_cooccurrence(
    log: Interactions,
    items: int,
    *,
    window: int = 10,
    backward: float = 0.3,
    row_power: float = 0.5,
    repeats: bool = False,
) -> sp.csr_matrix:
    """How often item j follows item i within `window` positions of one user, each pair weighing 1 / distance.

    Args:
        log: What to count, sorted by user and time.
        items: Number of items.
        window: Farthest distance counted.
        backward: Weight of the opposite direction, 0 (order is all) to 1 (order is nothing).
        row_power: Each row is divided by its sum to this power: 0 keeps counts, 1 makes each row a distribution, so
            that rare items say as much as frequent ones.
        repeats: Whether an item that follows itself counts; without, the diagonal is empty.

    Returns:
        The weights, (items, items).
    """
    pairs: list[Entries] = []
    for distance in range(1, min(window, len(log) - 1) + 1):
        paired = log.users[:-distance] == log.users[distance:]
        if not repeats:
            paired &= log.items[:-distance] != log.items[distance:]
        first = np.flatnonzero(paired)
        weights = np.full(len(first), 1.0 / distance, dtype=np.float32)
        pairs.append((log.items[first], log.items[first + distance], weights))
    counts = _sparse(pairs, (items, items))
    mixed = sp.csr_matrix(counts + backward * counts.T)
    sums = np.asarray(mixed.sum(axis=1)).ravel()
    return sp.csr_matrix(sp.diags(np.maximum(sums, 1e-9) ** -row_power) @ mixed).astype(np.float32)


def cosine_cooccurrence(log: Interactions, items: int, *, shrink: float = 10.0) -> sp.csr_matrix:
    """Cosine of the sets of users of two items, shrunk for items with few users, (items, items), empty diagonal.

    Sarwar et al. (WWW 2001); similarity = common users / (sqrt(users of i · users of j) + shrink).
    """
    users = int(log.users.max(initial=0)) + 1
    matrix = sp.csr_matrix((np.ones(len(log), np.float32), (log.users, log.items)), shape=(users, items))
    matrix.data[:] = 1.0
    common = sp.coo_matrix(matrix.T @ matrix)
    sizes = np.asarray(matrix.sum(axis=0)).ravel()
    off = common.row != common.col
    row, col = common.row[off], common.col[off]
    weights = common.data[off] / (np.sqrt(sizes[row] * sizes[col]) + shrink)
    return sp.csr_matrix((weights.astype(np.float32), (row, col)), shape=common.shape)


def ease(log: Interactions, items: int, *, l2: float = 100.0) -> Matrix:
    """EASE: the ridge regression of every item on all others, with a zero diagonal, (items, items).

    Steck (WWW 2019). Needs three dense matrices at once: 12 · items² bytes, and items³ operations.
    """
    users = int(log.users.max(initial=0)) + 1
    matrix = sp.csr_matrix((np.ones(len(log), np.float32), (log.users, log.items)), shape=(users, items))
    inverse = _inverse((matrix.T @ matrix).toarray(), l2)
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return np.asarray(weights, dtype=np.float32)


def directed_ease(
    log: Interactions,
    items: int,
    *,
    l2: float = 20.0,
    input_decay: float = 0.6,
    target_decay: float = 0.5,
    repeats: bool = False,
) -> Matrix:
    """The ridge regression of what comes next on the decayed history so far, (items, items).

    SLIT of Choi et al. (WWW 2021) with geometric decay: B = (XᵀX + l2 I)⁻¹ XᵀY, a row of X being the history at one
    position with weight `input_decay`^age, the row of Y the items after it with weight `target_decay`^(distance - 1).
    It has co-occurrence's sense of order, and EASE's of which items explain each other. Costs as `ease` does. The
    diagonal is zero unless `repeats` count.
    """
    history, future = _windows(log, items, input_decay, target_decay)
    weights = _inverse((history.T @ history).toarray(), l2) @ (history.T @ future).toarray()
    if not repeats:
        np.fill_diagonal(weights, 0.0)
    return np.asarray(weights, dtype=np.float32)


def content_neighbours(features: Matrix | sp.csr_matrix, neighbours: int, block: int = 1024) -> sp.csr_matrix:
    """Cosine similarity of each item to its nearest ones by content, (items, items); rows of zeros have none.

    Args:
        features: (items, width), dense or sparse; a zero row is an item without this modality.
        neighbours: How many to keep of each item.
        block: Rows compared at a time, which bounds memory to 4 · block · items bytes.
    """
    unit = unit_rows(features)
    items = unit.shape[0]
    keep = min(neighbours, items - 1)
    transposed = sp.csr_matrix(unit.T) if isinstance(unit, sp.csr_matrix) else unit.T
    rows, cols, values = [], [], []
    for start in range(0, items, block):
        product = unit[start : start + block] @ transposed
        similarity = np.asarray(product.toarray() if sp.issparse(product) else product, dtype=np.float32)
        own = np.arange(len(similarity))
        similarity[own, start + own] = -np.inf
        best = np.argpartition(similarity, items - keep, axis=1)[:, items - keep :]
        rows.append(np.repeat(start + own, keep))
        cols.append(best.ravel())
        values.append(np.take_along_axis(similarity, best, axis=1).ravel())
    row, col, value = np.concatenate(rows), np.concatenate(cols), np.concatenate(values)
    there = value > 0
    return sp.csr_matrix((value[there], (row[there], col[there])), shape=(items, items), dtype=np.float32)


def description_terms(catalogue: Sequence[CatalogueItem], *, texts: bool = True, labels: bool = True) -> sp.csr_matrix:
    """TF-IDF of the words and labels of each item, (items, terms); Salton and Buckley (1988), with binary counts.

    Args:
        catalogue: The items.
        texts: Whether the words of titles and descriptions count.
        labels: Whether tags, category and brand count.
    """
    terms = [{*(words(item) if texts else ()), *(_labels(item) if labels else ())} for item in catalogue]
    counts = Counter(term for described in terms for term in described)
    # A term of one item alone compares it with nothing, and one of all items tells none apart.
    shared = [term for term, count in counts.items() if 1 < count < len(catalogue)]
    number = {term: index for index, term in enumerate(shared)}
    entries = [(row, number[term]) for row, described in enumerate(terms) for term in described if term in number]
    row, column = np.array(entries, dtype=np.int64).reshape(-1, 2).T
    rarity = np.array([np.log(len(catalogue) / counts[term]) for term in shared], dtype=np.float32)
    return sp.csr_matrix((rarity[column], (row, column)), shape=(len(catalogue), len(shared)))


def _labels(item: CatalogueItem) -> list[str]:
    return [*(f"tag {tag}" for tag in item.tags), f"category {item.category}", f"brand {item.brand}"]


def history_matrix(cases: Cases, items: int, decay: float) -> sp.csr_matrix:
    """The histories as rows of weights `decay`^age, the newest item's age being 0, (cases, items)."""
    lengths = cases.lengths
    owners = np.repeat(np.arange(len(cases)), lengths)
    inner = np.arange(len(owners)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    ages = np.repeat(lengths, lengths) - 1 - inner
    seen = cases.log.items[np.repeat(cases.starts, lengths) + inner]
    weights = np.power(decay, ages).astype(np.float32)
    return sp.csr_matrix((weights, (owners, seen)), shape=(len(cases), items))


@overload
def unit_rows(features: sp.csr_matrix) -> sp.csr_matrix: ...
@overload
def unit_rows(features: Matrix) -> Matrix: ...
def unit_rows(features: Matrix | sp.csr_matrix) -> Matrix | sp.csr_matrix:
    """The rows, (items, n) float32, divided by their lengths; a row of zeros stays one."""
    if isinstance(features, sp.csr_matrix):
        squares = np.asarray(features.multiply(features).sum(axis=1)).ravel()
        return sp.csr_matrix(sp.diags(1.0 / np.maximum(np.sqrt(squares), 1e-12)) @ features).astype(np.float32)
    return np.asarray(features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12), dtype=np.float32)


def distributions(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """Each row divided by its sum; a row of zeros stays one."""
    sums = np.asarray(matrix.sum(axis=1)).ravel()
    return sp.csr_matrix(sp.diags(1.0 / np.maximum(sums, 1e-12)) @ matrix)


def _windows(
    log: Interactions, items: int, input_decay: float, target_decay: float
) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Histories and futures of every position that has a successor, both (positions, items)."""
    rows = np.flatnonzero(np.r_[log.users[1:] == log.users[:-1], False])
    number = np.full(len(log), -1)
    number[rows] = np.arange(len(rows))
    past: list[Entries] = []
    future: list[Entries] = []
    for distance in range(min(REACH, len(log))):
        back = rows[(rows >= distance) & (log.users[rows - distance] == log.users[rows])]
        past.append((number[back], log.items[back - distance], np.full(len(back), input_decay**distance, np.float32)))
        ahead = rows[rows + distance + 1 < len(log)]
        ahead = ahead[log.users[ahead] == log.users[ahead + distance + 1]]
        weight = np.full(len(ahead), target_decay**distance, np.float32)
        future.append((number[ahead], log.items[ahead + distance + 1], weight))
    return _sparse(past, (len(rows), items)), _sparse(future, (len(rows), items))


def _sparse(parts: list[Entries], shape: tuple[int, int]) -> sp.csr_matrix:
    row, col, value = (np.concatenate(column) for column in zip(*parts, strict=True))
    return sp.csr_matrix((value, (row, col)), shape=shape)


def _inverse(gram: Matrix, l2: float) -> Matrix:
    """(gram + l2 I)⁻¹ by Cholesky, overwriting `gram`: half the operations of a general inverse."""
    gram[np.diag_indices_from(gram)] += l2
    factor, failed = lapack.spotrf(gram, lower=1, overwrite_a=1)
    inverse, failed_too = lapack.spotri(factor, lower=1, overwrite_c=1)
    if failed or failed_too:
        raise ValueError(f"the Gram matrix with l2 = {l2} is not positive definite; use a larger l2")
    # LAPACK fills the lower triangle only, and leaves zeros above it.
    return np.asarray(inverse + np.tril(inverse, -1).T, dtype=np.float32)
