"""The merchandiser's rules where the gateway makes a list itself: what may be shown, and what of it is chosen."""

from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np

from mmrec_stream.catalogue.columns import ProductColumns
from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.contracts.identity import id_keys
from mmrec_stream.policies.policy import FALLBACK, POOL, Policy, Viewer
from mmrec_stream.storefront.related import Related

LOOKED_AT = 20_000
"""Products that are looked through for a popular list: what rules leave of the assortment may be rare, and a list is to
cost milliseconds all the same."""


class Rules:
    """The rules in force, and what they read of the products. One thread updates; any may ask."""

    def __init__(self) -> None:
        self._columns = ProductColumns()
        self._policy: Policy | None = None

    @property
    def policy(self) -> Policy | None:
        """The rules; None where there are none."""
        return self._policy

    @property
    def read_visits(self) -> bool:
        """Whether what is shown depends on the visit."""
        return self._policy is not None and self._policy.reads_visits

    @property
    def read_shown(self) -> bool:
        """Whether what is shown depends on what was shown before."""
        return self._policy is not None and self._policy.reads_shown

    def update(self, items: Sequence[CatalogueItem]) -> None:
        """Take what the catalogue says of products, each once."""
        rows = self._columns.update(items)
        if self._policy is not None:
            self._policy.refresh(self._columns, rows)

    def obey(self, policy: Policy | None) -> None:
        """Make lists by these rules from now on; None: by none."""
        if policy is not None:
            policy.refresh(self._columns)
        self._policy = policy

    def permitted(self, viewer: Viewer, item_ids: Sequence[str], made_by: str = "") -> list[str]:
        """Those of the items that may be shown, in their order.

        Args:
            viewer: who and where.
            item_ids: what a list has.
            made_by: the rules that the list obeys already: where filters gave way, they do so here too.
        """
        policy = self._policy
        if policy is None or not item_ids:
            return list(item_ids)
        gave_way = made_by.endswith(f"/{FALLBACK}")
        passing = policy.passes(viewer, id_keys(item_ids), required=gave_way)
        return [item_id for item_id, passes in zip(item_ids, passing.tolist(), strict=True) if passes]

    def popular(self, viewer: Viewer, found: Iterable[str], places: int) -> list[str]:
        """The list that rules make of what is popular, where filters give way as in workers' lists.

        Args:
            viewer: where.
            found: ids, the most popular first; no more is taken of them than is needed.
            places: most of the list.
        """
        policy = self._policy
        if policy is None:
            return list(islice(found, places))
        looked_at, passing = list[str](), list[str]()
        remaining = iter(found)
        while len(passing) < max(POOL, places) and len(looked_at) < LOOKED_AT:
            if not (some := list(islice(remaining, POOL))):
                break
            looked_at += some
            passing += self.permitted(viewer, some)
        # Popularity falls about as one over the rank, and how often each was chosen is not known here.
        weights = np.reciprocal(np.arange(1, len(passing) + 1, dtype=np.float32))
        chosen = policy.choose(viewer, id_keys(passing), weights, places)
        if not chosen:
            return self.permitted(viewer, looked_at, f"/{FALLBACK}")[:places]
        return [one.item_id or passing[one.candidate] for one in chosen]

    def choose(self, viewer: Viewer, found: Sequence[Related], places: int) -> list[Related]:
        """The list that rules make of what goes together: filtered, boosted, capped, with what is pinned there.

        Where nothing passes, nothing is shown: something else that goes with a product there is not.

        Args:
            viewer: who and where.
            found: by falling weight.
            places: most of the list.
        """
        policy = self._policy
        if policy is None or not found:
            return list(found[:places])
        weights = np.array([one.weight for one in found], dtype=np.float32)
        chosen = policy.choose(viewer, id_keys([one.item_id for one in found]), weights, places)
        return [
            found[one.candidate] if one.candidate >= 0 else Related(one.item_id, one.score, "", rule=one.rule)
            for one in chosen
        ]
