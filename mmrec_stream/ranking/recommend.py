"""Lists for a batch of profiles: the hybrid ranking where the release knows the user, what is popular where not."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from mmrec_stream.catalogue.attributes import Catalogue
from mmrec_stream.contracts.identity import id_keys
from mmrec_stream.contracts.recommendations import Reason, Recommended
from mmrec_stream.policies.policy import FALLBACK, POOL, Policy, Viewer, Viewers
from mmrec_stream.profiles.record import Records
from mmrec_stream.profiles.shown import Shown
from mmrec_stream.profiles.tastes import SHOP_TASTES, Tastes
from mmrec_stream.ranking.features import Labels, features_of
from mmrec_stream.ranking.popularity import Popularity
from mmrec_stream.ranking.repeats import Repeats, barred_keys
from mmrec_stream.ranking.scorer import Scorer
from mmrec_stream.ranking.types import Lists
from mmrec_stream.releases.rollout import in_canary

log = logging.getLogger(__name__)

NO_RELEASE = "none"
"""What a list names as its release while there is none."""

POPULAR_REFRESH_S = 1.0
"""How old the popular items may be. Their counts have a half-life of hours; ordering a million of them takes 10 ms."""

POPULAR_SPARE = 64
"""Popular items kept beyond a list's length, to make up for those that a user has had or that cannot be sold."""


@dataclass(frozen=True, slots=True)
class Slate:
    """The items of one user's list, best first."""

    items: list[Recommended]
    strategy: str
    release: str
    alpha: float
    policy: str = ""
    """Id and version of the rules that the list obeys; empty where there are none."""


class Arm:
    """A release as lists are made with it."""

    def __init__(self, scorer: Scorer) -> None:
        lists = scorer.release.vocabularies
        self.scorer = scorer
        self.categories, self.brands = Labels(lists["categories"]), Labels(lists["brands"])


@dataclass(frozen=True)
class Tried:
    """A release on trial."""

    arm: Arm
    share: float
    """Of the users who are shown its lists: 0 in shadow."""
    told: Callable[[Sequence[str], Records, int], None]
    """Shown every batch (users, their profiles, ms since 1970) before it is scored; keeps none of it without a copy."""
    failed: Callable[[int], None]
    """Told of users whose lists it could not make, and who were given the live release's."""


