"""A rule set, ready for use: what each product is allowed and worth, and lists chosen by it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmrec_stream.catalogue.columns import NOBODY_KNOWS, ProductColumns
from mmrec_stream.contracts.identity import id_key, id_keys
from mmrec_stream.contracts.rules import RuleSet
from mmrec_stream.policies.choosing import choose
from mmrec_stream.policies.expressions import (
    OF_SHOWN,
    OF_VISIT,
    ExpressionError,
    Program,
    Value,
    compile_expression,
)
from mmrec_stream.policies.objectives import Objectives
from mmrec_stream.profiles.shown import since_shown

FALLBACK = "fallback"
"""Follows the rules' name in a list's policy where filters gave way, as nothing was left."""

POOL = 200
"""Candidates that boosts, caps, diversity and filters by user choose from: ten times a list of 20. A boost lifts what
is among them; more cost scoring and choosing in proportion."""

TOGETHER = 32
"""Lists that are chosen at once: what is worked out then fits the processor's caches. 128 at once take twice as long a
list."""

SURFACES = ("home", "product", "cart")
"""Those of which what is allowed is kept at hand; of others it is put together when asked."""


@dataclass(frozen=True)
class Fault:
    """What is wrong with a rule set, and where."""

    place: str
    """As `filters[2] summer: exclude`."""
    message: str
    line: int = 1
    column: int = 1
    """Within the expression, from 1."""
    source: str = ""

    def __str__(self) -> str:
        if not self.source:
            return f"{self.place}: {self.message}"
        lines = self.source.splitlines() or [""]
        shown = lines[min(self.line, len(lines)) - 1]
        return f"{self.place}, line {self.line}, column {self.column}: {self.message}\n  {shown}\n  " + (
            " " * (self.column - 1) + "^"
        )


class RulesError(ValueError):
    """A rule set that cannot be used."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = faults


@dataclass(frozen=True)
class Visit:
    """What is known of a visit."""

    locale: str = ""
    """As `de-CH`; empty where it is not known."""
    adult: bool = False
    """Whether the visitor is known to be of age."""
    consent: bool = True
    """To what is remembered and shown in person."""


@dataclass(frozen=True)
class Viewer:
    """Who gets a list, and where."""

    surface: str = "home"
    user_id: str = ""
    events: int | None = 0
    """None where the profile is not at hand: rules that read it do not count then, as the worker has seen to them."""
    visit: Visit | None = None
    """None where a list is made beforehand: rules that read the visit then do not count yet."""
    shown: NDArray[np.uint64] | None = field(default=None, compare=False)
    """What the user was shown lately (`Shown.of`), (`LAST`,). None where that is not at hand: rules that read it do not
    count then."""

    def values(self, keys: NDArray[np.uint64] | None = None) -> dict[str, object]:
        """As variables of expressions; what was shown of products with these keys, (…, n), if it is asked for."""
        visit = self.visit or Visit()
        return _of_shown(self.shown, keys) | {
            "context.surface": self.surface,
            "context.locale": visit.locale,
            "context.adult": visit.adult,
            "context.consent": visit.consent,
            "user.id": self.user_id,
            "user.events": self.events or 0,
            "user.share": id_key(self.user_id) / 2**64,
        }


@dataclass(frozen=True)
class Viewers:
    """Those who get lists at the same time and place: what an expression says of all of them is worked out at once."""

    user_ids: Sequence[str]
    events: NDArray[np.integer[Any]] | None
    """(users,), or None as for a `Viewer`."""
    surface: str = "home"
    visit: Visit | None = None
    """As a `Viewer`'s, of all of them."""
    shown: NDArray[np.uint64] | None = None
    """(users, `LAST`), or None as for a `Viewer`."""

    def __len__(self) -> int:
        return len(self.user_ids)

    def part(self, some: slice) -> "Viewers":
        """Some of them."""
        events = None if self.events is None else self.events[some]
        shown = None if self.shown is None else self.shown[some]
        return Viewers(self.user_ids[some], events, self.surface, self.visit, shown)

    def one(self, user: int) -> Viewer:
        """One of them."""
        events = None if self.events is None else int(self.events[user])
        shown = None if self.shown is None else self.shown[user]
        return Viewer(self.surface, self.user_ids[user], events, self.visit, shown)

    def values(self, keys: NDArray[np.uint64] | None = None) -> dict[str, object]:
        """As variables of expressions: (users, 1), and what is the same for all by itself.

        What was shown is of products with these keys, (users, n), if it is asked for.
        """
        if len(self) == 1:
            return self.one(0).values(keys)
        ids = np.empty((len(self), 1), dtype=object)
        ids[:, 0] = self.user_ids
        everybody = Viewer(self.surface, visit=self.visit).values() | _of_shown(self.shown, keys)
        return everybody | {
            "user.id": ids,
            "user.events": 0 if self.events is None else np.asarray(self.events, dtype=np.int64)[:, None],
            "user.share": (id_keys(self.user_ids) / 2**64)[:, None],
        }


