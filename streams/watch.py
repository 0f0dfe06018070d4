"""Somebody looks: whether the worker is in its group, whether what was begun is finished, whether a broker answers.

A worker whose part stands still ends itself with a reason, so that whoever runs it starts another. A broker that is
away is no such reason: the worker is alive, not ready, and goes on by itself when the broker is back.
"""

import asyncio
import logging
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streams.app import StreamApp

LOOK_S = 1.0
"""How often it looks."""

SUSPICIOUS_S = 5.0
"""Nothing finished for this long, with work open: time to ask whether a broker answers."""

STALL_S = 60.0
"""A worker that has chunks open and finishes nothing for this long, while brokers answer, will not finish them: a
delivery is given up and tried again after 4 s, a transaction after 60 s at most."""

JOIN_S = 120.0
"""How long joining may take, while brokers answer. The group waits for slow members for 60 s at most, and a worker's
session may have to end first."""

OPEN_S = 600.0
"""How long a partition may be restored: 100 million rows."""

SAY_S = 10.0
"""How often it is said that a broker is away."""

log = logging.getLogger(__name__)


class Watch:
    """One worker's own doctor."""

    def __init__(self, app: "StreamApp") -> None:
        self._app = app
        self.broker_away = False
        """Whether no broker answered when it was last asked."""
        self.complaint: str | None = None
        """Why the worker is not well."""

    async def run(self) -> None:
        """Look until cancelled."""
        began = time.monotonic()
        away_since, said = 0.0, 0.0
        while True:
            await asyncio.sleep(LOOK_S)
            client = self._app.client
            if client is None or client.leaving:
                continue
            now = time.monotonic()
            if client.unreachable_since is not None or self._still_s() > SUSPICIOUS_S or not client.member:
                reachable = await client.reachable()
                if reachable and self.broker_away:
                    log.info("the broker is back after %.0f s", time.monotonic() - away_since)
                    # What stood still did so for want of a broker: it gets its time anew.
                    began = time.monotonic()
                    self._app.metrics.progress()
                elif not reachable:
                    away_since = away_since if self.broker_away else now
                    if now - said > SAY_S:
                        said = now
                        log.warning(
                            "no broker answers at %s for %.0f s: waiting",
                            self._app.settings.bootstrap,
                            now - away_since,
                        )
                self.broker_away = not reachable
            else:
                self.broker_away = False
            if not self.broker_away:
                self._judge(client.member, now - began)

    def _still_s(self) -> float:
        """For how long work has been open with nothing finished."""
        oldest = max((owner.oldest_open_s for owner in self._app.assignment.owners), default=0.0)
        return min(oldest, time.monotonic() - self._app.metrics.last_progress)

    def _judge(self, member: str, running_s: float) -> None:
        """Complain where there is cause; `running_s` is for how long the worker has had a broker."""
        complaint, owners = None, list(self._app.assignment.owners)
        if not member and running_s > JOIN_S:
            complaint = f"the group has not taken this worker for {running_s:.0f} s"
        elif (still := self._still_s()) > STALL_S:
            complaint = f"work was begun, and nothing is finished for {still:.0f} s"
        elif (unwritten := min(running_s, max((one.unwritten_s for one in owners), default=0.0))) > STALL_S:
            complaint = f"profiles have changed, and the changelog has taken none for {unwritten:.0f} s"
        elif stuck := [owner for owner in owners if owner.opening and min(owner.age_s, running_s) > OPEN_S]:
            complaint = f"partition {stuck[0].partition} is not restored after {stuck[0].age_s:.0f} s"
        if complaint and not self.complaint:
            self.complaint = complaint
            self._app.fail(complaint)
