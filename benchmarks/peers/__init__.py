"""The peers: the same small job (the last 50 items of each user, with changelog) as each library's users write it.

Every peer is a process of its own that reads one topic from its beginning and prints one line of JSON per milestone:
`{"first": ms}` when it has the first event in hand and, where the peer keeps no changelog to read the end from,
`{"last": ms}` when it has folded the last one.
"""

import json
import os
import time

import msgspec

KEPT = 50
"""Items remembered per user: the length of the product's own ring."""


def milestone(name: str) -> None:
    """Tell the harness that `name` was reached at this moment."""
    # Below sys.stdout, which Faust puts its log in the place of.
    os.write(1, json.dumps({name: time.time() * 1000}).encode() + b"\n")


def echo_of(key: bytes, topic: str, partition: int, offset: int) -> bytes:
    """An echo's answer: it names its cause in the same fields as a recommendation list does."""
    cause = {"topic": topic, "partition": partition, "offset": offset}
    return msgspec.json.encode({"user_id": key.decode(), "cause": cause})
