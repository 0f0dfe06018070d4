"""A login: the session's events become the user's, each once, and the audit still adds up."""

import asyncio
import threading

import pytest

from mmrec_stream.contracts.behaviour import Click, Purchase
from mmrec_stream.kafka.reader import read
from mmrec_stream.operations.audit import audit
from mmrec_stream.settings import Settings
from mmrec_stream.storefront.joining import JOINED, JoinedElsewhereError, join
from mmrec_stream.topics import DAY_MS, Topics
from tests.cli.folding import fold_log
from tests.storefront.shop import NOW, Shop, bearer, events, open_shop, publish, token, until


def event(kind: str, item: str, event_id: str | None = None, **more: object) -> dict[str, object]:
    return {"type": kind, "item_id": item, "ts": NOW, "id": event_id} | more


def of(settings: Settings, user: str) -> list[tuple[str, str]]:
    """What lies in the behaviour topics of a user: types and items."""
    topics = Topics.of(settings)
    return [
        (type(one).__name__, one.item_id)
        for topic in topics.behaviour
        for one in events(settings, topic)
        if one.user_id == user
    ]


async def visit(shop: Shop) -> None:
    """A visitor without a login clicks, sees and buys, beside others."""
    mine = [
        event("click", "sofa", "1"),
        event("impression", "lamp", "2", list_id="l", position=0),
        event("purchase", "rug", "3"),
    ]
    assert (await shop.post("/v1/events", {"events": mine}, bearer(sid="s-1"))).json["accepted"] == 3
    await shop.post("/v1/events", event("click", "desk"), bearer(sid="s-2"))
    await shop.post("/v1/events", event("click", "own"), bearer("alice"))


async def test_the_sessions_events_are_the_users_and_the_audit_adds_up(settings: Settings, topics: Topics) -> None:
    async with open_shop(settings) as shop:
        await visit(shop)
        answer = await shop.post("/v1/sessions/join", {"session": "s-1"}, bearer("alice", sid="s-1"))
        assert (answer.status, answer.json) == (
            200,
            {"session": "s-1", "user_id": "alice", "events": 3, "added": 3},
        )
    joined = [("Click", "own"), ("Click", "sofa"), ("Purchase", "rug"), ("Impression", "lamp")]
    assert sorted(of(settings, "alice")) == sorted(joined)
    (sofa,) = [one for one in events(settings, topics.clicks) if (one.user_id, one.item_id) == ("alice", "sofa")]
    assert (sofa.ts, sofa.session_id) == (NOW, "s-1")
    assert len(of(settings, "session:s-1")) == 3
    await asyncio.to_thread(fold_log, settings)
    result = await asyncio.to_thread(audit, settings)
    assert (result.ok, result.users) == (True, 3)


@pytest.mark.usefixtures("topics")
async def test_asking_again_adds_only_what_has_come_since(settings: Settings) -> None:
    async with open_shop(settings) as shop:
        await visit(shop)
        for added in (3, 0):
            answer = await shop.post("/v1/sessions/join", {"session": "s-1"}, bearer("alice", sid="s-1"))
            assert (answer.json["events"], answer.json["added"]) == (3, added)
        await shop.post("/v1/events", event("click", "late"), bearer(sid="s-1"))
        answer = await shop.post("/v1/sessions/join", {"session": "s-1"}, bearer("alice", sid="s-1"))
        assert (answer.json["events"], answer.json["added"]) == (4, 1)
    # A gateway that has been restarted knows it too.
    async with open_shop(settings) as shop:
        assert (await shop.post("/v1/sessions/join", {"session": "s-1"}, bearer("alice", sid="s-1"))).json["added"] == 0
    assert len(of(settings, "alice")) == 5


@pytest.mark.usefixtures("topics")
async def test_joins_at_the_same_time_on_two_gateways_write_each_event_once(settings: Settings) -> None:
    async with open_shop(settings) as one, open_shop(settings) as other:
        await visit(one)
        shops = [one, other] * 2
        answers = await asyncio.gather(
            *(s.post("/v1/sessions/join", {"session": "s-1"}, bearer("alice", sid="s-1")) for s in shops)
        )
        assert {answer.status for answer in answers} <= {200, 503}
        # Those that another one has fenced ask again, as they are told to.
        assert (await one.post("/v1/sessions/join", {"session": "s-1"}, bearer("alice", sid="s-1"))).json["events"] == 3
    assert len(of(settings, "alice")) == 4


