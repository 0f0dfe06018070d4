"""How far served lists are from the best ones, how soon a change of taste is noticed, and what an old profile costs.

Simulated shoppers have known tastes, so the best list is known too. Everything else is the product's own: a model from
the trainer, profiles by the fold, lists by the recommender that workers serve with.
"""

import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.results import Report, Target, console
from mmrec_stream.catalogue.attributes import Catalogue
from mmrec_stream.contracts.behaviour import BehaviourEvent, EventType
from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.contracts.identity import id_keys, source_key
from mmrec_stream.data.dataset import from_events
from mmrec_stream.profiles.columns import columns_of
from mmrec_stream.profiles.fold import fold
from mmrec_stream.profiles.record import Records
from mmrec_stream.profiles.rows import ProfileRows
from mmrec_stream.ranking.popularity import Popularity
from mmrec_stream.ranking.recommend import Recommender
from mmrec_stream.ranking.repeats import Repeats, barred_keys
from mmrec_stream.ranking.scorer import Scorer
from mmrec_stream.simulator import Shoppers, make_shop
from mmrec_stream.simulator.shoppers import DAY_MS, HOUR_MS
from mmrec_stream.simulator.truth import expected_clicks, regret
from model_export.config import ModelConfig
from model_export.rounds import train_round

END_MS = 1_764_460_800_000
"""When the log ends and taste changes: a midnight, past for every clock."""

PLACES = 10

REPEATS = Repeats(seen_s=0.0)
"""A shopper likes a product that was looked at as much as before, so that leaving it out would count as a mistake."""

SOURCE = source_key("truth", 0)

SEEN = (0, 1, 2, 3, 5, 8, 13, 21, 34)
"""Events after a change of taste at which lists are judged."""

AGES = {
    "live": 0.0,
    "1 minute": 1 / 60,
    "10 minutes": 1 / 6,
    "1 hour": 1.0,
    "6 hours": 6.0,
    "1 day": 24.0,
    "7 days": 168.0,
}
"""How old a profile is when it serves, in hours."""


