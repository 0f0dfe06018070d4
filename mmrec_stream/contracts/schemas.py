"""JSON Schemas of all contracts, for producers and consumers in other languages."""

from typing import Any

import msgspec

from mmrec_stream.contracts.behaviour import BehaviourRecord
from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.contracts.dead_letters import DeadLetter
from mmrec_stream.contracts.recommendations import RecommendationList
from mmrec_stream.contracts.releases import ReleaseAnnouncement
from mmrec_stream.contracts.rollouts import RolloutRecord
from mmrec_stream.contracts.rules import RuleSet
from mmrec_stream.contracts.sessions import SessionJoin

CONTRACTS: dict[str, tuple[Any, str]] = {
    "behaviour-event": (BehaviourRecord, "A behaviour event"),
    "catalogue-item": (CatalogueItem, "A catalogue item"),
    "recommendation-list": (RecommendationList, "A recommendation list"),
    "release-announcement": (ReleaseAnnouncement, "A release announcement"),
    "rules": (RuleSet, "A rule set"),
    "rollout": (RolloutRecord, "What is said of a release that is being rolled out"),
    "dead-letter": (DeadLetter, "A dead letter"),
    "session-join": (SessionJoin, "A session that became a user's"),
}
"""Each contract's type and title, by the name of its schema file."""

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema(name: str) -> dict[str, Any]:
    """The JSON Schema of a contract, draft 2020-12. Unknown fields are allowed, as readers pass them over.

    Args:
        name: one of `CONTRACTS`.
    """
    contract, title = CONTRACTS[name]
    found = {"$schema": DIALECT, "title": title, **msgspec.json.schema(contract)}
    if "Follow" in found["$defs"]:
        found["$defs"]["Follow"]["oneOf"] = [
            {"required": [field], "properties": {field: {"type": "string"}}} for field in ("followed_user_id", "brand")
        ]
    return found


def schema_files() -> dict[str, bytes]:
    """Every schema as the bytes of its file, by file name; the same contracts give the same bytes."""
    return {
        f"{name}.schema.json": msgspec.json.format(msgspec.json.encode(schema(name), order="sorted"), indent=2) + b"\n"
        for name in CONTRACTS
    }