class Choice(NamedTuple):
    """One place that rules chose."""

    candidate: int
    """Place among the candidates; −1 for a pinned product that is none of them."""
    score: float
    rule: str = ""
    """What put it here, where a rule did."""
    item_id: str = ""
    """Of a pinned product."""


@dataclass
class _Rule:
    """A filter or boost, compiled; `parts` are the values for all products of what reads the product alone."""

    id: str
    surfaces: frozenset[str]
    when: Program
    negated: bool = False
    required: bool = False
    by: Program | None = None
    number: int = -1
    """Of a boost, among the boosts."""
    when_parts: tuple[Value, ...] = ()
    by_parts: tuple[Value, ...] = ()

    @property
    def static(self) -> bool:
        return self.when.static and (self.by is None or self.by.static)

    @property
    def reads(self) -> frozenset[str]:
        return self.when.reads | (self.by.reads if self.by is not None else frozenset())

    def on(self, surface: str) -> bool:
        return not self.surfaces or surface in self.surfaces

    def counts(self, viewer: "Viewer | Viewers") -> bool:
        """Whether it is for where the viewer is, and what it reads is known."""
        return (
            self.on(viewer.surface)
            and (viewer.visit is not None or not self.reads & OF_VISIT)
            and (viewer.events is not None or "user.events" not in self.reads)
            and (viewer.shown is not None or not self.reads & OF_SHOWN)
        )


class _Weights(NamedTuple):
    """What boosts do to products, all (n,)."""

    factor: NDArray[np.float64]
    most: NDArray[np.float64]
    """The largest single factor."""
    lifted: NDArray[np.int16]
    """The boost that has it; −1 where none lifts."""


