"""Who may ask from where, and how often: the pure rules, and that the gateway keeps to them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrec_stream.errors import UserError
from mmrec_stream.settings import Settings
from mmrec_stream.storefront.access import address_of, bearer, host_allowed, origin_allowed
from mmrec_stream.storefront.limits import Limiter, take
from mmrec_stream.storefront.serving import keys_of, serving
from tests.storefront.shop import NOW, open_shop, product, publish
from tests.storefront.shop import bearer as token_of

SHOP = "https://shop.example"
CLICK = {"type": "click", "item_id": "a", "ts": NOW}


@pytest.mark.parametrize(
    ("origin", "dev", "allowed"),
    [
        (None, False, True),
        (SHOP, False, True),
        ("https://gateway.example:8070", False, True),  # its own
        ("https://gateway.example", False, False),
        ("https://shop.example.evil.example", False, False),
        ("http://shop.example", False, False),
        ("https://evil.example", False, False),
        ("null", False, False),
        ("", False, False),
        ("file://", False, False),
        ("http://[::1", False, False),
        ("http://localhost:3000", False, False),
        ("http://localhost:3000", True, True),
        ("http://127.0.0.1", True, True),
        ("http://[::1]:5173", True, True),
        ("https://gateway.example:8070", True, False),  # a name of a stranger's that was made to lead here
        (SHOP, True, True),
    ],
)
def test_pages_that_may_call(origin: str | None, dev: bool, allowed: bool) -> None:
    assert origin_allowed(origin, "gateway.example:8070", [SHOP], dev=dev) is allowed


@pytest.mark.parametrize(
    ("host", "allowed"),
    [("localhost:8070", True), ("127.0.0.1", True), ("[::1]:8070", True), ("evil.example", False), ("[", False)],
)
def test_names_of_this_machine(host: str, allowed: bool) -> None:
    assert host_allowed(host) is allowed


@pytest.mark.parametrize(
    ("peer", "forwarded", "proxies", "address"),
    [
        ("9.9.9.9", ["1.1.1.1"], 0, "9.9.9.9"),
        ("10.0.0.1", ["6.6.6.6, 1.1.1.1"], 1, "1.1.1.1"),  # 6.6.6.6 is what the client wrote there
        ("10.0.0.1", ["6.6.6.6, 1.1.1.1", "10.0.0.2"], 2, "1.1.1.1"),
        ("10.0.0.1", [], 1, "10.0.0.1"),
        ("10.0.0.1", ["nonsense"], 1, "10.0.0.1"),
        ("2001:db8::1", [], 0, "2001:db8::/64"),
        ("2001:db8::2", [], 0, "2001:db8::/64"),
        (None, [], 0, ""),
    ],
)
def test_the_address_that_counts(peer: str | None, forwarded: list[str], proxies: int, address: str) -> None:
    assert address_of(peer, forwarded, proxies) == address


def test_the_header_comes_before_the_address_line() -> None:
    assert bearer({"Authorization": "Bearer a"}, {"token": "b"}) == "a"
    assert bearer({}, {"token": "b"}) == "b"
    assert bearer({"Authorization": "Basic b"}, {"token": "b"}) == ""
    assert bearer({}, {}) is None


class TestABucket:
    @given(
        st.lists(st.tuples(st.floats(0, 30), st.floats(0.1, 5)), min_size=1, max_size=60),
        st.floats(0.1, 50),
        st.floats(5, 100),
    )
    def test_never_gives_more_than_burst_and_rate_allow(
        self, steps: list[tuple[float, float]], rate: float, burst: float
    ) -> None:
        bucket, now, given_out = None, 100.0, 0.0
        for gap, cost in steps:
            now += gap
            bucket, wait = take(bucket, now, rate, burst, cost)
            if wait == 0:
                given_out += cost
            else:
                # Who waits as long as told gets it.
                assert take(bucket, now + wait * 1.0001, rate, burst, cost)[1] < 1e-6
            assert given_out <= burst + rate * (now - 100.0) + 1e-6
            assert 0 <= bucket.level <= burst

    def test_a_clock_that_goes_back_gives_nothing(self) -> None:
        bucket, _ = take(None, 100.0, 1.0, 2.0, 2.0)
        assert take(bucket, 50.0, 1.0, 2.0)[1] > 0

    def test_whoever_has_not_asked_for_longest_is_forgotten(self) -> None:
        limiter = Limiter(0.1, remembered=3)
        for who in ("a", "b", "a", "c", "d"):
            limiter.wait_s(who, 0.0)
        assert len(limiter) == 3
        assert limiter.wait_s("a", 0.0) > 0  # still known
        assert limiter.wait_s("b", 0.0) == 0


@pytest.mark.usefixtures("topics")
class TestPages:
    async def test_of_the_shop_may_call_and_of_strangers_not(self, settings: Settings) -> None:
        publish(settings, product("a"))
        async with open_shop(settings, storefront_origins=[SHOP]) as shop:
            good = await shop.get("/v1/recommendations", {"Origin": SHOP})
            assert (good.status, good.headers["Access-Control-Allow-Origin"]) == (200, SHOP)
            assert "Origin" in good.headers["Vary"]
            bad = await shop.get("/v1/recommendations", {"Origin": "https://evil.example"})
            assert (bad.status, bad.code) == (403, "origin")
            assert "Access-Control-Allow-Origin" not in bad.headers
            stolen = {**token_of("alice"), "Origin": "https://evil.example", "Content-Type": "text/plain"}
            assert (await shop.post("/v1/events", CLICK, stolen)).status == 403
            asked = {"Origin": SHOP, "Access-Control-Request-Method": "POST"}
            async with shop.session.options(f"{shop.url}/v1/events", headers=asked) as preflight:
                assert preflight.status == 204
                assert "Authorization" in preflight.headers["Access-Control-Allow-Headers"]
            async with shop.session.options(
                f"{shop.url}/v1/events", headers=asked | {"Origin": "https://evil.example"}
            ) as preflight:
                assert preflight.status == 403

    async def test_an_address_that_asks_too_fast_waits(self, settings: Settings) -> None:
        async with open_shop(settings, storefront_address_rate=0.5) as shop:
            answers = [await shop.get("/v1/recommendations") for _ in range(8)]
            assert [answer.status for answer in answers][:5] == [200] * 5
            assert answers[-1].status == 429
            assert 1 <= int(answers[-1].headers["Retry-After"]) <= 2

    async def test_bytes_of_a_head_and_connections_are_bounded(self, settings: Settings) -> None:
        async with open_shop(settings) as shop:
            assert (await shop.get("/v1/why", {"X": "y" * 9_000})).code == "malformed"
            assert (await shop.get("/v1/recommendations", token="x" * 5_000)).code == "oversized"


@pytest.mark.usefixtures("topics")
class TestTheDevelopmentMode:
    async def test_believes_everybody(self, settings: Settings) -> None:
        async with open_shop(settings, dev=True) as shop:
            assert (await shop.post("/v1/events", CLICK, user="alice")).json["accepted"] == 1
            assert (await shop.post("/v1/events", {"events": [CLICK], "session": "s"})).json["accepted"] == 1
            assert (await shop.post("/v1/events", CLICK)).code == "no_token"
            assert (await shop.post("/v1/events", CLICK, user="session:s")).status == 400
            joined = await shop.post("/v1/sessions/join", {"session": "s", "user": "alice"})
            assert joined.json["added"] == 1
            for origin in ("http://localhost:3000", "http://127.0.0.1:5173"):
                assert (await shop.get("/v1/recommendations", {"Origin": origin}, user="alice")).status == 200

    async def test_answers_to_this_machine_alone(self, settings: Settings) -> None:
        async with open_shop(settings, dev=True) as shop:
            assert (await shop.get("/v1/recommendations", {"Host": "evil.example"}, user="alice")).status == 421
            assert (await shop.get("/v1/why", {"Origin": "https://evil.example"})).status == 403

    async def test_does_not_listen_for_others(self, settings: Settings) -> None:
        for host in ("0.0.0.0", "::", "192.0.2.1", "shop.example"):  # noqa: S104 - refused
            with pytest.raises(UserError, match="loopback alone"):
                async with serving(settings.model_copy(update={"storefront_host": host}), dev=True):
                    pass

    def test_without_it_there_must_be_keys(self, settings: Settings) -> None:
        with pytest.raises(UserError, match="--new-key"):
            keys_of(settings, dev=False)
