"""What an event says of a taste, and how long that lasts: one value for whoever folds, serves, trains or judges."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmrec_stream.contracts.behaviour import EventType
from mmrec_stream.presets import SHOP, load_preset
from mmrec_stream.profiles.record import TYPE_SLOTS

DAY_MS = 86_400_000


@dataclass(frozen=True, eq=False)
class Tastes:
    """The rule of affinities."""

    name: str
    """Of the preset that it comes from."""
    weights: NDArray[np.float64]
    """By code of `EventType`, (TYPE_SLOTS,): what one event adds. A rating counts by its stars instead."""
    half_life_ms: float

    @classmethod
    def of(cls, preset: str) -> "Tastes":
        """The rule of a preset, by its name or path.

        Raises:
            UserError: as for `load_preset`.
        """
        chosen = load_preset(preset)
        weights = np.zeros(TYPE_SLOTS)
        for name in chosen.weights.__struct_fields__:
            weights[EventType[name.upper()]] = getattr(chosen.weights, name)
        weights.flags.writeable = False
        return cls(Path(preset).stem, weights, chosen.half_life_days * DAY_MS)


SHOP_TASTES = Tastes.of(SHOP)
"""As everywhere where no preset is set."""
