"""Who a request comes from: short-lived tokens that the shop's server signs, checked with keys that can be rotated.

A token is a JWT. Its header names the key (`kid`); the key, not the header, says which algorithm is used. Its claims:
`aud` is `mmrec-storefront`, `exp` at most some minutes ahead, `sub` the user id or, for a visitor who has not logged
in, `sid` the session id. `consent` (true where it is missing) and `surfaces` may narrow what it is good for. `locale`
and `adult` (false where it is missing) are for rules to read.
"""

import base64
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import jwt
import msgspec

from mmrec_stream.contracts.fields import MAX_ID_LENGTH, Id
from mmrec_stream.errors import UserError

AUDIENCE = "mmrec-storefront"

LEEWAY_S = 30
"""How far the clocks of the shop's server and ours may disagree. NTP keeps machines within a second; a container that
has just been woken may be off by ten."""

MAX_TOKEN = 4_096
"""Characters of a token. A usual one has 300; it also has to fit into an address line, which servers cut at 8 KB."""

MIN_SECRET_BYTES = 32
"""A shared secret has at least as many bits as the hash (RFC 7518, 3.2)."""

SESSION_PREFIX = "session:"
"""What the user id of a visitor without a login begins with. No token may name such an id as `sub`, as it would be
somebody's session."""

MAX_SESSION = MAX_ID_LENGTH - len(SESSION_PREFIX)

