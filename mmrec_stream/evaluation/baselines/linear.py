"""Linear autoencoders as baselines: EASE as published, with decayed input, and with a sense of order."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from mmrec_stream.data import item_item
from mmrec_stream.data.dataset import Dataset, Interactions
from mmrec_stream.errors import UserError
from mmrec_stream.evaluation.baselines.base import Setting
from mmrec_stream.evaluation.baselines.counting import ItemItem

MOST_ITEMS = 25_000
"""Items up to which the dense inverse is taken: 7.5 GB, and some five minutes on one core."""


class DecayedEase(ItemItem):
    """EASE asked with a history whose weights fall with age."""

    learn_grid: ClassVar[Mapping[str, Sequence[Setting]]] = {"l2": (250, 100)}

    def learn(self, dataset: Dataset, log: Interactions) -> None:
        """Solve the regression."""
        _check(dataset)
        self._weights = item_item.ease(log, dataset.items, l2=self.number("l2"))


class Ease(DecayedEase):
    """EASE as published: the order of the history does not matter."""

    learn_grid: ClassVar[Mapping[str, Sequence[Setting]]] = {"l2": (250,)}
    ask_grid: ClassVar[Mapping[str, Sequence[Setting]]] = {"decay": (1.0,)}


class DirectedEase(ItemItem):
    """SLIT: the regression of what comes next on the decayed history."""

    learn_grid: ClassVar[Mapping[str, Sequence[Setting]]] = {"l2": (80,), "target_decay": (0.5,)}

    def learn(self, dataset: Dataset, log: Interactions) -> None:
        """Solve the regression."""
        _check(dataset)
        self._weights = item_item.directed_ease(
            log,
            dataset.items,
            l2=self.number("l2"),
            target_decay=self.number("target_decay"),
            repeats=self.repeats,
        )


def _check(dataset: Dataset) -> None:
    if dataset.items > MOST_ITEMS:
        raise UserError(
            f"data set {dataset.name}: EASE inverts an items x items matrix; {dataset.items} items are more than "
            f"{MOST_ITEMS}. Leave this method out with --methods."
        )
