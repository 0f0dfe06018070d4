"""The profiles table: a Faust table over the rows of the partitions that the worker owns."""

from collections.abc import Iterable, Iterator
from typing import Any, cast

import faust
import numpy as np
from faust.stores.base import Store
from faust.types import TP, EventT

from streams.driver import MODE_LOG
from streams.ownership import Ownership, Ownerships

STORE_URL = "rows://"


class ProfileStore(Store[str, np.void]):
    """A view: each ownership has its rows, and brings them back by itself."""

    logger = MODE_LOG

    @property
    def _owners(self) -> Iterable[Ownership]:
        assignment = getattr(self.app, "assignment", None)
        return cast("Ownerships", assignment.owners) if assignment is not None else ()

    def persisted_offset(self, tp: TP) -> int | None:
        """Faust restores nothing."""
        return None

    def set_persisted_offset(self, tp: TP, offset: int) -> None:
        """As `persisted_offset`."""

    def apply_changelog_batch(self, batch: Iterable[EventT[Any]], to_key: Any, to_value: Any) -> None:
        """As `persisted_offset`: restoring is the assignment's, by the thousand."""
        raise NotImplementedError

    async def backup_partition(self, tp: TP | int, flush: bool = True, purge: bool = False, keep: int = 1) -> None:
        """Nothing lies on this machine: the changelog is the backup."""
        raise NotImplementedError

    def restore_backup(self, tp: TP | int, latest: bool = True, backup_id: int = 0) -> None:
        """As `backup_partition`."""
        raise NotImplementedError

    def reset_state(self) -> None:
        """Rows go with their ownership."""

    def __getitem__(self, user: str) -> np.void:
        for owner in self._owners:
            rows = owner.table.rows
            if (row := rows.row(user)) is not None:
                record: np.void = rows.records[row].copy()
                return record
        raise KeyError(user)

    def __setitem__(self, user: str, value: np.void) -> None:
        raise TypeError("profiles change by folding events only")

    def __delitem__(self, user: str) -> None:
        raise TypeError("profiles change by folding events only")

    def __iter__(self) -> Iterator[str]:
        for owner in self._owners:
            yield from owner.table.rows

    def __len__(self) -> int:
        return sum(len(owner.table.rows) for owner in self._owners)

    def clear(self) -> None:
        """As `reset_state`."""


class ProfileTable(faust.Table[str, np.void]):
    """A Faust table over `ProfileStore`."""

    logger = MODE_LOG

    def _new_store(self) -> ProfileStore:
        return ProfileStore(STORE_URL, self.app, self, table_name=self.name)
