"""Events that pages send: confirmed by Kafka, counted once, and of the one whose token it is."""

import asyncio
import json
import time
from typing import Any

import pytest

from mmrec_stream.contracts.behaviour import Click, Impression, View
from mmrec_stream.contracts.identity import partition_of
from mmrec_stream.kafka.reader import read
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics
from tests.storefront.shop import bearer, events, open_shop, token, until

CLICK = {"type": "click", "item_id": "sofa", "ts": 1_790_000_000_000}


async def test_they_lie_where_their_user_belongs_and_only_once(settings: Settings, topics: Topics) -> None:
    batch = {
        "events": [
            {"id": "e-1", **CLICK, "list_id": "l-1", "position": 3, "surface": "home"},
            {"id": "e-2", "type": "impression", "item_id": "lamp", "list_id": "l-1", "position": 0},
            {"id": "e-1", **CLICK},
        ]
    }
    async with open_shop(settings) as shop:
        before = int(time.time() * 1000)
        answer = await shop.post("/v1/events", batch, bearer("alice"))
        assert (answer.status, answer.json) == (202, {"accepted": 2, "duplicates": 1, "withheld": 0})
        # Confirmed means that whoever reads now finds them.
        assert events(settings, topics.clicks) == [
            Click(user_id="alice", item_id="sofa", ts=CLICK["ts"], list_id="l-1", position=3)  # type: ignore[arg-type]
        ]
        (shown,) = events(settings, topics.feedback)
        assert isinstance(shown, Impression)
        assert before <= shown.ts <= int(time.time() * 1000)
        (record,) = read(settings, topics.clicks)
        assert (record.key(), record.partition()) == (b"alice", partition_of(b"alice", settings.partitions))
        again = await shop.post("/v1/events", batch, bearer("alice"))
        assert again.json == {"accepted": 0, "duplicates": 3, "withheld": 0}
        # Another's event of the same id is another event.
        assert (await shop.post("/v1/events", {"id": "e-1", **CLICK}, bearer("bob"))).json["accepted"] == 1


async def test_a_second_gateway_and_one_that_was_restarted_know_what_was_taken(
    settings: Settings, topics: Topics
) -> None:
    async with open_shop(settings) as first, open_shop(settings) as second:
        assert (await first.post("/v1/events", {"id": "e-1", **CLICK}, bearer("alice"))).json["accepted"] == 1
        await until("it has heard of it", lambda: ("alice", "e-1") in second.gateway.window)
        assert (await second.post("/v1/events", {"id": "e-1", **CLICK}, bearer("alice"))).json["duplicates"] == 1
    async with open_shop(settings) as third:
        assert (await third.post("/v1/events", {"id": "e-1", **CLICK}, bearer("alice"))).json["duplicates"] == 1
    assert len(events(settings, topics.clicks)) == 1


async def test_ten_requests_with_one_event_at_once_write_it_once(settings: Settings, topics: Topics) -> None:
    async with open_shop(settings) as shop:
        answers = await asyncio.gather(
            *(shop.post("/v1/events", {"id": "e", **CLICK}, bearer("alice")) for _ in range(10))
        )
    assert {answer.status for answer in answers} == {202}
    assert sum(answer.json["accepted"] for answer in answers) == 1
    assert len(events(settings, topics.clicks)) == 1


async def test_a_beacon_has_its_token_in_the_address(settings: Settings, topics: Topics) -> None:
    async with open_shop(settings) as shop:
        answer = await shop.post(
            "/v1/events", CLICK, {"Content-Type": "text/plain;charset=UTF-8"}, token=token(sub="alice")
        )
        assert answer.status == 202
    assert len(events(settings, topics.clicks)) == 1


