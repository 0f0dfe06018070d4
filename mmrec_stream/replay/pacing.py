"""When a past event is due again: the speed of a replay, and times moved to the present."""

from dataclasses import dataclass
from typing import Literal

from mmrec_stream.errors import UserError

Anchor = Literal["first", "last"]


def parse_speed(text: str) -> float | None:
    """How many seconds of event time pass in one: `10x` or `0.5x`; None for `max`, as fast as it goes.

    Raises:
        UserError: it is neither.
    """
    if text == "max":
        return None
    try:
        speed = float(text.removesuffix("x"))
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise UserError(f"--speed {text}: give max, or a factor above 0 like 1x or 10x")
    return speed


@dataclass(frozen=True)
class Pace:
    """The clock of one replay."""

    speed: float | None
    first_ts: int
    """Time of the first event, ms, as it is published."""
    started: int
    """When the replay began, ms."""

    def due(self, ts: int) -> int | None:
        """When an event of time `ts` is to be published, ms; None for at once."""
        return None if self.speed is None else self.started + round((ts - self.first_ts) / self.speed)
