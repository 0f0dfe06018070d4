"""The input that every system reads: behaviour events of a busy shop, the same ones for the same seed."""

from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmrec_stream.contracts.identity import partition_of

# What shoppers do, in the shares of the public REES46 shop log (views far ahead, one purchase in thirty views),
# with the event types that it lacks taken from the views.
_MIXTURE = {
    "view": 0.60,
    "click": 0.20,
    "add_to_cart": 0.08,
    "remove_from_cart": 0.02,
    "purchase": 0.03,
    "impression": 0.05,
    "rating": 0.015,
    "follow": 0.005,
}

_FIRST_MS = 1_700_000_000_000
"""November 2023: past for every clock, so that no event counts as one from the future."""

CATEGORIES = [
    f"{a}.{b}" for a in ("shoes", "coats", "phones", "lamps", "books") for b in ("basic", "sport", "lux", "sale")
]


class Message(msgspec.Struct, frozen=True, gc=False):
    """A record to produce."""

    partition: int
    key: bytes
    value: bytes


def user_ids(users: int) -> list[str]:
    """The ids of the users, `u00000` and on."""
    return [f"u{number:05d}" for number in range(users)]


def item_id(row: int) -> str:
    """The id of an item."""
    return f"p{row:06d}"


def messages(
    count: int,
    *,
    users: int = 20_000,
    items: int = 10_000,
    partitions: int = 4,
    seed: int = 7,
    first_ms: int = _FIRST_MS,
) -> Iterator[Message]:
    """`count` behaviour events of about 110 bytes in time order, keyed by user and placed by murmur2.

    Users and items are drawn with Zipf-like weights (exponents .4 and .8: nobody is silent, a few are busy), one
    event every half millisecond.
    """
    ids = user_ids(users)
    keys = [name.encode() for name in ids]
    places = [partition_of(key, partitions) for key in keys]
    random = np.random.default_rng(seed)
    kinds = list(_MIXTURE)
    chunk = 100_000
    for start in range(0, count, chunk):
        size = min(chunk, count - start)
        who = _zipf(random, users, 0.4, size).tolist()
        what = _zipf(random, items, 0.8, size).tolist()
        how = random.choice(len(kinds), size=size, p=list(_MIXTURE.values())).tolist()
        for place in range(size):
            user, item = who[place], what[place]
            ts = first_ms + (start + place) // 2
            yield Message(places[user], keys[user], _event(kinds[how[place]], ids[user], ts, item).encode())


def one_each(users: int, *, partitions: int = 4, seed: int = 7, first_ms: int = _FIRST_MS) -> Iterator[Message]:
    """One click of each of `users` users, in random order."""
    random = np.random.default_rng(seed)
    items = random.integers(0, 10_000, users).tolist()
    for user in random.permutation(users).tolist():
        name = f"u{user:05d}"
        key = name.encode()
        yield Message(partition_of(key, partitions), key, _event("click", name, first_ms, items[user]).encode())


def _event(kind: str, user: str, ts: int, item: int) -> str:
    head = f'{{"type":"{kind}","user_id":"{user}","ts":{ts}'
    if kind == "follow":
        return f'{head},"brand":"brand{item % 200:03d}"}}'
    body = f'{head},"item_id":"{item_id(item)}","category":"{CATEGORIES[item % 20]}"'
    match kind:
        case "impression":
            return f'{body},"list_id":"front","position":{item % 12}}}'
        case "rating":
            return f'{body},"rating":{1 + item % 5}}}'
        case _:
            return f'{body},"price":{5 + item % 400}.9}}'


def _zipf(random: np.random.Generator, n: int, exponent: float, size: int) -> NDArray[np.int64]:
    """`size` draws from 0..n-1 with P(k) proportional to (k + 1)^-exponent, by inverting the continuous law."""
    power = 1.0 - exponent
    ranks = ((n**power - 1.0) * random.random(size) + 1.0) ** (1.0 / power) - 1.0
    order = np.random.default_rng(n).permutation(n)
    chosen: NDArray[np.int64] = order[np.minimum(ranks.astype(np.int64), n - 1)]
    return chosen
