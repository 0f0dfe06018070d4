"""A release beside the live one: what guards count when both make lists for the same users."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from mmrec_stream.contracts.rollouts import Trial
from mmrec_stream.ranking.recommend import Slate
from mmrec_stream.releases.rollout import AGREE, COVER, SLOWER

COVERAGE_USERS = 4
"""Fewest users whose lists are compared for how many different items they show: one list always has as many."""


@dataclass
class Tally:
    """What one worker has counted of a release in a stage."""

    trials: dict[str, Trial] = field(default_factory=dict)
    agreement: float = 0.0
    """Mean share of places in common."""
    ratios: list[float] = field(default_factory=list)
    """Scoring time by the live release's, of the last batches."""
    _lists: int = 0

    def add(self, guard: str, n: int, bad: int) -> None:
        """Count `n` more, `bad` of them bad."""
        before = self.trials.get(guard, Trial())
        self.trials[guard] = Trial(n=before.n + n, bad=before.bad + bad)

    def compare(
        self, live: Sequence[Slate], theirs: Sequence[Slate], live_s: float, theirs_s: float, items: int
    ) -> None:
        """Count what lists of the same users show.

        Args:
            live: The live release's.
            theirs: The other's; empty where scoring failed.
            live_s: How long the live release took, s.
            theirs_s: How long the other took, s.
            items: In the live release's table.
        """
        users = [user for user in range(len(live)) if live[user].strategy == "hybrid" and live[user].items]
        if not users:
            return
        self.add("errors", len(users), len(users) if not theirs else sum(not theirs[user].items for user in users))
        if not theirs:
            return
        self.add("empty", len(users), sum(len(theirs[user].items) < len(live[user].items) for user in users))
        self.add("latency", 1, int(theirs_s > SLOWER * live_s))
        self.ratios = [*self.ratios[-255:], theirs_s / max(live_s, 1e-9)]
        shown = [
            ({item.item_id for item in live[user].items}, {i.item_id for i in theirs[user].items}) for user in users
        ]
        apart = 0
        for mine, other in shown:
            common, chance = len(mine & other), len(mine) * len(other) / max(items, 1)
            self._lists += 1
            self.agreement += (common / len(mine) - self.agreement) / self._lists
            apart += common - chance < AGREE * (len(mine) - chance)
        self.add("agreement", len(users), apart)
        if len(users) >= COVERAGE_USERS:
            different = [len(set[str]().union(*lists)) for lists in zip(*shown, strict=True)]
            self.add("coverage", 1, int(different[1] < COVER * different[0]))

    @property
    def latency(self) -> float:
        """Median ratio of the scoring times."""
        return sorted(self.ratios)[len(self.ratios) // 2] if self.ratios else 0.0
