"""Who may ask, from which page and from which address. Pure."""

from collections.abc import Collection, Mapping, Sequence
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
"""Names of this machine, as browsers write them."""


def origin_allowed(origin: str | None, host: str, allowed: Collection[str], *, dev: bool) -> bool:
    """Whether a page of `origin` may call.

    Requests that no page sends have no origin. In the development mode any page of this machine may.

    Args:
        origin: the `Origin` header.
        host: the `Host` header.
        allowed: origins that the shop has named.
        dev: whether tokens are not asked for.
    """
    if origin is None or origin in allowed:
        return True
    try:
        parts = urlsplit(origin)
        name = parts.hostname
    except ValueError:
        return False
    if parts.scheme not in ("http", "https") or not parts.netloc:
        return False
    return name in LOOPBACK if dev else parts.netloc == host


def host_allowed(host: str) -> bool:
    """Whether a `Host` header names this machine.

    Asked for in the development mode alone, in which a page of somebody else's whose name is made to lead here (DNS
    rebinding) would otherwise be of our own origin.
    """
    try:
        return urlsplit(f"//{host}").hostname in LOOPBACK
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Whether listening at `host` is for this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def address_of(peer: str | None, forwarded: Sequence[str], proxies: int) -> str:
    """The address that limits count by: of the peer, or of whoever spoke to the outermost trusted proxy.

    Args:
        peer: who is connected.
        forwarded: the `X-Forwarded-For` headers. What a stranger has written there comes first and is not believed.
        proxies: how many proxies in front are ours.
    """
    found = peer or ""
    if proxies:
        chain = [part.strip() for value in forwarded for part in value.split(",")]
        if len(chain) >= proxies:
            found = chain[-proxies]
    try:
        address = ip_address(found)
    except ValueError:
        return peer or ""
    # Whoever has one IPv6 address has 2⁶⁴ of them.
    return str(address) if address.version == 4 else str(ip_network(f"{address}/64", strict=False))


def bearer(headers: Mapping[str, str], query: Mapping[str, str]) -> str | None:
    """The token of a request: in `Authorization`, or in the address, as EventSource and sendBeacon have no headers."""
    given = headers.get("Authorization")
    if given is None:
        return query.get("token")
    scheme, _, token = given.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def consents(consent: bool, headers: Mapping[str, str], *, heed_gpc: bool) -> bool:
    """Whether something may be written to the visitor's profile, and lists may come from it.

    Args:
        consent: what the token says.
        headers: of the request; `Sec-GPC: 1` is Global Privacy Control.
        heed_gpc: whether the shop takes that for a no.
    """
    return consent and not (heed_gpc and headers.get("Sec-GPC") == "1")
