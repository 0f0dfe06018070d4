"""What models are trained and judged on: interactions as columns, the ids behind them, and what is known of the items.

Rows of `Interactions` refer to users and items by number; `Dataset` holds the ids that the numbers stand for.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmrec_stream.contracts.behaviour import BehaviourRecord, EventType, Follow, Forget, Rating
from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.contracts.fields import EARLIEST_MS
from mmrec_stream.errors import UserError
from mmrec_stream.profiles.fold import taste_weights
from mmrec_stream.profiles.tastes import SHOP_TASTES, Tastes

Mask = NDArray[np.bool_]

DAY_MS = 86_400_000

BEST_RATING = 5.0

STEP_MS = 1_000
"""Time between consecutive items of a sequence that has an order but no clock: any constant gives the same order;
a second keeps the times of the longest sequences within one day, so that nothing decays by age."""


@dataclass(frozen=True)
class Interactions:
    """Who did what with which item and when, one array a column, all of shape (events,).

    Sorted by user, then time, then arrival.
    """

    users: NDArray[np.int32]
    items: NDArray[np.int32]
    times: NDArray[np.int64]
    """Milliseconds since 1970, UTC."""
    types: NDArray[np.int8]
    """Codes of `EventType`."""
    ratings: NDArray[np.float32]
    """From 0 to 5; 0 where the event is no rating."""
    rule: Tastes = SHOP_TASTES
    """What each event says of its user's taste, for whoever learns or judges from them."""

    @classmethod
    def of(
        cls,
        users: NDArray[np.integer],
        items: NDArray[np.integer],
        times: NDArray[np.integer],
        types: NDArray[np.integer] | None = None,
        ratings: NDArray[np.floating] | None = None,
        rule: Tastes = SHOP_TASTES,
    ) -> "Interactions":
        """The columns in any order of arrival, sorted.

        Without `types` every row is a click; without `ratings` every rating is the best one.
        """
        if types is None:
            types = np.full(len(users), EventType.CLICK, dtype=np.int8)
        if ratings is None:
            ratings = np.where(types == EventType.RATING, BEST_RATING, 0.0)
        order = np.lexsort((times, users))
        return cls(
            users[order].astype(np.int32),
            items[order].astype(np.int32),
            times[order].astype(np.int64),
            types[order].astype(np.int8),
            ratings[order].astype(np.float32),
            rule,
        )

    def __len__(self) -> int:
        return len(self.users)

    def where(self, keep: Mask | NDArray[np.integer]) -> "Interactions":
        """The rows that a mask or an ascending index array names."""
        return Interactions(
            self.users[keep], self.items[keep], self.times[keep], self.types[keep], self.ratings[keep], self.rule
        )

    @property
    def tastes(self) -> NDArray[np.float32]:
        """How much each event says of its user's taste, by the profile's own rule, shape (events,)."""
        return taste_weights(self.types, self.ratings, self.rule)

    @property
    def likings(self) -> Mask:
        """Which events are likings: what models foresee and learn associations from, shape (events,).

        A poor rating, taking something back and being shown something are none.
        """
        return self.tastes > 0

    @property
    def firsts(self) -> Mask:
        """Which events are their user's first with their item, shape (events,)."""
        mask = np.zeros(len(self), dtype=bool)
        mask[np.unique(self.users.astype(np.int64) << 32 | self.items, return_index=True)[1]] = True
        return mask

    def without_impressions(self) -> "Interactions":
        """What users did. What they have only been shown is not in a profile's history."""
        return self.where(self.types != EventType.IMPRESSION)

    def offsets(self, users: int) -> NDArray[np.int64]:
        """Where each user's rows begin, shape (users + 1,): user u has the rows offsets[u]:offsets[u + 1]."""
        return np.searchsorted(self.users, np.arange(users + 1)).astype(np.int64)

    def positions(self) -> NDArray[np.int64]:
        """Each row's place in its user's sequence, from 0, shape (events,)."""
        if not len(self):
            return np.empty(0, dtype=np.int64)
        starts = np.flatnonzero(np.r_[True, self.users[1:] != self.users[:-1]])
        return np.arange(len(self)) - np.repeat(starts, np.diff(np.r_[starts, len(self)]))


@dataclass(frozen=True)
class Dataset:
    """A log of interactions together with what is known of its users and items."""

    name: str
    interactions: Interactions
    user_ids: Sequence[str]
    item_ids: Sequence[str]
    catalogue: Sequence[CatalogueItem] | None = None
    """One entry an item, in the order of `item_ids`."""
    features: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    """Precomputed item vectors by name, each (items, width); a row of zeros is an item without one."""
    social: NDArray[np.int32] | None = None
    """Who follows or trusts whom, (edges, 2): follower, followed, as user numbers."""
    timed: bool = True
    """Whether the times are a clock's, not just an order."""
    listed: bool = False
    """Whether items are numbered in the order in which a catalogue came to list them, not by their first event."""

    def __post_init__(self) -> None:
        for name, matrix in self.features.items():
            if matrix.shape[0] != self.items:
                raise UserError(
                    f"data set {self.name}: feature {name} has {matrix.shape[0]} rows for {self.items} items"
                )
        if self.catalogue is not None and len(self.catalogue) != self.items:
            raise UserError(f"data set {self.name}: {len(self.catalogue)} catalogue entries for {self.items} items")

    @property
    def users(self) -> int:
        """How many users there are."""
        return len(self.user_ids)

    @property
    def items(self) -> int:
        """How many items there are, seen in an interaction or not."""
        return len(self.item_ids)


