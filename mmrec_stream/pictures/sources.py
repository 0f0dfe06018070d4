"""Which pictures may be read: files below one folder, and addresses on listed hosts.

The catalogue says where a picture is, and a catalogue is written by many: without a list, one line of it would make a
worker ask for whatever lies in its own network (server-side request forgery).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path

from yarl import URL

from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.errors import UserError
from mmrec_stream.settings import Settings

Address = IPv4Address | IPv6Address

_NAME = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*")

_PORTS = {"http": 80, "https": 443}


class RefusedError(ValueError):
    """A picture that may not be read; says why."""


@dataclass(frozen=True)
class Sources:
    """What may be read."""

    folder: Path | None = None
    """Resolved; None where no files are read."""
    hosts: frozenset[tuple[str, int | None]] = frozenset()
    """Names and literal addresses, each with the one port that it was listed with, or None for 80 and 443."""
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    """Networks that are not public and may be asked all the same."""

    @classmethod
    def of(cls, folder: Path | None, hosts: Sequence[str]) -> "Sources":
        """From settings.

        Args:
            folder: with pictures.
            hosts: each a name, `name:port`, an address, or a network as `10.0.0.0/8`.

        Raises:
            ValueError: one of the hosts is none of that.
        """
        names: set[tuple[str, int | None]] = set()
        networks: list[IPv4Network | IPv6Network] = []
        for entry in hosts:
            try:
                network = ip_network(entry)
            except ValueError:
                names.add(_host(entry))
                continue
            networks.append(network)
            if network.num_addresses == 1:
                names.add((str(network.network_address), None))
        return cls(None if folder is None else folder.resolve(), frozenset(names), tuple(networks))

    def __bool__(self) -> bool:
        """Whether anything may be read at all."""
        return self.folder is not None or bool(self.hosts)

    def wanted(self, item: CatalogueItem) -> str | None:
        """Where an item's picture is to be read; None where it has one with it, or none that may be read."""
        if item.thumbnail is not None or not item.image_url or not self:
            return None
        try:
            self.place(item.image_url)
        except RefusedError:
            return None
        return item.image_url

    def place(self, reference: str) -> Path | URL:
        """The file or address that a catalogue's `image_url` means here.

        Raises:
            RefusedError: it may not be read.
        """
        try:
            url = URL(reference)
        except ValueError as error:
            raise RefusedError(f"no address: {error}") from None
        if url.scheme or url.raw_authority:
            return self.address(url)
        if self.folder is None:
            raise RefusedError("it is a path, and there is no folder of pictures (MMREC_IMAGE_FOLDER)")
        path = (self.folder / url.path.lstrip("/")).resolve()
        if not path.is_relative_to(self.folder):
            raise RefusedError("it leads out of the folder of pictures")
        return path

    def address(self, url: URL) -> URL:
        """An address that may be asked, or may be redirected to.

        Raises:
            RefusedError: it may not.
        """
        if url.scheme not in _PORTS:
            raise RefusedError(f"only http and https are read, not {url.scheme or 'an address without scheme'}")
        if url.user is not None or url.password is not None:
            raise RefusedError("it has a user or password in it")
        host, port = (url.host or "").rstrip(".").lower(), url.port or _PORTS[url.scheme]
        if (host, port) not in self.hosts and not ((host, None) in self.hosts and port in _PORTS.values()):
            raise RefusedError(f"{host}:{port} is not among MMREC_IMAGE_HOSTS")
        try:
            literal = ip_address(host)
        except ValueError:
            return url
        self.check(literal)
        return url

    def check(self, address: Address) -> None:
        """Whether the address that a name stands for may be asked: it is public, or of a listed network.

        Raises:
            RefusedError: it may not.
        """
        plain = address.ipv4_mapped if isinstance(address, IPv6Address) and address.ipv4_mapped else address
        if any(plain in network for network in self.networks):
            return
        if not plain.is_global or plain.is_multicast:
            raise RefusedError(f"{address} is no public address, and of no network among MMREC_IMAGE_HOSTS")


def sources_of(settings: Settings) -> Sources:
    """Where pictures may be read.

    Raises:
        UserError: a host is none; or there is no such folder.
    """
    try:
        sources = Sources.of(settings.image_folder, settings.image_hosts)
    except ValueError as error:
        raise UserError(f"MMREC_IMAGE_HOSTS: {error}") from None
    if sources.folder is not None and not sources.folder.is_dir():
        raise UserError(f"MMREC_IMAGE_FOLDER: {settings.image_folder} is no folder")
    return sources


def _host(entry: str) -> tuple[str, int | None]:
    if "/" in entry:
        raise ValueError(f"{entry!r} is no host, host:port, address or network")
    name, colon, port = entry.lower().rpartition(":")
    if not colon:
        name = entry.lower()
    literal = name.strip("[]")
    try:
        ip_address(literal)
    except ValueError:
        if _NAME.fullmatch(name) is None:
            raise ValueError(f"{entry!r} is no host, host:port, address or network") from None
        literal = name
    if not colon:
        return literal, None
    if not port.isdecimal() or not 0 < int(port) < 65_536:
        raise ValueError(f"{entry!r}: {port!r} is no port")
    return literal, int(port)
