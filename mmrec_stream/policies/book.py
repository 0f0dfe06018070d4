"""Which rules are in force, by the records of their topic: the newest that can be used, each version under its own key.

A broken record is never in force. As versions have keys of their own, it does not take the place of a good one when the
topic is compacted either, so that a worker that starts then finds what the others obey.
"""

from mmrec_stream.contracts.acceptance import UNREADABLE
from mmrec_stream.contracts.rules import decode_rules
from mmrec_stream.policies.policy import Policy, RulesError


class RuleBook:
    """The rule sets of the topic, in the order of its records."""

    def __init__(self) -> None:
        self._usable: dict[bytes, Policy] = {}
        """By key, the newest last."""
        self._keys: dict[bytes, None] = {}

    @property
    def in_force(self) -> Policy | None:
        """The rules that lists have to obey; not yet brought up to date with the catalogue."""
        return next(reversed(self._usable.values()), None)

    @property
    def keys(self) -> list[bytes]:
        """The keys of all records that are there, broken ones too."""
        return list(self._keys)

    def take(self, key: bytes | None, value: bytes | None) -> str | None:
        """Take the topic's next record; what is wrong with it, where something is.

        A null value takes that version back, and the newest of those that are left is in force again. What was good
        under a key stays where what follows it is broken.
        """
        key = key or b""
        if value is None:
            self._keys.pop(key, None)
            self._usable.pop(key, None)
            return None
        self._keys[key] = None
        try:
            policy = Policy(decode_rules(value))
        except (*UNREADABLE, RulesError) as error:
            return str(error)
        self._usable.pop(key, None)
        self._usable[key] = policy
        return None