def read_sequences(path: Path) -> Dataset:
    """A sequence file as a data set: one user a line, the user and then the items in time order, by white space.

    Raises:
        UserError: The file cannot be read, a line has no item, or a user has two lines.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the sequences of {path}: {error}") from error
    user_numbers: dict[str, int] = {}
    item_numbers: dict[str, int] = {}
    users: list[int] = []
    items: list[int] = []
    positions: list[int] = []
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) == 1:
            raise UserError(f"{path}, line {number}: user {fields[0]} has no items; a line is: user item item …")
        if fields[0] in user_numbers:
            raise UserError(f"{path}, line {number}: user {fields[0]} has a line already; give each user one line")
        user = user_numbers[fields[0]] = len(user_numbers)
        users.extend([user] * (len(fields) - 1))
        items.extend(item_numbers.setdefault(item, len(item_numbers)) for item in fields[1:])
        positions.extend(range(len(fields) - 1))
    if not users:
        raise UserError(f"{path} holds no sequences; a line is: user item item …")
    times = EARLIEST_MS + STEP_MS * np.array(positions, dtype=np.int64)
    interactions = Interactions.of(np.array(users), np.array(items), times)
    return Dataset(path.stem.lower(), interactions, list(user_numbers), list(item_numbers), timed=False)


def from_events(
    name: str,
    events: Iterable[BehaviourRecord],
    catalogue: Iterable[CatalogueItem] = (),
    rule: Tastes = SHOP_TASTES,
) -> Dataset:
    """Behaviour events and catalogue entries, in any order, as a data set.

    Every event that names an item is an interaction, of its own type; follows between users become social edges.
    Items that only events name get an entry with what the newest event says of them. What a user who asked to be
    forgotten had done by then is left out, and so are follows of them, and items that nothing else names.
    """
    entries = {item.item_id: item for item in catalogue}
    item_numbers = {item_id: row for row, item_id in enumerate(entries)}
    user_numbers: dict[str, int] = {}
    rows: list[tuple[int, int, int, int]] = []
    ratings: list[float] = []
    edges: list[tuple[int, int, int]] = []
    forgotten: dict[str, int] = {}
    hints: dict[str, tuple[int, CatalogueItem]] = {}
    for event in events:
        if isinstance(event, Forget):
            forgotten[event.user_id] = max(event.ts, forgotten.get(event.user_id, 0))
            continue
        user = user_numbers.setdefault(event.user_id, len(user_numbers))
        if isinstance(event, Follow):
            if event.followed_user_id is not None:
                followed = user_numbers.setdefault(event.followed_user_id, len(user_numbers))
                edges.append((user, followed, event.ts))
            continue
        item = item_numbers.setdefault(event.item_id, len(item_numbers))
        rows.append((user, item, event.ts, event.CODE))
        ratings.append(event.rating if isinstance(event, Rating) else 0.0)
        if event.item_id not in entries and event.ts >= hints.get(event.item_id, (0,))[0]:
            known = CatalogueItem(item_id=event.item_id, category=event.category, brand=event.brand, price=event.price)
            hints[event.item_id] = (event.ts, known)
    columns = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    social = np.array(edges, dtype=np.int64).reshape(-1, 3)
    rated = np.array(ratings)
    user_ids, item_ids = list(user_numbers), list(item_numbers)
    if forgotten:
        until = np.array([forgotten.get(user, -1) for user in user_ids], dtype=np.int64)
        kept = columns[2] > until[columns[0]]
        known = social[:, 2] > until[social[:, :2]].max(axis=1, initial=-1)
        columns, rated, social = columns[:, kept], rated[kept], social[known]
        user_ids, (columns[0], social[:, :2]) = _named(user_ids, until < 0, columns[0], social[:, :2])
        listed = np.arange(len(item_ids)) < len(entries)
        item_ids, (columns[1],) = _named(item_ids, listed, columns[1])
    return Dataset(
        name,
        Interactions.of(columns[0], columns[1], columns[2], columns[3], rated, rule),
        user_ids,
        item_ids,
        [entries.get(item_id) or hints[item_id][1] for item_id in item_ids],
        social=social[:, :2].astype(np.int32) if len(social) else None,
        listed=bool(entries) and len(item_ids) == len(entries),
    )


def _named(
    ids: Sequence[str], kept: Mask, *numbers: NDArray[np.int64]
) -> tuple[list[str], tuple[NDArray[np.int64], ...]]:
    """Without the ids that are not `kept` and that no number stands for: those left, and the numbers anew."""
    named = kept.copy()
    for some in numbers:
        named[some] = True
    places = np.cumsum(named) - 1
    return [ids[place] for place in np.flatnonzero(named).tolist()], tuple(places[some] for some in numbers)
