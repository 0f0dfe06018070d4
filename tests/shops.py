"""Small synthetic logs whose structure is known, for tests of methods and splits."""

import numpy as np

from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.data.dataset import Dataset, Interactions

DAY = 86_400_000
START = 1_600_000_000_000


def chain_shop(users: int = 60, items: int = 12, length: int = 8, seed: int = 0) -> Dataset:
    """Every user walks through the items in a circle: after item i comes item i + 1, one a day, from a random start.

    Each user trusts the next one, which says nothing of what they take.
    """
    starts = np.random.default_rng(seed).integers(0, items, users)
    owners = np.repeat(np.arange(users), length)
    steps = np.tile(np.arange(length), users)
    walked = (np.repeat(starts, length) + steps) % items
    log = Interactions.of(owners, walked, START + DAY * steps)
    angle = 2 * np.pi * np.arange(items) / items
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    ids = [f"i{item}" for item in range(items)]
    trust = np.stack([np.arange(users), (np.arange(users) + 1) % users], axis=1).astype(np.int32)
    # Neighbours on the circle share a word.
    entries = [CatalogueItem(item_id=ids[item], title=f"w{item} w{(item + 1) % items}") for item in range(items)]
    names = [f"u{user}" for user in range(users)]
    return Dataset("chain", log, names, ids, entries, features={"shape": circle}, social=trust)
