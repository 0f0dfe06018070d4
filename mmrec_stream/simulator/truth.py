"""What is true of the simulated shoppers: how many clicks a list earns, and the best list that could have been shown.

Clicks follow the position-based model (Richardson, Dominowska, Ragno, WWW 2007; Craswell et al., WSDM 2008): the
probability of a click at a place is that of examining the place times the item's attraction for the user. So the best
list is the most attractive items in falling order (rearrangement inequality), and every list has a known regret.
"""

import numpy as np
from numpy.typing import NDArray

from mmrec_stream.simulator.shoppers import EXAMINED_ON

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


def examination(places: int) -> Floats:
    """Probability that each place of a list is examined, from the first on, shape (places,)."""
    return np.asarray(EXAMINED_ON ** np.arange(places))


def expected_clicks(attraction: Floats, rows: Rows) -> float:
    """Clicks that a list earns in the mean.

    Args:
        attraction: of every item, shape (items,), as `Shoppers.attraction` has it.
        rows: the list's items, best first, shape (places,).
    """
    return float(examination(len(rows)) @ attraction[rows])


def best_list(attraction: Floats, allowed: NDArray[np.bool_], places: int) -> Rows:
    """The list that earns the most clicks among the allowed items, best first; shorter where too few are allowed.

    Args:
        attraction: of every item, shape (items,).
        allowed: which items a list may have, shape (items,).
        places: length of the list.
    """
    rows = np.flatnonzero(allowed)
    return np.asarray(rows[np.argsort(-attraction[rows], kind="stable")[:places]])


def regret(attraction: Floats, allowed: NDArray[np.bool_], rows: Rows, places: int) -> float:
    """Share of the best list's clicks that the list `rows` forgoes: 0 for the best one, 1 for an empty one.

    Raises:
        ValueError: no item is allowed.
    """
    best = expected_clicks(attraction, best_list(attraction, allowed, places))
    if not best:
        raise ValueError("no item is allowed, so that there is no best list")
    return 1.0 - expected_clicks(attraction, rows[:places]) / best