# Whatever a claim holds: the library raises some of these for numbers beyond what a clock can show.
_BROKEN = (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError, UnicodeError, AttributeError)


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks. Nobody in particular has neither a user nor a session."""

    user_id: str | None = None
    """The id that profiles and lists have: the user's, or `session:` and the session's."""
    session: str | None = None
    consent: bool = True
    surfaces: frozenset[str] | None = None
    """Where lists may be shown; everywhere where None."""
    expires: float | None = None
    """When the token ends, s since 1970, leeway included."""
    locale: str = ""
    adult: bool = False
    """Whether the shop knows that he is of age."""

    @property
    def anonymous(self) -> bool:
        """Whether it is a session without a login."""
        return self.user_id is None or self.user_id.startswith(SESSION_PREFIX)


NOBODY = Visitor()


@dataclass(frozen=True, slots=True)
class Denial:
    """Why a token is not good."""

    reason: str
    """One word for metrics and programs."""
    message: str


class Keys:
    """The keys that tokens may be signed with, by `kid`."""

    def __init__(self, keys: Mapping[str, jwt.PyJWK]) -> None:
        self._keys = dict(keys)

    def __len__(self) -> int:
        return len(self._keys)

    def get(self, kid: object) -> jwt.PyJWK | None:
        """The key of that name."""
        return self._keys.get(kid) if isinstance(kid, str) else None


class _Key(msgspec.Struct):
    """A member of a JWK Set. HS256 is a secret that shop and gateway share; EdDSA has its private half at the shop."""

    kid: Id
    kty: str
    k: str = ""
    crv: str = ""
    x: str = ""
    alg: str = ""


class _KeySet(msgspec.Struct):
    keys: list[_Key]


class _Claims(msgspec.Struct):
    exp: int | float
    sub: Id | None = None
    sid: Id | None = None
    consent: bool = True
    surfaces: list[str] | None = None
    locale: Annotated[str, msgspec.Meta(max_length=64)] = ""
    adult: bool = False


def parse_keys(text: str) -> Keys:
    """The keys of a JWK Set.

    Raises:
        UserError: it is none, or a key in it is weak or of another kind. The text has no key material.
    """
    try:
        found = msgspec.json.decode(text, type=_KeySet).keys
    except (msgspec.DecodeError, UnicodeError):
        raise UserError(
            'MMREC_STOREFRONT_KEYS is no JWK Set: {"keys": [{"kid": …, "kty": "oct", "k": …}]}; '
            "`mmrec storefront --new-key` makes one"
        ) from None
    keys: dict[str, jwt.PyJWK] = {}
    for key in found:
        if key.kid in keys:
            raise UserError(f"MMREC_STOREFRONT_KEYS has two keys of the name {key.kid!r}")
        keys[key.kid] = _parsed(key)
    if not keys:
        raise UserError("MMREC_STOREFRONT_KEYS has no key in it; `mmrec storefront --new-key` makes one")
    return Keys(keys)


def new_key_set(kid: str) -> str:
    """A JWK Set with one new shared secret."""
    secret = base64.urlsafe_b64encode(secrets.token_bytes(MIN_SECRET_BYTES)).rstrip(b"=").decode()
    return msgspec.json.encode({"keys": [{"kid": kid, "kty": "oct", "alg": "HS256", "k": secret}]}).decode()


def check(token: str, keys: Keys, now_s: float, max_lifetime_s: float) -> Visitor | Denial:
    """Who a token stands for, or why it is not good. Never raises, whatever the token is.

    Args:
        token: as it came.
        keys: those in use.
        now_s: s since 1970.
        max_lifetime_s: how far ahead its end may lie.
    """
    if len(token) > MAX_TOKEN:
        return Denial("oversized", f"a token has at most {MAX_TOKEN} characters")
    try:
        key = keys.get(jwt.get_unverified_header(token).get("kid"))
        if key is None:
            return Denial("unknown_key", "the token's `kid` names no key that is in use")
        # Times are judged below, by the caller's clock: signature and audience come first, whatever else is wrong.
        payload = jwt.decode(
            token,
            key,
            algorithms=[key.algorithm_name],
            audience=AUDIENCE,
            options={
                "require": ["exp", "aud"],
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
                "verify_sub": False,
                "verify_jti": False,
            },
        )
        claims = msgspec.convert(payload, _Claims)
    except jwt.InvalidAudienceError:
        return Denial("audience", f"the token's `aud` is not {AUDIENCE}")
    except jwt.MissingRequiredClaimError as error:
        return Denial("claims", f"the token lacks `{error.claim}`")
    except msgspec.ValidationError as error:
        return Denial("claims", f"the token's claims are not as agreed: {error}")
    except jwt.InvalidSignatureError:
        return Denial("signature", "the token's signature does not fit")
    except _BROKEN:
        return Denial("malformed", "this is no token that can be read")
    return _judge(claims, payload, now_s, max_lifetime_s)


def _judge(claims: _Claims, payload: Mapping[str, object], now_s: float, max_lifetime_s: float) -> Visitor | Denial:
    if not claims.exp > now_s - LEEWAY_S:
        return Denial("expired", "the token has expired; ask the shop's server for another")
    if claims.exp > now_s + max_lifetime_s + LEEWAY_S:
        return Denial("lifetime", f"the token lives longer than the {max_lifetime_s / 60:g} minutes that are allowed")
    for name in ("nbf", "iat"):
        begins = payload.get(name)
        if begins is None:
            continue
        if isinstance(begins, bool) or not isinstance(begins, int | float) or not begins <= now_s + LEEWAY_S:
            return Denial("early", f"the token's `{name}` lies ahead")
    if claims.sub is None and claims.sid is None:
        return Denial("claims", "the token names neither a user (`sub`) nor a session (`sid`)")
    if claims.sub is not None and claims.sub.startswith(SESSION_PREFIX):
        return Denial("claims", f"no user's id begins with {SESSION_PREFIX!r}")
    if claims.sid is not None and len(claims.sid) > MAX_SESSION:
        return Denial("claims", f"a session id has at most {MAX_SESSION} characters")
    return Visitor(
        user_id=claims.sub or f"{SESSION_PREFIX}{claims.sid}",
        session=claims.sid,
        consent=claims.consent,
        surfaces=None if claims.surfaces is None else frozenset(claims.surfaces),
        locale=claims.locale,
        adult=claims.adult,
        expires=claims.exp + LEEWAY_S,
    )


def _parsed(key: _Key) -> jwt.PyJWK:
    match key.kty, key.crv:
        case "oct", _:
            algorithm, material = "HS256", {"kty": "oct", "k": key.k}
        case "OKP", "Ed25519":
            algorithm, material = "EdDSA", {"kty": "OKP", "crv": "Ed25519", "x": key.x}
        case _:
            raise UserError(f"key {key.kid!r} of MMREC_STOREFRONT_KEYS: `kty` is oct, or OKP with `crv` Ed25519")
    if key.alg not in ("", algorithm):
        raise UserError(f"key {key.kid!r} of MMREC_STOREFRONT_KEYS: `alg` is {algorithm} for this kind of key")
    try:
        parsed = jwt.PyJWK(material, algorithm)
        secret = base64.urlsafe_b64decode(key.k + "=" * (-len(key.k) % 4))
    except _BROKEN:
        raise UserError(f"key {key.kid!r} of MMREC_STOREFRONT_KEYS cannot be read") from None
    if algorithm == "HS256" and len(secret) < MIN_SECRET_BYTES:
        raise UserError(f"key {key.kid!r} of MMREC_STOREFRONT_KEYS has fewer than {MIN_SECRET_BYTES} bytes")
    return parsed
