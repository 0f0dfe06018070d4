"""The one place that names our topics, their keys, partitions and retention.

Clicks and purchases are topics of their own, as producers of the two are different systems. The cart shares
the purchases' topic: whether an item is in the cart, bought or given back depends on the order of these events, and
Kafka keeps order within a topic only. Impressions, ratings and follows share `feedback`: impressions are ten times
the clicks and nobody waits for them, so they must not stand in a click's way. Requests to forget a user lie with the
purchases, which are kept longest: as long as there are events of the user, trainers must know that they don't count.
"""

from dataclasses import dataclass, field
from typing import Literal

from mmrec_stream.contracts.behaviour import BehaviourRecord, EventType
from mmrec_stream.settings import Settings

DAY_MS = 86_400_000

COMPACTION_LAG_DAYS = 7
"""By when a row that was replaced or deleted is gone from disk. Unbounded, a quiet partition keeps it for ever."""

JOIN_DAYS = 7
"""How old an event of a session may be to become a user's at login. What was taken over is noted for a day longer, so
that no event is taken over twice."""

MAX_BEHAVIOUR_TOPICS = 6
"""A profile has a slot for the last folded offset of this many source partitions, one a topic."""


@dataclass(frozen=True)
class TopicSpec:
    """A topic as we want it."""

    name: str
    key: Literal["user id", "item id", "session id", "release", "rules", "origin"]
    partitions: int
    replication: int
    config: dict[str, str] = field(default_factory=dict)
    purpose: str = ""


@dataclass(frozen=True)
class Topics:
    """The full names of all topics, for one prefix."""

    clicks: str
    purchases: str
    feedback: str
    catalogue: str
    recommendations: str
    releases: str
    rollouts: str
    dead_letters: str
    sessions: str
    rules: str
    foreign: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> "Topics":
        """The names under the settings' prefix."""
        p = settings.prefix
        return cls(
            clicks=f"{p}clicks",
            purchases=f"{p}purchases",
            feedback=f"{p}feedback",
            catalogue=f"{p}catalogue",
            recommendations=f"{p}recommendations",
            releases=f"{p}releases",
            rollouts=f"{p}rollouts",
            dead_letters=f"{p}dead-letters",
            sessions=f"{p}sessions",
            rules=f"{p}rules",
            foreign=tuple(settings.behaviour_topics),
        )

    @property
    def behaviour(self) -> tuple[str, ...]:
        """Every topic that carries behaviour events."""
        return (self.clicks, self.purchases, self.feedback, *self.foreign)

    def of_event(self, event: BehaviourRecord) -> str:
        """Where our own producers publish an event."""
        match event.CODE:
            case EventType.VIEW | EventType.CLICK:
                return self.clicks
            case EventType.IMPRESSION | EventType.RATING | EventType.FOLLOW:
                return self.feedback
            case _:
                return self.purchases


def changelog_topic(settings: Settings) -> str:
    """The name of the profiles table's changelog: Faust's own naming."""
    return f"{settings.app_id}-profiles-changelog"


def topic_plan(settings: Settings) -> list[TopicSpec]:
    """Every topic we own, as `mmrec topics` creates it. Foreign behaviour topics are their owners'."""
    t, n, r = Topics.of(settings), settings.partitions, settings.replication
    compacted = _safe(r) | {
        "cleanup.policy": "compact",
        # A record that was replaced or deleted is gone from disk by then: what `mmrec forget` promises.
        "max.compaction.lag.ms": str(COMPACTION_LAG_DAYS * DAY_MS),
        # Only closed segments are compacted, and a restore reads what is not: 64 MB are 60,000 profiles.
        "segment.bytes": str(64 * 1024 * 1024),
    }
    kept = _safe(r)
    return [
        TopicSpec(t.clicks, "user id", n, r, kept | _days(30), "views and clicks"),
        TopicSpec(t.purchases, "user id", n, r, kept | _days(365), "cart, purchases, returns; requests to forget"),
        TopicSpec(t.feedback, "user id", n, r, kept | _days(30), "impressions, ratings, follows"),
        TopicSpec(t.catalogue, "item id", 1, r, compacted, "products: text, image, price, stock"),
        TopicSpec(t.recommendations, "user id", n, r, kept | _days(1), "fresh lists, the newest of a user counts"),
        TopicSpec(t.releases, "release", 1, r, compacted, "announcements of model releases"),
        TopicSpec(t.rollouts, "release", 1, r, compacted, "what workers count of a release, and its stages"),
        TopicSpec(t.rules, "rules", 1, r, compacted, "the rules that lists obey"),
        TopicSpec(t.dead_letters, "origin", 1, r, kept | _days(30), "inputs that could not be used"),
        TopicSpec(t.sessions, "session id", n, r, kept | _days(JOIN_DAYS + 1), "sessions that became users' at login"),
        TopicSpec(changelog_topic(settings), "user id", n, r, compacted, "the profiles, newest row a user"),
    ]


def _safe(replication: int) -> dict[str, str]:
    """Two of three replicas have a record before it is confirmed: one broker may then be lost, or restarted."""
    return {"min.insync.replicas": "2"} if replication >= 3 else {}


def _days(days: int) -> dict[str, str]:
    return {"cleanup.policy": "delete", "retention.ms": str(days * DAY_MS)}
