"""What a check of an installation or a cluster has found."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    NOTE = "note"
    """Works; someone should know."""
    BROKEN = "broken"


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    level: Level
    check: str
    detail: str
    remedy: str = ""
