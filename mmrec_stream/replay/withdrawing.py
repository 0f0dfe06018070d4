"""Products that a catalogue file no longer has: which they are, and whether they may all be taken out at once."""

from collections.abc import Set
from dataclasses import dataclass

from mmrec_stream.catalogue.changes import read_changes
from mmrec_stream.errors import UserError
from mmrec_stream.kafka.reader import keyed, read_batches
from mmrec_stream.settings import Settings


def published_ids(settings: Settings, topic: str) -> set[str]:
    """Ids of the products that the catalogue topic has, without those that were taken out.

    Raises:
        UserError: no broker answers, or the topic is missing.
    """
    there: set[str] = set()
    for messages in read_batches(settings, topic):
        changes = read_changes(keyed(messages))
        there.update(item.item_id for item in changes.items)
        there.difference_update(changes.removed)
    return there


@dataclass(frozen=True)
class Missing:
    """Products in the topic that a file does not have."""

    item_ids: list[str]
    """In alphabetical order."""
    published: int
    """How many products the topic had before."""
    nameless: int
    """Rows of the file that were rejected and whose product cannot be told."""

    @classmethod
    def of(cls, published: Set[str], in_file: Set[str], nameless: int) -> "Missing":
        """What is in the topic and not in the file; a row that was rejected counts as being there."""
        return cls(sorted(published - in_file), len(published), nameless)

    def check(self, most: float) -> None:
        """Make sure that it is safe to take them out.

        Args:
            most: largest share of the catalogue that may go, 0 to 1.

        Raises:
            UserError: more would go, or a row may be one of them.
        """
        if not self.item_ids:
            return
        if self.nameless:
            raise UserError(
                f"nothing is withdrawn: {self.nameless:,} rejected rows do not say which product they are, and may be "
                "some that seem to be missing; mend them or take them out of the file"
            )
        share = len(self.item_ids) / self.published
        if share > most:
            raise UserError(
                f"nothing is withdrawn: the file lacks {len(self.item_ids):,} of {self.published:,} products "
                f"({share:.0%}), and at most {most:.0%} may go at once; if it is whole, give --most-withdrawn "
                f"{-(-len(self.item_ids) * 100 // self.published) / 100:g}"
            )
