"""Tokens: which are good, and that whatever else is thrown at the gateway neither gets in nor breaks it."""

import base64
import json
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from mmrec_stream.errors import UserError
from mmrec_stream.storefront.tokens import LEEWAY_S, Denial, Visitor, check, new_key_set, parse_keys
from tests.storefront import shop
from tests.storefront.shop import KEYS, SECRET

NOW_S = 1_800_000_000.0
LIFETIME_S = 1800.0
token = partial(shop.token, now_s=NOW_S)


def judged(text: str, keys: str = KEYS) -> Visitor | Denial:
    return check(text, parse_keys(keys), NOW_S, LIFETIME_S)


def reason(text: str) -> str:
    found = judged(text)
    return found.reason if isinstance(found, Denial) else "good"


def key_set(*keys: dict[str, str]) -> str:
    return json.dumps({"keys": keys})


def secret(length: int = 32) -> str:
    return base64.urlsafe_b64encode(bytes(range(length))).rstrip(b"=").decode()


class TestWhoItIs:
    def test_a_user(self) -> None:
        found = judged(token(sub="alice", sid="s-1", surfaces=["home"], exp=int(NOW_S + 60)))
        assert found == Visitor("alice", "s-1", True, frozenset(["home"]), int(NOW_S + 60) + LEEWAY_S)
        assert not found.anonymous

    def test_a_session_without_a_login(self) -> None:
        found = judged(token(sid="s-1", consent=False))
        assert isinstance(found, Visitor)
        assert (found.user_id, found.session, found.consent, found.anonymous) == ("session:s-1", "s-1", False, True)

    def test_a_key_pair_of_which_the_gateway_has_only_the_public_half(self) -> None:
        private = Ed25519PrivateKey.generate()
        public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        x = base64.urlsafe_b64encode(public).rstrip(b"=").decode()
        keys = key_set({"kid": "pair", "kty": "OKP", "crv": "Ed25519", "x": x})
        claims = {"aud": "mmrec-storefront", "sub": "alice", "exp": NOW_S + 60}
        good = jwt.encode(claims, private, algorithm="EdDSA", headers={"kid": "pair"})
        assert isinstance(judged(good, keys), Visitor)
        # The public half as if it were a shared secret.
        forged = jwt.encode(claims, public, algorithm="HS256", headers={"kid": "pair"})
        assert isinstance(judged(forged, keys), Denial)

    def test_keys_are_changed_by_having_two_for_a_while(self) -> None:
        old, new = json.loads(KEYS)["keys"][0], {"kid": "next", "kty": "oct", "k": secret()}
        by_old, by_new = token(sub="alice"), token(sub="alice", key=secret(), kid="next")
        both = key_set(old, new)
        assert isinstance(judged(by_old, both), Visitor)
        assert isinstance(judged(by_new, both), Visitor)
        assert isinstance(judged(by_old, key_set(new)), Denial)


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"sub": "alice", "exp": NOW_S - LEEWAY_S + 5}, "good"),
        ({"sub": "alice", "exp": NOW_S - LEEWAY_S - 5}, "expired"),
        ({"sub": "alice", "exp": NOW_S + LIFETIME_S + LEEWAY_S + 60}, "lifetime"),
        ({"sub": "alice", "exp": float("nan")}, "expired"),
        ({"sub": "alice", "exp": float("inf")}, "lifetime"),
        ({"sub": "alice", "exp": "soon"}, "claims"),
        ({"sub": "alice", "exp": True}, "claims"),
        ({"sub": "alice", "exp": None}, "claims"),
        ({"sub": "alice", "nbf": NOW_S + 60}, "early"),
        ({"sub": "alice", "iat": NOW_S + 60}, "early"),
        ({"sub": "alice", "nbf": "now"}, "early"),
        ({"sub": "alice", "aud": "another-service"}, "audience"),
        ({"sub": "alice", "aud": ["x", "mmrec-storefront"]}, "good"),
        ({"sub": "alice", "aud": None}, "claims"),
        ({"sub": "alice", "aud": 7}, "audience"),
        ({"sub": "session:s-1"}, "claims"),
        ({"sub": ""}, "claims"),
        ({"sub": 7}, "claims"),
        ({"sub": "x" * 129}, "claims"),
        ({"sid": "x" * 125}, "claims"),
        ({"sub": "alice", "consent": "yes"}, "claims"),
        ({"sub": "alice", "surfaces": "home"}, "claims"),
        ({}, "claims"),
    ],
    ids=str,
)
def test_claims_are_judged(claims: dict[str, Any], expected: str) -> None:
    assert reason(token(**claims)) == expected


