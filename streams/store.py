"""The profiles table: a Faust table whose store is the profile rows of each partition the worker holds."""

import logging
from collections.abc import Iterable, Iterator
from typing import Any

import faust
import numpy as np
from faust.stores.base import Store
from faust.types import TP, EventT

from mmrec_stream.profiles.rows import ProfileRows
from streams.transport import MODE_LOG

STORE_URL = "rows://"

log = logging.getLogger(__name__)


class ProfileStore(Store[str, np.void]):
    """Rows by partition, and how far each partition's changelog is known.

    The worker writes the changelog itself, in batches, and tells `note_offset` what was delivered; a partition that
    stays through a rebalance is therefore known to be complete and need not be read again.
    """

    logger = MODE_LOG

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.partitions: dict[int, ProfileRows] = {}
        self._known: dict[int, int] = {}

    def rows(self, partition: int) -> ProfileRows:
        """The rows of a partition."""
        rows = self.partitions.get(partition)
        if rows is None:
            rows = self.partitions[partition] = ProfileRows()
        return rows

    def note_offset(self, partition: int, offset: int) -> None:
        """The changelog of `partition` is in the rows up to `offset`."""
        if offset > self._known.get(partition, -1):
            self._known[partition] = offset

    def known(self, partition: int) -> int:
        """The changelog offset up to which the rows are complete, −1 for none."""
        return self._known.get(partition, -1)

    def forget(self, partition: int) -> None:
        """Drop a partition's rows."""
        self.partitions.pop(partition, None)
        self._known.pop(partition, None)

    def persisted_offset(self, tp: TP) -> int | None:
        """As `known`, for Faust."""
        return self._known.get(tp.partition)

    def set_persisted_offset(self, tp: TP, offset: int) -> None:
        """As `note_offset`, for Faust."""
        self.note_offset(tp.partition, offset)

    def apply_changelog_batch(self, batch: Iterable[EventT[Any]], to_key: Any, to_value: Any) -> None:
        """Restore happens in `streams.recovery`, by the thousand; Faust hands nothing over."""
        raise NotImplementedError

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Drop the rows of partitions that are gone."""
        changelog = self.table.changelog_topic.get_topic_name()
        held = {tp.partition for tp in assigned if tp.topic == changelog}
        for partition in set(self.partitions) - held:
            self.forget(partition)

    async def backup_partition(self, tp: TP | int, flush: bool = True, purge: bool = False, keep: int = 1) -> None:
        """Nothing lies on this machine: the changelog is the backup."""
        raise NotImplementedError

    def restore_backup(self, tp: TP | int, latest: bool = True, backup_id: int = 0) -> None:
        """As `backup_partition`."""
        raise NotImplementedError

    def reset_state(self) -> None:
        """Drop everything."""
        self.partitions.clear()
        self._known.clear()

    def __getitem__(self, user: str) -> np.void:
        for rows in self.partitions.values():
            if (row := rows.row(user)) is not None:
                record: np.void = rows.records[row].copy()
                return record
        raise KeyError(user)

    def __setitem__(self, user: str, value: np.void) -> None:
        raise TypeError("profiles change by folding events only")

    def __delitem__(self, user: str) -> None:
        raise TypeError("profiles change by folding events only")

    def __iter__(self) -> Iterator[str]:
        for rows in self.partitions.values():
            yield from rows

    def __len__(self) -> int:
        return sum(map(len, self.partitions.values()))

    def clear(self) -> None:
        """Drop everything."""
        self.reset_state()


class ProfileTable(faust.Table[str, np.void]):
    """A Faust table over `ProfileStore`."""

    logger = MODE_LOG

    def _new_store(self) -> ProfileStore:
        return ProfileStore(STORE_URL, self.app, self, table_name=self.name)


def restore(store: ProfileStore, messages: Iterable[Any]) -> None:
    """Take changelog records of any partitions, each partition's in order, into the rows."""
    by_partition: dict[int, list[Any]] = {}
    for message in messages:
        by_partition.setdefault(message.partition(), []).append(message)
    for partition, records in by_partition.items():
        values = [record.value() for record in records]
        keys = [record.key() for record in records]
        restored = store.rows(partition).restore(keys, values)
        for place, reason in restored.examples:
            log.warning("changelog partition %d, offset %d: %s", partition, records[place].offset(), reason)
        store.note_offset(partition, records[-1].offset())