@pytest.mark.usefixtures("topics")
async def test_a_session_is_one_users(settings: Settings) -> None:
    async with open_shop(settings) as shop:
        await visit(shop)
        await shop.post("/v1/sessions/join", {"session": "s-1"}, bearer("alice", sid="s-1"))
        answer = await shop.post("/v1/sessions/join", {"session": "s-1"}, bearer("bob", sid="s-1"))
        assert (answer.status, answer.code) == (409, "joined_elsewhere")
    assert of(settings, "bob") == []


@pytest.mark.usefixtures("topics")
async def test_nobody_takes_a_session_without_proof_of_it(settings: Settings) -> None:
    async with open_shop(settings) as shop:
        await visit(shop)
        path, mine = "/v1/sessions/join", {"session": "s-1"}
        assert (await shop.post(path, mine, bearer("mallory"))).code == "no_proof"
        assert (await shop.post(path, mine, bearer("mallory", sid="s-9"))).code == "other_user"
        assert (await shop.post(path, mine, bearer(sid="s-1"))).status == 401
        assert (await shop.post(path, mine)).status == 401
        forged = {"session_token": token(sid="s-1", lasts_s=-60)}
        assert (await shop.post(path, forged, bearer("mallory"))).code == "expired"
        users = {"session_token": token(sub="bob", sid="s-1")}
        assert (await shop.post(path, users, bearer("mallory"))).code == "no_proof"
        assert of(settings, "mallory") == []
        answer = await shop.post(path, {"session_token": token(sid="s-1")}, bearer("alice"))
        assert answer.json["added"] == 3


@pytest.mark.usefixtures("topics")
async def test_without_consent_nothing_is_taken_over(settings: Settings) -> None:
    async with open_shop(settings) as shop:
        await visit(shop)
        answer = await shop.post("/v1/sessions/join", {"session": "s-1"}, bearer("alice", sid="s-1", consent=False))
        assert answer.json["added"] == 0
    assert of(settings, "alice") == [("Click", "own")]


async def test_repeats_do_not_make_an_item_popular(settings: Settings, topics: Topics) -> None:
    async with open_shop(settings) as shop:
        await visit(shop)
        await shop.post("/v1/events", {"events": [event("click", "desk"), event("click", "desk")]}, bearer("bob"))
        await shop.post("/v1/sessions/join", {"session": "s-1"}, bearer("alice", sid="s-1"))
    origins = [dict(message.headers() or ()).get(JOINED) for message in read(settings, topics.purchases)]
    assert sum(origin is not None for origin in origins) == 1
    async with open_shop(settings) as shop:
        await until("ranked", lambda: shop.gateway.rankings.seen)
        # rug: one purchase of weight 5; desk: three clicks; sofa and own: one each.
        assert list(shop.gateway.rankings.seen)[:2] == ["rug", "desk"]
        assert list(shop.gateway.rankings.bought) == ["rug"]


@pytest.mark.usefixtures("topics")
def test_events_of_last_month_stay_the_sessions(settings: Settings) -> None:
    old = Click(user_id="session:s", item_id="old", ts=NOW - 8 * DAY_MS)
    publish(settings, old, Purchase(user_id="session:s", item_id="new", ts=NOW))
    note, added = join(settings, "s", "alice", {})
    assert (note.events, added) == (1, 1)
    assert of(settings, "alice") == [("Purchase", "new")]


@pytest.mark.usefixtures("kafka_topics")
def test_many_joins_at_once_of_sessions_and_users_write_each_event_once(kafka_settings: Settings) -> None:
    settings = kafka_settings
    publish(settings, *(Click(user_id="session:s", item_id=f"i-{n}", ts=NOW) for n in range(50)))
    outcomes: list[str] = []

    def attempt(user: str) -> None:
        try:
            outcomes.append(f"{user} {join(settings, 's', user, {})[1]}")
        except JoinedElsewhereError:
            outcomes.append(f"{user} too late")
        except Exception as error:
            outcomes.append(f"{user} fenced: {type(error).__name__}")

    threads = [threading.Thread(target=attempt, args=(user,)) for user in ["alice", "bob"] * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for user in ("alice", "bob"):
        attempt(user)
    written = {user: len(of(settings, user)) for user in ("alice", "bob")}
    assert sorted(written.values()) == [0, 50], outcomes