async def test_a_beacon_of_a_page_that_is_gone_at_once_still_counts(settings: Settings, topics: Topics) -> None:
    body = json.dumps(CLICK).encode()
    async with open_shop(settings) as shop:
        _, writer = await asyncio.open_connection("127.0.0.1", shop.port)
        head = f"POST /v1/events?token={token(sub='alice')} HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n"
        writer.write(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        writer.close()
        await until("the event", lambda: events(settings, topics.clicks))


async def test_a_visitor_without_a_login_is_known_by_the_session(settings: Settings, topics: Topics) -> None:
    async with open_shop(settings) as shop:
        assert (await shop.post("/v1/events", CLICK, bearer(sid="s-1"))).status == 202
    (event,) = events(settings, topics.clicks)
    assert (event.user_id, event.session_id) == ("session:s-1", "s-1")


@pytest.mark.parametrize(
    ("consent", "control"), [(False, {}), (None, {"Sec-GPC": "1"})], ids=["no consent", "privacy control"]
)
async def test_without_consent_nothing_is_written(
    settings: Settings, topics: Topics, consent: bool | None, control: dict[str, str]
) -> None:
    async with open_shop(settings) as shop:
        answer = await shop.post("/v1/events", CLICK, bearer("alice", consent=consent) | control)
        assert (answer.status, answer.json) == (202, {"accepted": 0, "duplicates": 0, "withheld": 1})
    assert events(settings, topics.clicks) == []


async def test_a_clock_that_is_ahead_is_set_right(settings: Settings, topics: Topics) -> None:
    async with open_shop(settings) as shop:
        await shop.post("/v1/events", {"type": "view", "item_id": "sofa", "ts": 8_000_000_000_000}, bearer("alice"))
    (event,) = events(settings, topics.clicks)
    assert isinstance(event, View)
    assert abs(event.ts - time.time() * 1000) < 60_000


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        (b"{", 400, "not_json", None),
        (b"\xff\xfe", 400, "not_json", None),
        pytest.param(b"[" * 100_000, 400, "not_json", None, id="deep"),
        ([], 400, "invalid_body", ""),
        ({"events": []}, 400, "invalid_body", "events"),
        ({"events": [CLICK] * 201}, 400, "invalid_body", "events"),
        ({"events": {}}, 400, "invalid_event", "events"),
        ({"events": [CLICK, 7]}, 400, "invalid_event", "events[1]"),
        ({"events": [CLICK, {**CLICK, "position": -1}]}, 400, "invalid_event", "events[1].position"),
        ({"type": "impression", "item_id": "a", "ts": CLICK["ts"]}, 400, "invalid_event", "list_id"),
        ({"type": "click", "ts": CLICK["ts"]}, 400, "invalid_event", "item_id"),
        ({**CLICK, "type": "hover"}, 400, "invalid_event", "type"),
        ({**CLICK, "ts": "yesterday"}, 400, "invalid_event", "ts"),
        ({**CLICK, "ts": 1_700_000_000}, 400, "invalid_event", "ts"),
        ({**CLICK, "item_id": "x" * 129}, 400, "invalid_event", "item_id"),
        ({**CLICK, "id": ""}, 400, "invalid_event", "id"),
        ({**CLICK, "user_id": "bob"}, 403, "other_user", "user_id"),
        (b" " * 200_000, 413, "too_large", None),
    ],
    ids=str,
)
async def test_what_is_wrong_is_named_and_nothing_of_it_is_written(
    settings: Settings, topics: Topics, body: Any, status: int, code: str, field: str | None
) -> None:
    async with open_shop(settings) as shop:
        answer = await shop.post("/v1/events", body, bearer("alice"))
        assert (answer.status, answer.code, answer.json["error"].get("field")) == (status, code, field)
        assert answer.json["error"]["message"]
    assert events(settings, topics.clicks) == []


async def test_other_kinds_of_bodies_and_no_token_are_refused(settings: Settings, topics: Topics) -> None:
    async with open_shop(settings) as shop:
        assert (await shop.post("/v1/events", CLICK, {**bearer("alice"), "Content-Type": "text/html"})).status == 415
        assert (await shop.post("/v1/events", CLICK)).code == "no_token"
    assert events(settings, topics.clicks) == []


async def test_who_is_too_fast_is_told_how_long_to_wait(settings: Settings, topics: Topics) -> None:
    async with open_shop(settings, storefront_rate=1.0) as shop:
        answers = [await shop.post("/v1/events", CLICK, bearer("alice")) for _ in range(12)]
        refused = [answer for answer in answers if answer.status == 429]
        assert refused
        assert refused[0].code == "too_fast"
        assert int(refused[0].headers["Retry-After"]) == 1
        # Others are not held up.
        assert (await shop.post("/v1/events", CLICK, bearer("bob"))).status == 202
    assert len(events(settings, topics.clicks)) == 13 - len(refused)