class Policy:
    """Rules over a catalogue. `refresh` brings it up to date; everything else may run on another thread meanwhile.

    A list that is made while a product changes may see that product half as it was; the next one sees it as it is.
    """

    def __init__(self, rules: RuleSet) -> None:
        """Compile.

        Raises:
            RulesError: with every fault that was found.
        """
        self.rules = rules
        faults: list[Fault] = []

        def compiled(place: str, source: str, kind: Literal["bool", "double"]) -> Program | None:
            try:
                return compile_expression(source, kind)
            except ExpressionError as error:
                faults.append(Fault(place, str(error), error.line, error.column, source))
                return None

        kinds = (rules.filters, rules.boosts, rules.objectives, rules.pins)
        names = [rule.id for kind in kinds for rule in kind]
        faults += [Fault(name, "two rules have this id") for name in sorted({n for n in names if names.count(n) > 1})]
        self._filters: list[_Rule] = []
        self._boosts: list[_Rule] = []
        for number, one in enumerate(rules.filters):
            field, source = ("only", one.only) if one.only is not None else ("exclude", one.exclude or "")
            when = compiled(f"filters[{number}] {one.id}: {field}", source, "bool")
            if when is not None:
                surfaces = frozenset(one.surfaces)
                self._filters.append(_Rule(one.id, surfaces, when, field == "exclude", one.required))
        for number, boost in enumerate(rules.boosts):
            place = f"boosts[{number}] {boost.id}"
            when = compiled(f"{place}: when", boost.when, "bool")
            by = compiled(f"{place}: by", boost.by, "double")
            if when is not None and by is not None:
                self._boosts.append(_Rule(boost.id, frozenset(boost.surfaces), when, by=by, number=len(self._boosts)))
        merits = []
        for number, objective in enumerate(rules.objectives):
            place = f"objectives[{number}] {objective.id}: of"
            if (of := compiled(place, objective.of, "double")) is not None:
                merits.append((objective, of))
                if not of.static:
                    faults.append(Fault(place, "it may read the product alone", source=objective.of))
        if faults:
            raise RulesError(faults)
        self.objectives = Objectives(merits)
        self._banned = id_keys(rules.banned)
        self._allowed: dict[tuple[str, bool], NDArray[np.bool_]] = {}
        self._columns = ProductColumns()
        self._weights: dict[str, _Weights] = {}
        self._by_user = [rule for rule in self._filters if not rule.static]
        self._boosts_by_user = [rule for rule in self._boosts if not rule.static]
        self.refresh(self._columns)

    @property
    def name(self) -> str:
        """What lists say that they obey."""
        return self.rules.name

    @property
    def reads_visits(self) -> bool:
        """Whether what lists have depends on the visit, so that those made beforehand are to be looked through."""
        return any(rule.reads & OF_VISIT for rule in (*self._filters, *self._boosts))

    @property
    def reads_shown(self) -> bool:
        """Whether what lists have depends on what users were shown before."""
        return any(rule.reads & OF_SHOWN for rule in (*self._filters, *self._boosts))

    @property
    def chooses(self) -> bool:
        """Whether lists have to be chosen from more candidates than they have places."""
        r = self.rules
        return bool(
            self._boosts
            or self._by_user
            or r.objectives
            or r.pins
            or r.max_per_category
            or r.max_per_brand
            or r.diversity
        )

    def refresh(self, columns: ProductColumns, rows: NDArray[np.int64] | None = None) -> None:
        """Take over what the catalogue says: of all products, or of the rows that changed."""
        if rows is None or columns is not self._columns or len(columns) > len(self._allowed["home", False]):
            self._columns, rows = columns, None
        part = slice(0, len(columns.arrays["id"])) if rows is None else rows
        values = {f"item.{name}": array[part] for name, array in columns.arrays.items()}
        for rule in (*self._filters, *self._boosts):
            rule.when_parts = _merged(rule.when_parts, rule.when.of_products(values), rows)
            if rule.by is not None:
                rule.by_parts = _merged(rule.by_parts, rule.by.of_products(values), rows)
        self.objectives.refresh(columns, rows)
        static = [rule for rule in self._boosts if rule.static]
        if rows is None:
            everything = np.arange(self._width)
            self._allowed = {
                (surface, required): self._together(surface, required, everything)
                for surface in SURFACES
                for required in (False, True)
            }
            self._weights = {surface: self._weighed(static, Viewer(surface), everything, None) for surface in SURFACES}
            return
        for (surface, required), allowed in self._allowed.items():
            allowed[rows] = self._together(surface, required, rows)
        for surface, weights in self._weights.items():
            changed = self._weighed(static, Viewer(surface), rows, None)
            weights.factor[rows], weights.most[rows], weights.lifted[rows] = changed

    @property
    def _width(self) -> int:
        """Rows of the columns' arrays, reserved ones included."""
        return len(self._columns.arrays["id"])

    def allowed(self, surface: str, keys: NDArray[np.uint64], *, required: bool = False) -> NDArray[np.bool_]:
        """Whether filters that read the product alone, and bans, let each product through; the shape of `keys`.

        Args:
            surface: where.
            keys: of items (`id_key`).
            required: by filters alone that never give way.
        """
        known = self._allowed.get((surface, required))
        rows = self._columns.rows(keys)
        if known is None:
            known = self._together(surface, required, np.arange(self._width))
        found: NDArray[np.bool_] = known[rows]
        if len(self._banned):
            found &= (rows != NOBODY_KNOWS) | ~np.isin(keys, self._banned)
        return found

    def passes(
        self, viewer: Viewer | Viewers, keys: NDArray[np.uint64], *, required: bool = False
    ) -> NDArray[np.bool_]:
        """Whether all filters let each product through; the shape of `keys`: (n,), or (users, n) for many viewers."""
        ok = self.allowed(viewer.surface, keys, required=required)
        if not self._by_user:
            return ok
        rows = self._columns.rows(keys)
        values = None
        for rule in self._by_user:
            if rule.counts(viewer) and (rule.required or not required):
                values = values or viewer.values(keys if self.reads_shown else None)
                holds = _truth(rule.when, rule.when_parts, rows, values)
                if holds is rule.negated or isinstance(holds, np.ndarray):
                    ok = ok & (holds != rule.negated)
        return ok

    def factors(
        self, viewer: Viewer | Viewers, keys: NDArray[np.uint64]
    ) -> tuple[NDArray[np.float64], NDArray[np.int16]]:
        """What scores are multiplied by, and the number of the boost that lifts each product most, −1 for none.

        Args:
            viewer: who and where.
            keys: of items (`id_key`), (n,), or (users, n) for several viewers.

        Returns:
            Both of the shape of `keys`.
        """
        rows = self._columns.rows(keys)
        known = self._weights.get(viewer.surface)
        if known is None:
            static = [rule for rule in self._boosts if rule.static]
            known = self._weighed(static, Viewer(viewer.surface), np.arange(self._width), None)
        fixed = _Weights(known.factor[rows], known.most[rows], known.lifted[rows])
        if not self._boosts_by_user:
            return fixed.factor, fixed.lifted
        weights = self._weighed(self._boosts_by_user, viewer, rows, fixed, keys if self.reads_shown else None)
        return weights.factor, weights.lifted

    def _weighed(
        self,
        boosts: list[_Rule],
        viewer: Viewer | Viewers,
        rows: NDArray[np.int64],
        fixed: "_Weights | None",
        keys: NDArray[np.uint64] | None = None,
    ) -> "_Weights":
        if fixed is None:
            fixed = _Weights(np.ones(rows.shape), np.ones(rows.shape), np.full(rows.shape, -1, dtype=np.int16))
        factor, most, lifted = fixed
        values = viewer.values(keys)
        for rule in boosts:
            if rule.by is None or not rule.counts(viewer):
                continue
            holds = _truth(rule.when, rule.when_parts, rows, values)
            if holds is False:
                continue
            by = rule.by.result(rule.by_parts, rows, values)
            if by.error is not False:
                holds = holds & ~by.error
            here = np.where(holds, np.maximum(by.value, 0.0), 1.0)
            factor = factor * here
            lifted = np.where(here > most, np.int16(rule.number), lifted)
            most = np.maximum(most, here)
        return _Weights(factor, most, lifted)

    def choose(
        self,
        viewer: Viewer,
        keys: NDArray[np.uint64],
        scores: NDArray[np.float32],
        k: int,
        vectors: NDArray[np.float32] | None = None,
        held: frozenset[int] = frozenset(),
    ) -> list[Choice]:
        """A list for one viewer; everything as for `choose_all`, without the users' axis."""
        (chosen,) = self.choose_all(
            Viewers(
                [viewer.user_id],
                None if viewer.events is None else np.array([viewer.events]),
                viewer.surface,
                viewer.visit,
                None if viewer.shown is None else viewer.shown[None],
            ),
            keys[None],
            scores[None],
            k,
            None if vectors is None else vectors[None],
            [held],
        )
        return chosen

    def choose_all(
        self,
        viewers: Viewers,
        keys: NDArray[np.uint64],
        scores: NDArray[np.float32],
        k: int,
        vectors: NDArray[np.float32] | None = None,
        held: Sequence[frozenset[int]] | None = None,
    ) -> list[list[Choice]]:
        """A list of up to `k` of the candidates for each viewer.

        Args:
            viewers: who and where.
            keys: of items (`id_key`), (users, candidates).
            scores: (users, candidates); those not above 0 are no candidates.
            k: places.
            vectors: (users, candidates, d), for diversity.
            held: keys of items that no list of each user has, pinned or not.
        """
        if len(viewers) > TOGETHER:
            parts = [slice(start, start + TOGETHER) for start in range(0, len(viewers), TOGETHER)]
            return [
                chosen
                for part in parts
                for chosen in self.choose_all(
                    viewers.part(part),
                    keys[part],
                    scores[part],
                    k,
                    None if vectors is None else vectors[part],
                    None if held is None else held[part],
                )
            ]
        lists = (
            self._choose_together(viewers, keys, scores, k, vectors) if keys.size else [[] for _ in range(len(viewers))]
        )
        if not self.rules.pins:
            return lists
        return [
            self._pinned(viewers.one(user), keys[user], chosen, k, frozenset() if held is None else held[user])
            for user, chosen in enumerate(lists)
        ]

    def _choose_together(
        self,
        viewers: Viewers,
        keys: NDArray[np.uint64],
        scores: NDArray[np.float32],
        k: int,
        vectors: NDArray[np.float32] | None,
    ) -> list[list[Choice]]:
        """What `choose_all` says, without pins, of at least one candidate."""
        rules, rows = self.rules, self._columns.rows(keys)
        worth = np.where(self.passes(viewers, keys), scores, np.float32(0))
        if self.rules.objectives:
            worth = self.objectives.weighed(viewers.surface, worth, rows)
        lifted = None
        if self._boosts:
            factor, lifted = self.factors(viewers, keys)
            worth *= factor
        arrays = self._columns.arrays
        diverse = vectors is not None and rules.diversity > 0
        places = choose(
            worth,
            vectors if vectors is not None and diverse else np.zeros((*rows.shape, 0), dtype=np.float32),
            arrays["category_code"][rows],
            arrays["brand_code"][rows],
            k,
            per_category=rules.max_per_category,
            per_brand=rules.max_per_brand,
            diversity=rules.diversity if diverse else 0.0,
        )
        at = np.maximum(places, 0)
        chosen_worth = np.take_along_axis(worth, at, axis=1).tolist()
        names = [*(boost.id for boost in self._boosts), ""]
        by = [[-1] * k] * len(viewers) if lifted is None else np.take_along_axis(lifted, at, axis=1).tolist()
        return [
            [Choice(place, score, names[number]) for place, score, number in zip(*of_one, strict=True) if place >= 0]
            for of_one in zip(places.tolist(), chosen_worth, by, strict=True)
        ]

    def _pinned(
        self, viewer: Viewer, keys: NDArray[np.uint64], chosen: list[Choice], k: int, held: frozenset[int]
    ) -> list[Choice]:
        for pin in sorted(self.rules.pins, key=lambda pin: pin.position):
            key = id_key(pin.item_id)
            if (pin.surfaces and viewer.surface not in pin.surfaces) or key in held:
                continue
            if not self.passes(viewer, np.array([key], dtype=np.uint64))[0]:
                continue
            own = next((one for one in chosen if one.candidate >= 0 and keys[one.candidate] == key), None)
            if own is not None:
                chosen.remove(own)
            fixed = Choice(own.candidate if own else -1, own.score if own else 0.0, pin.id, pin.item_id)
            chosen.insert(min(pin.position, len(chosen), k - 1), fixed)
        return chosen[:k]

    def emptied(self, columns: ProductColumns) -> list[tuple[str, int, list[str]]]:
        """What each filter that reads the product alone takes out: its id, how many products, and the first ids."""
        self.refresh(columns)
        everything = np.arange(1, len(columns))
        found = []
        for rule in self._filters:
            if rule.static:
                out = everything[_holds(rule.when, rule.when_parts, everything, {}) == rule.negated]
                found.append((rule.id, len(out), columns.arrays["id"][out[:5]].tolist()))
        return found

    def _together(self, surface: str, required: bool, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether what reads the product alone lets rows of the columns through, (rows,)."""
        allowed = np.ones(len(rows), dtype=bool)
        for rule in self._filters:
            if rule.static and rule.on(surface) and (rule.required or not required):
                allowed &= _holds(rule.when, rule.when_parts, rows, {}) != rule.negated
        if len(self._banned):
            banned = self._columns.rows(self._banned)
            allowed &= ~np.isin(rows, banned[banned > 0])
        return allowed


def _of_shown(shown: NDArray[np.uint64] | None, keys: NDArray[np.uint64] | None) -> dict[str, object]:
    if shown is None or keys is None:
        return {}
    ago, times = since_shown(shown, keys)
    return {"shown.ago": ago, "shown.times": times}


def _holds(
    program: Program, parts: tuple[Value, ...], rows: NDArray[np.int64], values: Mapping[str, object]
) -> NDArray[np.bool_]:
    """Where an expression is true, the shape of `rows`."""
    return np.broadcast_to(_truth(program, parts, rows, values), rows.shape)


def _truth(
    program: Program, parts: tuple[Value, ...], rows: NDArray[np.int64], values: Mapping[str, object]
) -> bool | NDArray[np.bool_]:
    """Where an expression is true, or whether, where that is the same for all; not where it has no value."""
    found = program.result(parts, rows, values)
    truth: bool | NDArray[np.bool_] = found.value
    return truth if found.error is False else np.logical_and(truth, np.logical_not(found.error))


def _merged(old: tuple[Value, ...], new: list[Value], rows: NDArray[np.int64] | None) -> tuple[Value, ...]:
    """The values of all products; where they are of some rows, those replace the old ones in place."""
    if rows is None:
        return tuple(new)
    for before, after in zip(old, new, strict=True):
        for kept, changed in zip(before, after, strict=True):
            if isinstance(kept, np.ndarray):
                kept[rows] = changed
    return old
