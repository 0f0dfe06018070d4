"""The rows that could not be used: counted by field, the first of each kept to show, all of them in a CSV file."""

import csv
import os
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from mmrec_stream.errors import UserError
from mmrec_stream.replay.rows import Reject


class Rejects:
    """Writes rejects to a file that is made with the first of them; what an earlier run left there is removed."""

    def __init__(self, path: Path) -> None:
        """Prepare to write to `path`.

        Raises:
            UserError: nothing can be written there.
        """
        self.path = path
        self.count = 0
        self.first: dict[str, Reject] = {}
        """The first reject of each field."""
        self.by_field: Counter[str] = Counter()
        self._files = ExitStack()
        self._writer: Any = None
        if not os.access(path.parent, os.W_OK):
            raise UserError(f"rejected rows would go to {path}, where nothing can be written: give --rejects PATH")
        path.unlink(missing_ok=True)

    def add(self, reject: Reject) -> None:
        """Keep one."""
        if self._writer is None:
            self._writer = csv.writer(self._files.enter_context(self.path.open("w", encoding="utf-8", newline="")))
            self._writer.writerow(["line", "field", "reason", "row"])
        self._writer.writerow([reject.line, reject.field, reject.reason, reject.row])
        self.count += 1
        self.by_field[reject.field] += 1
        self.first.setdefault(reject.field, reject)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()