class TestForgeries:
    def test_without_or_with_another_signature(self) -> None:
        head, body, signature = token(sub="alice").split(".")
        other = token(sub="bob").split(".")
        assert reason(f"{head}.{other[1]}.{signature}") == "signature"
        assert reason(f"{head}.{body}.") == "signature"
        assert reason(token(sub="alice", key=secret())) == "signature"
        assert reason(token(sub="alice", key="", alg="none")) in ("malformed", "signature")

    def test_with_a_key_that_is_not_ours(self) -> None:
        assert reason(token(sub="alice", kid="unknown")) == "unknown_key"
        assert reason(jwt.encode({"sub": "alice"}, SECRET.encode(), algorithm="HS256")) == "unknown_key"

    def test_with_another_algorithm_than_the_key_has(self) -> None:
        assert reason(token(sub="alice", alg="HS512")) in ("malformed", "signature")

    def test_as_long_as_a_book(self) -> None:
        assert reason("a" * 1_000_000) == "oversized"

    @given(st.text(max_size=300) | st.binary(max_size=200).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
    def test_no_text_is_a_token(self, text: str) -> None:
        assert isinstance(judged(text), Denial)

    @given(st.data())
    def test_no_change_of_a_token_is_one(self, data: st.DataObject) -> None:
        good = token(sub="alice", exp=int(NOW_S + 60))
        place = data.draw(st.integers(0, len(good) - 2))
        letter = data.draw(st.sampled_from("abcXYZ019-_.=") | st.characters(codec="utf-8"))
        bad = good[:place] + letter + good[place + 1 :]
        assert bad == good or isinstance(judged(bad), Denial)

    @given(
        st.dictionaries(
            st.sampled_from(["sub", "sid", "exp", "aud", "nbf", "iat", "jti", "iss", "consent", "surfaces"]),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
                lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
            ),
        )
    )
    def test_whatever_our_own_key_signs_is_judged_without_an_error(self, claims: dict[str, Any]) -> None:
        usual = {"aud": "mmrec-storefront", "exp": NOW_S + 60}
        try:
            text = jwt.encode(usual | claims, jwt.utils.base64url_decode(SECRET), headers={"kid": "now"})
        except TypeError:
            return
        found = judged(text)
        assert isinstance(found, Denial) or (found.user_id and found.expires and found.expires > NOW_S)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("secret!", "JWK Set"),
        ("{}", "JWK Set"),
        (key_set(), "no key"),
        (key_set({"kid": "a", "kty": "oct", "k": secret(16)}), "fewer than 32 bytes"),
        (key_set({"kid": "a", "kty": "oct", "k": "ü"}), "cannot be read"),
        (key_set({"kid": "a", "kty": "RSA"}), "oct, or OKP"),
        (key_set({"kid": "a", "kty": "OKP", "crv": "Ed25519", "x": "AA"}), "cannot be read"),
        (key_set({"kid": "a", "kty": "oct", "k": secret(), "alg": "HS512"}), "HS256"),
        (key_set(*[{"kid": "a", "kty": "oct", "k": secret()}] * 2), "two keys"),
    ],
)
def test_keys_that_cannot_be_used_are_refused_without_being_told(keys: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        parse_keys(keys)
    assert secret() not in str(caught.value)
    assert "secret!" not in str(caught.value)


def test_a_new_key_works_and_is_another_each_time() -> None:
    one, other = new_key_set("a"), new_key_set("a")
    assert one != other
    text = token(sub="alice", key=json.loads(one)["keys"][0]["k"], kid="a")
    assert isinstance(judged(text, one), Visitor)
    assert isinstance(judged(text, other), Denial)


def forgeries(count: int, seed: int, now_s: float = NOW_S) -> list[str]:
    """Tokens of every kind that must not get in: forged, expired, foreign, cut, shuffled, nonsense."""
    draw = random.Random(seed)
    token = partial(shop.token, now_s=now_s)
    good = token(sub="alice")
    head, body, signature = good.split(".")
    unsafe_head = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":["now"]}').decode().rstrip("=")
    kinds: list[Callable[[], str]] = [
        lambda: token(sub="alice", key=base64.urlsafe_b64encode(draw.randbytes(32)).decode()),
        lambda: token(sub="alice", kid=draw.choice(["", "old", "../now", "now ", "\u202enow"])),
        lambda: token(sub="alice", lasts_s=-draw.uniform(31, 1e9)),
        lambda: token(sub="alice", lasts_s=draw.uniform(1e4, 1e12)),
        lambda: token(sub="alice", aud=draw.choice(["another", "mmrec", "", ["a", "b"]])),
        lambda: token(sub=draw.choice(["session:s", "", "x" * 200])),
        lambda: token(sub="alice", nbf=now_s + draw.uniform(60, 1e6)),
        lambda: token(sub="alice", key="", alg="none"),
        lambda: token(sub="alice", alg=draw.choice(["HS384", "HS512"])),
        lambda: good[: draw.randrange(len(good))],
        lambda: ".".join(draw.sample([head, body, signature, ""], 3)),
        lambda: "".join(draw.sample(good, len(good))),
        lambda: draw.randbytes(draw.randrange(1, 200)).hex(),
        lambda: f"{head}.{base64.urlsafe_b64encode(draw.randbytes(80)).decode()}.{signature}",
        lambda: "e30." * draw.randrange(1, 900),
        lambda: base64.urlsafe_b64encode(b'{"alg":"none","kid":"now"}').decode().rstrip("=") + f".{body}.",
        lambda: f"{unsafe_head}.{body}.{signature}",
        lambda: base64.urlsafe_b64encode(b"[" * draw.randrange(1, 2000)).decode() + f".{body}.{signature}",
    ]
    found: list[str] = []
    while len(found) < count:
        text = kinds[len(found) % len(kinds)]()
        if text != good:  # a shuffle may change nothing
            found.append(text)
    return found