class World:
    """Shoppers, the products that have come in, and what workers would recommend with."""

    def __init__(self, shoppers: Shoppers, now_ms: int) -> None:
        self.shoppers = shoppers
        self.on_sale = shoppers.on_sale(now_ms)
        self.known = self.on_sale | shoppers.sold_out(now_ms)
        self.items = [self._item(int(row)) for row in np.flatnonzero(self.known)]
        self.catalogue = Catalogue()
        self.catalogue.update(self.items)
        self.popularity = Popularity()
        self.keys = id_keys([item.item_id for item in shoppers.shop])
        self._rows = {item.item_id: row for row, item in enumerate(shoppers.shop)}
        self._scorer: Scorer | None = None

    def recommender(self, scorer: Scorer | None) -> Recommender:
        """A recommender as a worker has it; without a release it serves what is popular."""
        made = Recommender(self.catalogue, self.popularity, list_size=PLACES, repeats=REPEATS)
        if scorer is not None:
            if scorer is not self._scorer:
                scorer.add_items(self.items)
                self._scorer = scorer
            made.serve(scorer)
        return made

    def sell_at(self, now_ms: int) -> None:
        """Tell catalogue and release what is sold out at `now_ms`, and what is back, as workers are told."""
        on_sale = self.known & self.shoppers.on_sale(now_ms)
        changed = np.flatnonzero(on_sale != self.on_sale)
        self.on_sale = on_sale
        if len(changed):
            items = [self._item(int(row)) for row in changed]
            self.catalogue.update(items)
            if self._scorer is not None:
                self._scorer.add_items(items)

    def _item(self, row: int) -> CatalogueItem:
        item = self.shoppers.shop[row]
        return item if self.on_sale[row] else msgspec.structs.replace(item, stock=0)

    def fold(self, rows: ProfileRows, users: Sequence[str], events: Sequence[BehaviourEvent], first: int) -> None:
        """Fold events into the profiles that `users` name, one each; offsets count from `first`."""
        columns = columns_of(events, range(first, first + len(events)))
        self.catalogue.complete(columns)
        fold(rows.records, rows.rows_of(users), columns, SOURCE)

    def count(self, events: Sequence[BehaviourEvent]) -> None:
        """Count what is popular."""
        events = [event for event in events if event.CODE != EventType.FOLLOW]
        columns = columns_of(events, range(len(events)))
        self.popularity.count([event.item_id for event in events], columns.items, columns.types, columns.times_ms)

    def judge(self, recommender: Recommender, user: str, record: Records, now_ms: int) -> "Judged":
        """The list for one profile, (1,), beside the best list of what is on sale that the same rules allow."""
        self.sell_at(now_ms)
        out = barred_keys(record, np.array(now_ms // 1000), REPEATS)
        allowed = self.on_sale & ~np.isin(self.keys, out[out > 0])
        slate = recommender.recommend([user], record.copy(), now_ms)[0]
        rows = np.array([self._rows[item.item_id] for item in slate.items], dtype=np.int64)
        attraction = self.shoppers.attraction(user)
        return Judged(rows, expected_clicks(attraction, rows), regret(attraction, allowed, rows, PLACES))

    def row(self, item_id: str) -> int:
        """The product's place in the shop."""
        return self._rows[item_id]


@dataclass(frozen=True)
class Judged:
    """A list and what is true of it."""

    rows: NDArray[np.int64]
    clicks: float
    regret: float


def command(
    quick: Annotated[bool, typer.Option(help="A smaller shop, half a minute of training.")] = False,
    users: Annotated[int, typer.Option(help="Shoppers.")] = 1_000,
    items: Annotated[int, typer.Option(help="Products.")] = 600,
    minutes: Annotated[float, typer.Option(help="Most minutes of training.")] = 1.5,
    seed: Annotated[int, typer.Option(help="Of shop, shoppers and model.")] = 7,
) -> None:
    """Regret of served lists, what sell-outs cost, events until a change of taste is noticed, cost of old profiles."""
    if quick:
        users, items, minutes = users // 3, items // 3, minutes / 3
    report = Report("truth", quick=quick, users=users, items=items, seed=seed)
    report.add("simulated events", "one process", _speeds(seed, quick=quick), "events/s", target=Target(20_000))
    with console.status("past log") as status, tempfile.TemporaryDirectory(prefix="mmrec-bench-") as folder:
        shoppers = Shoppers(make_shop(items, seed), users, seed)
        past = list(shoppers.past(21, END_MS))
        world = World(shoppers, END_MS)
        status.update(f"training on {len(past):,} events")
        config = ModelConfig(minutes=minutes, seed=seed)
        trained = train_round(from_events("truth", past, world.items), Path(folder), config, threads=1)
        if trained.path is None:
            raise typer.BadParameter(f"the model is worse than what is popular: {trained.verdict.reason}")
        scorer = Scorer.load(trained.path, provider="cpu", threads=1)
        status.update("regret of lists")
        rows = ProfileRows()
        world.count(past)
        for start in range(0, len(past), 10_000):
            part = past[start : start + 10_000]
            world.fold(rows, [event.user_id for event in part], part, start)
        _regrets(report, world, scorer, rows)
        _sell_outs(report, world, scorer, rows)
        status.update("age of profiles")
        shoppers.sessions_per_day = 2.0
        after = [event for event in shoppers.past(2, END_MS + 2 * DAY_MS) if event.CODE != EventType.IMPRESSION]
        _ages(report, world, scorer, past, after, most=200 if quick else 800)
        status.update("changes of taste")
        _noticing(report, world, scorer, rows, len(past), seed)
    report.close()


def _speeds(seed: int, *, quick: bool) -> list[float]:
    """Events a second of the simulator, three times."""
    shop = make_shop(2_000, seed, pictures=False)
    found = []
    for _ in range(3):
        shoppers = Shoppers(shop, 2_000, seed)
        began = time.perf_counter()
        count = sum(1 for _ in shoppers.past(4 if quick else 14, END_MS))
        found.append(count / (time.perf_counter() - began))
    return found


def _regrets(report: Report, world: World, scorer: Scorer, rows: ProfileRows) -> None:
    """Regret at the end of the log, of everybody who did something in its last week."""
    systems = {"hybrid": world.recommender(scorer), "popular": world.recommender(None)}
    found: dict[str, list[Judged]] = defaultdict(list)
    rng = np.random.default_rng(0)
    there = np.flatnonzero(world.on_sale)
    for user in list(rows):
        record = _record(rows, user)
        if int(record["last_ms"][0]) < END_MS - 7 * DAY_MS:
            continue
        for name, recommender in systems.items():
            found[name].append(world.judge(recommender, user, record, END_MS))
        attraction, drawn = world.shoppers.attraction(user), rng.choice(there, PLACES, replace=False)
        missed = regret(attraction, world.on_sale, drawn, PLACES)
        found["drawn at random"].append(Judged(drawn, expected_clicks(attraction, drawn), missed))
    for name, judged in found.items():
        report.add("regret", name, _mean(one.regret for one in judged), "of the best list's clicks", lists=len(judged))
        report.add("clicks a list", name, _mean(one.clicks for one in judged), "expected")
    best = _mean(one.clicks / (1 - one.regret) for one in found["hybrid"])
    report.add("clicks a list", "the best list", best, "expected")


def _sell_outs(report: Report, world: World, scorer: Scorer, rows: ProfileRows) -> None:
    """Clicks that lists earn whose maker knows what is sold out, or knew it a day ago; sold-out products earn none."""
    recommender = world.recommender(scorer)
    users = [user for user in rows if int(_record(rows, user)["last_ms"][0]) >= END_MS - 7 * DAY_MS]
    lists = {}
    for name, told in (("stock of a day ago", END_MS - DAY_MS), ("stock as it is", END_MS)):
        lists[name] = [world.judge(recommender, user, _record(rows, user), told).rows for user in users]
    report.add("sold out", "of all products", world.shoppers.sold_out(END_MS).sum() / world.known.sum(), "share")
    for name, made in lists.items():
        report.add("places of a list that are sold out", name, _mean((~world.on_sale[one]).sum() for one in made), "")
        attractions = [world.shoppers.attraction(user) * world.on_sale for user in users]
        clicks = _mean(expected_clicks(one, rows) for one, rows in zip(attractions, made, strict=True))
        report.add("clicks a list", f"hybrid, {name}", clicks, "expected")


def _ages(
    report: Report,
    world: World,
    scorer: Scorer,
    past: list[BehaviourEvent],
    after: list[BehaviourEvent],
    most: int,
) -> None:
    """The next product looked at, and the regret, by lists from profiles of different ages."""
    log: dict[str, list[BehaviourEvent]] = defaultdict(list)
    for event in [*past, *after]:
        log[event.user_id].append(event)
    # The first days of the new log may still be history only: judged is its last day.
    asked = [event for event in after if event.CODE == EventType.VIEW and event.ts >= END_MS + DAY_MS]
    asked = [event for event in asked if log[event.user_id][0].ts < event.ts - 8 * DAY_MS]
    chosen = np.sort(np.random.default_rng(0).choice(len(asked), min(most, len(asked)), replace=False))
    asked = [asked[place] for place in chosen]
    recommender = world.recommender(scorer)
    hits: dict[str, list[float]] = defaultdict(list)
    for name, hours in [*AGES.items(), ("since midnight", None)]:
        rows = ProfileRows()
        known: list[tuple[str, BehaviourEvent]] = []
        cuts = []
        for number, event in enumerate(asked):
            now = event.ts - 1
            cut = now // DAY_MS * DAY_MS if hours is None else now - round(hours * HOUR_MS)
            cuts.append(cut)
            known += [(f"case-{number}", one) for one in log[event.user_id] if one.ts <= cut]
        world.fold(rows, [case for case, _ in known], [event for _, event in known], 0)
        regrets = []
        for number, event in enumerate(asked):
            judged = world.judge(recommender, event.user_id, _record(rows, f"case-{number}"), cuts[number])
            hits[name].append(float(world.row(event.item_id) in judged.rows))
            regrets.append(judged.regret)
        report.add("next look in the list", name, float(np.mean(hits[name])), f"HR@{PLACES}", cases=len(asked))
        report.add("regret by age of the profile", name, float(np.mean(regrets)), "of the best list's clicks")
    lift = _mean(hits["live"]) / max(_mean(hits["since midnight"]), 1e-9)
    report.add("lift of the live profile over a nightly one", "hybrid", lift, "times the HR", target=Target(1.0))
    names = [*AGES]
    report.plot("age", lambda axes: _draw_ages(axes, names, [float(np.mean(hits[name])) for name in names]))


def _noticing(report: Report, world: World, scorer: Scorer, rows: ProfileRows, offset: int, seed: int) -> None:
    """Every second shopper comes to like something else; lists are judged after so many events of each."""
    shoppers, recommender = world.shoppers, world.recommender(scorer)
    start = END_MS + 2 * DAY_MS
    users = [user for user in rows if int(_record(rows, user)["size"][0]) >= 30]
    changed = users[::2]
    before = {user: world.judge(recommender, user, _record(rows, user), start).regret for user in users}
    shoppers.change_tastes(changed, seed)
    by_user: dict[str, list[BehaviourEvent]] = defaultdict(list)
    for event in shoppers.past(10, start + 10 * DAY_MS):
        if event.CODE not in (EventType.FOLLOW, EventType.IMPRESSION):
            by_user[event.user_id].append(event)
    groups = {
        "taste changed": [user for user in changed if len(by_user[user]) >= SEEN[-1]],
        "taste stayed": [user for user in users[1::2] if len(by_user[user]) >= SEEN[-1]],
    }
    curves: dict[str, list[float]] = {}
    for name, group in groups.items():
        curve, clock = [], dict.fromkeys(group, start)
        done = 0
        for seen in SEEN:
            fresh = [event for user in group for event in by_user[user][done:seen]]
            world.fold(rows, [event.user_id for event in fresh], fresh, offset)
            offset, done = offset + len(fresh), seen
            clock |= {user: by_user[user][seen - 1].ts for user in group if seen}
            curve.append(
                _mean(world.judge(recommender, user, _record(rows, user), clock[user]).regret for user in group)
            )
        curves[name] = curve
        report.add("regret before the change", name, _mean(before[user] for user in group), "of the best list's clicks")
        for seen, value in zip(SEEN, curve, strict=True):
            report.add(f"regret {seen} events after it", name, value, "of the best list's clicks", shoppers=len(group))
    changed_curve = curves["taste changed"]
    settled = _mean(before[user] for user in groups["taste changed"])
    half = (changed_curve[0] + settled) / 2
    report.add("events until half of the loss is regained", "hybrid", _crossing(changed_curve, half), "events")
    report.plot("noticing", lambda axes: _draw_noticing(axes, curves, settled))


def _crossing(curve: Sequence[float], level: float) -> float:
    """Events at which a falling curve over `SEEN` first reaches a level, between its points on a line."""
    for place in range(1, len(curve)):
        if curve[place] <= level:
            share = (curve[place - 1] - level) / max(curve[place - 1] - curve[place], 1e-9)
            return SEEN[place - 1] + share * (SEEN[place] - SEEN[place - 1])
    return float("inf")


def _record(rows: ProfileRows, user: str) -> Records:
    row = rows.rows_of([user])
    record: Records = rows.records[row].copy()
    return record


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _draw_ages(axes: Any, names: Sequence[str], rates: Sequence[float]) -> None:
    axes.bar(names, rates, color=["#c2410c", *["#94a3b8"] * (len(names) - 1)])
    axes.set_ylabel(f"next look is in the list (HR@{PLACES})")
    axes.set_xlabel("age of the profile that the list is made from")


def _draw_noticing(axes: Any, curves: dict[str, list[float]], settled: float) -> None:
    for (name, curve), colour in zip(curves.items(), ("#c2410c", "#475569"), strict=True):
        axes.plot(SEEN, curve, marker="o", label=name, color=colour)
    axes.axhline(settled, color="#94a3b8", linestyle="--", label="before the change")
    axes.set_xscale("symlog", linthresh=2)
    axes.set_xticks(SEEN, [str(seen) for seen in SEEN])
    axes.set_ylim(0, 1)
    axes.set_xlabel("events of the shopper after the change")
    axes.set_ylabel("regret: share of the best list's clicks forgone")
    axes.legend(frameon=False)