class Recommender:
    """What a worker recommends with: the releases that serve, the catalogue, and what is popular.

    `recommend` runs on one thread at a time; releases may be replaced from another between two batches.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        popularity: Popularity,
        *,
        list_size: int,
        repeats: Repeats,
        tastes: Tastes = SHOP_TASTES,
        shown: Shown | None = None,
    ) -> None:
        """Nothing serves yet.

        Args:
            catalogue: what can be sold.
            popularity: what strangers are shown.
            list_size: places of a list.
            repeats: what is left out of a user's list, as he has had it.
            tastes: by which profiles were folded.
            shown: what users were shown lately, for rules that read it; where None, such rules do not count.
        """
        self._shown = shown
        self._catalogue = catalogue
        self._popularity = popularity
        self._list_size = list_size
        self._repeats = repeats
        self._tastes = tastes
        self._live: Arm | None = None
        self._tried: Tried | None = None
        self._policy: Policy | None = None
        self._popular: _Popular | None = None
        self._batch = threading.Lock()

    @property
    def changes(self) -> int:
        """How often the catalogue has changed; what was recommended at another count is to be checked."""
        return self._catalogue.version

    def sellable(self, item_ids: Sequence[str]) -> NDArray[np.bool_]:
        """Whether each item may be recommended now."""
        return self._catalogue.sellable(id_keys(item_ids))

    @property
    def arm(self) -> Arm | None:
        """The release that serves, as lists are made with it."""
        return self._live

    @property
    def scorer(self) -> Scorer | None:
        """The release that serves."""
        return self._live.scorer if self._live else None

    @property
    def release(self) -> str:
        """Version of the release that serves."""
        return self._live.scorer.version if self._live else NO_RELEASE

    def serve(self, arm: Arm | Scorer, tried: Tried | None = None) -> None:
        """Use a release from the next batch on, and another one beside it.

        Nothing of what served before is in use when this returns: whoever called may free it, which takes tens of
        milliseconds, on a thread that has them.
        """
        serving = arm if isinstance(arm, Arm) else Arm(arm)
        with self._batch:
            self._live, self._tried = serving, tried

    def obey(self, policy: Policy | None) -> None:
        """Use rules from the next batch on; None for none."""
        self._policy = policy

    def recommend(self, users: Sequence[str], records: Records, now_ms: int) -> list[Slate]:
        """A list for each profile; `records` is the caller's copy and is changed. `users` are their ids."""
        with self._batch:
            live, tried = self._live, self._tried
            if live is None:
                return self._popular_slates(users, records, now_ms, None, self._policy)
            if tried is None:
                return self.slates(live, users, records, now_ms)
            tried.told(users, records, now_ms)
            shown = in_canary(id_keys(users), tried.arm.scorer.version, tried.share)
            if not shown.any():
                return self.slates(live, users, records, now_ms)
            apart = [[user for user, one in zip(users, shown, strict=True) if one == there] for there in (True, False)]
            theirs = iter(self._tried_slates(tried, live, apart[0], records[shown], now_ms))
            others = iter(self.slates(live, apart[1], records[~shown], now_ms))
            return [next(theirs if one else others) for one in shown.tolist()]

    def _tried_slates(
        self, tried: Tried, live: Arm, users: Sequence[str], records: Records, now_ms: int
    ) -> list[Slate]:
        try:
            slates = self.slates(tried.arm, users, records.copy(), now_ms)
        except Exception:
            log.exception("scoring %d users with %s failed", len(records), tried.arm.scorer.version)
            slates = []
        bad = [user for user in range(len(records)) if not slates or not slates[user].items]
        if bad:
            tried.failed(len(bad))
            instead = dict(
                zip(bad, self.slates(live, [users[user] for user in bad], records[bad], now_ms), strict=True)
            )
            slates = [instead[user] if user in instead else slates[user] for user in range(len(records))]
        return slates

    def slates(self, arm: Arm, users: Sequence[str], records: Records, now_ms: int) -> list[Slate]:
        """Lists by one release, for users with these ids and profiles; any thread may ask."""
        if not len(records):
            return []
        scorer, policy = arm.scorer, self._policy
        features, known = features_of(
            records,
            scorer.table,
            arm.categories,
            arm.brands,
            now_ms=now_ms,
            repeats=self._repeats.learned(scorer.cycles),
            max_history=scorer.max_history,
            tastes=self._tastes,
        )
        version = scorer.version
        strangers = np.flatnonzero(~known)
        names = [users[stranger] for stranger in strangers.tolist()]
        popular = iter(self._popular_slates(names, records[strangers], now_ms, scorer, policy))
        if len(strangers) == len(records):
            return list(popular)
        wanted = self._list_size if policy is None or not policy.chooses else max(POOL, self._list_size)
        lists = scorer.run(features, wanted)
        if policy is not None:
            own = np.flatnonzero(known)
            chosen = iter(
                self._chosen(policy, scorer, [users[user] for user in own.tolist()], records[own], own, lists, now_ms)
            )
            return [next(chosen if there else popular) for there in known.tolist()]
        ids = scorer.table.ids
        rows, scores = lists.rows.tolist(), lists.scores.tolist()
        p_user, p_item, alpha = lists.p_user.tolist(), lists.p_item.tolist(), lists.alpha.tolist()
        slates = []
        for user in range(len(records)):
            if not known[user]:
                slates.append(next(popular))
                continue
            items = [
                Recommended(item_id=ids[row], score=score, p_user=by_user, p_item=by_item)
                for row, score, by_user, by_item in zip(
                    rows[user], scores[user], p_user[user], p_item[user], strict=True
                )
                if score > 0
            ]
            slates.append(Slate(items, "hybrid", version, alpha[user]))
        return slates

    def _chosen(
        self,
        policy: Policy,
        scorer: Scorer,
        users: Sequence[str],
        records: Records,
        places: NDArray[np.int64],
        lists: Lists,
        now_ms: int,
    ) -> list[Slate]:
        """Lists by rules, of users with these ids, profiles and places in `lists`.

        Where rules leave nothing, what is popular and passes those that are required.
        """
        rows, table, fits = lists.rows[places], scorer.table, policy.rules
        barred = barred_keys(records, np.array(now_ms // 1000), self._repeats.learned(scorer.cycles))
        viewers = self._viewers(policy, users, records)
        chosen = policy.choose_all(
            viewers,
            table.keys[rows],
            lists.scores[places],
            self._list_size,
            table.vectors[rows] if fits.diversity else None,
            [frozenset(each.tolist()) for each in barred] if fits.pins else None,
        )
        slates = []
        for number, place in enumerate(places.tolist()):
            items = []
            for one in chosen[number]:
                reason = Reason(kind="rule", of=one.rule) if one.rule else None
                if (at := one.candidate) < 0:
                    if (row := table.row(one.item_id)) < 0 or table.available[row]:
                        items.append(Recommended(item_id=one.item_id, score=0.0, reason=reason))
                    continue
                items.append(
                    Recommended(
                        item_id=table.ids[int(rows[number, at])],
                        score=one.score,
                        p_user=float(lists.p_user[place, at]),
                        p_item=float(lists.p_item[place, at]),
                        reason=reason,
                    )
                )
            if items:
                slates.append(Slate(items, "hybrid", scorer.version, float(lists.alpha[place]), policy.name))
            else:
                slates.append(self._fallback(policy, viewers.one(number), barred[number], scorer.version))
        return slates

    def _viewers(self, policy: Policy, users: Sequence[str], records: Records) -> Viewers:
        shown = self._shown.of(users) if self._shown is not None and policy.reads_shown else None
        return Viewers(users, records["events"], shown=shown)

    def _fallback(self, policy: Policy, viewer: Viewer, barred: NDArray[np.uint64], release: str) -> Slate:
        _, keys, _ = self._popular_items()
        passing = policy.passes(viewer, keys, required=True)
        slate = self._popular_slate(barred, release, passing)
        return replace(slate, policy=f"{policy.name}/{FALLBACK}")

    def _popular_slates(
        self, users: Sequence[str], records: Records, now_ms: int, scorer: Scorer | None, policy: Policy | None
    ) -> list[Slate]:
        if not len(records):
            return []
        release, cycles = (scorer.version, scorer.cycles) if scorer else (NO_RELEASE, None)
        barred = barred_keys(records, np.array(now_ms // 1000), self._repeats.learned(cycles))
        if policy is None:
            return [self._popular_slate(each, release) for each in barred]
        ids, keys, shares = self._popular_items()
        theirs = np.tile(keys, (len(records), 1))
        free = np.where([np.isin(keys, each) for each in barred], 0.0, shares).astype(np.float32)
        held = [frozenset(each.tolist()) for each in barred]
        viewers = self._viewers(policy, users, records)
        chosen = policy.choose_all(viewers, theirs, free, self._list_size, None, held)
        slates = []
        for number, of_one in enumerate(chosen):
            items = [
                Recommended(
                    item_id=one.item_id or ids[one.candidate],
                    score=one.score,
                    reason=Reason(kind="rule", of=one.rule) if one.rule else None,
                )
                for one in of_one
                if one.candidate >= 0 or self._catalogue.sellable(id_keys([one.item_id]))[0]
            ]
            if items:
                slates.append(Slate(items, "popular", release, 0.0, policy.name))
            else:
                slates.append(self._fallback(policy, viewers.one(number), barred[number], release))
        return slates

    def _popular_slate(
        self, barred: NDArray[np.uint64], release: str, passing: NDArray[np.bool_] | None = None
    ) -> Slate:
        ids, keys, shares = self._popular_items()
        out = {key for key in barred.tolist() if key}
        chosen = [
            Recommended(item_id=item_id, score=float(share))
            for place, (item_id, key, share) in enumerate(zip(ids, keys, shares, strict=True))
            if int(key) not in out and (passing is None or passing[place])
        ]
        return Slate(chosen[: self._list_size], "popular", release, 0.0)

    def _popular_items(self) -> tuple[list[str], NDArray[np.uint64], NDArray[np.float64]]:
        now, changes = time.monotonic(), self._catalogue.version
        popular = self._popular
        if popular is None or now - popular.at > POPULAR_REFRESH_S or not popular.top[0]:
            popular = _Popular(now, self._popularity.top(4 * (self._list_size + POPULAR_SPARE)))
        if popular.changes != changes:
            ids, keys, shares = popular.top
            sellable = np.flatnonzero(self._catalogue.sellable(keys))[: self._list_size + POPULAR_SPARE]
            popular.sellable = [ids[place] for place in sellable], keys[sellable], shares[sellable]
            popular.changes = changes
        self._popular = popular
        return popular.sellable


@dataclass(slots=True)
class _Popular:
    """What is popular, and what of it can be sold, as of a count of the catalogue's changes."""

    at: float
    top: tuple[list[str], NDArray[np.uint64], NDArray[np.float64]]
    changes: int = -1
    sellable: tuple[list[str], NDArray[np.uint64], NDArray[np.float64]] = field(init=False)
