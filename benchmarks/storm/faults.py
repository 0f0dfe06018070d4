"""What goes wrong in a storm, and when: drawn from a seed, without a look at how the workers are."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

GAP_S = (4.0, 12.0)
"""Between two faults. A worker takes some 5 s to start and restore, so that many of them come while one does."""


class Kind(StrEnum):
    """A kind of fault."""

    KILL = "kill"
    """A worker is killed (SIGKILL) and started again within 2 s."""
    STOP = "stop"
    """A worker is asked to stop (SIGTERM) and started again when it has."""
    FREEZE = "freeze"
    """A worker stands still (SIGSTOP) for 4 to 12 s."""
    FREEZE_LONG = "freeze-long"
    """A worker stands still until the group has given it up, and then goes on."""
    BROKER = "broker"
    """A broker is killed and started again after 1 to 15 s."""
    VISIT = "visit"
    """A further worker joins, and leaves or is killed before its restore can be done, or just after."""
    AMBUSH = "ambush"
    """A worker is killed, and while the next one restores, that is killed too, or another worker leaves."""
    CUT = "cut"
    """A worker is cut off from the group's coordinator, and from nothing else, until the group has given it up."""
    RESTART_ALL = "restart-all"
    """Every worker is stopped or killed at once, and started again."""


SHORT = (Kind.KILL, Kind.STOP, Kind.FREEZE, Kind.BROKER)
"""The kinds of a storm of minutes."""

LONG = tuple(Kind)
"""The kinds of a storm of hours."""

_WEIGHTS = {
    Kind.KILL: 9,
    Kind.STOP: 4,
    Kind.FREEZE: 4,
    Kind.FREEZE_LONG: 4,
    Kind.BROKER: 2,
    Kind.VISIT: 3,
    Kind.AMBUSH: 3,
    Kind.CUT: 3,
    Kind.RESTART_ALL: 1,
}
"""How often each comes beside the others."""


@dataclass(frozen=True)
class Fault:
    """One fault."""

    wait_s: float
    """After the one before."""
    kind: Kind
    victim: int
    """Which of those that it can hit: the remainder by how many there are."""
    lasts_s: float
    """How long until it is made good."""
    hard: bool
    """Whether what may end either way is killed."""


def schedule(
    seed: int, kinds: Sequence[Kind] = SHORT, *, gap_s: tuple[float, float] = GAP_S, session_s: float = 6.0
) -> Iterator[Fault]:
    """Faults without end; the same seed gives the same ones.

    Args:
        seed: of the draws.
        kinds: which there are.
        gap_s: least and longest time between two.
        session_s: after how long without a heartbeat the group gives a worker up.
    """
    draws = random.Random(seed)
    lasting = {
        Kind.KILL: (0.0, 2.0),
        Kind.STOP: (0.0, 0.0),
        Kind.FREEZE: (4.0, 12.0),
        Kind.FREEZE_LONG: (session_s + 2.0, session_s + 12.0),
        Kind.BROKER: (1.0, 15.0),
        Kind.VISIT: (1.0, 10.0),
        Kind.AMBUSH: (0.0, 1.0),
        Kind.CUT: (session_s, session_s + 10.0),
        Kind.RESTART_ALL: (0.0, 2.0),
    }
    # Each kind comes early once, in an order of the seed: a short storm has all of its kinds, too.
    first = list(dict.fromkeys(kinds))
    draws.shuffle(first)
    while True:
        kind = first.pop() if first else draws.choices(kinds, [_WEIGHTS[one] for one in kinds])[0]
        yield Fault(
            wait_s=draws.uniform(*gap_s),
            kind=kind,
            victim=draws.randrange(1 << 16),
            lasts_s=draws.uniform(*lasting[kind]),
            hard=draws.random() < 0.5,
        )
