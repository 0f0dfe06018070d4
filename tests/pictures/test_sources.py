"""What a line of the catalogue can make a worker read: nothing but what is listed."""

from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.errors import UserError
from mmrec_stream.pictures.sources import RefusedError, Sources, sources_of
from mmrec_stream.settings import Settings

LISTED = Sources.of(None, ["cdn.example", "images.example:8443", "10.1.2.3", "192.168.0.0/16", "[2001:db8::7]:8080"])


@pytest.mark.parametrize(
    "reference",
    [
        "https://cdn.example/a.jpg",
        "http://CDN.example:80/a.jpg?w=200",
        "https://cdn.example./a.jpg",
        "https://images.example:8443/x/y.webp",
        "http://10.1.2.3/a.png",
    ],
)
def test_listed_hosts_are_asked(reference: str) -> None:
    assert str(LISTED.place(reference)) == reference.replace("CDN", "cdn").replace(":80/", "/")


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("https://other.example/a.jpg", "other.example:443 is not among MMREC_IMAGE_HOSTS"),
        ("https://cdn.example.evil.example/a.jpg", "not among"),
        ("https://evil.example#@cdn.example/a.jpg", "evil.example:443 is not among"),
        ("https://cdn.example@evil.example/a.jpg", "user or password"),
        ("https://cdn.example:22/a.jpg", "cdn.example:22 is not among"),
        ("https://images.example/a.jpg", "images.example:443 is not among"),
        ("file:///etc/passwd", "only http and https"),
        ("ftp://cdn.example/a.jpg", "only http and https"),
        ("data:image/png;base64,AAAA", "only http and https"),
        ("//cdn.example/a.jpg", "only http and https"),
        ("http://169.254.169.254/latest/meta-data", "not among"),
        ("http://127.0.0.1/a.jpg", "not among"),
        ("http://[2001:db8::7]:8080/a.jpg", "no public address"),
        ("/img/a.jpg", "no folder of pictures"),
        ("https://[cdn.example/a.jpg", "no address"),
    ],
)
def test_nothing_else_is_and_the_reason_is_told(reference: str, reason: str) -> None:
    with pytest.raises(RefusedError, match=reason.replace("[", r"\[").replace(".", r"\.")):
        LISTED.place(reference)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.1", "224.0.0.1"])
def test_a_listed_name_does_not_lead_into_networks_that_are_not(address: str) -> None:
    with pytest.raises(RefusedError, match="no public address"):
        LISTED.check(ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1", "192.168.3.4", "10.1.2.3", "::ffff:192.168.0.1"])
def test_public_addresses_and_listed_networks_may_be_asked(address: str) -> None:
    LISTED.check(ip_address(address))


@given(
    st.lists(st.sampled_from(["..", "a", ".", "b.jpg", "%2e%2e", "..%2f..", "%2Fetc", "link"]), min_size=1, max_size=6)
)
def test_no_path_leads_out_of_the_folder(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    root = tmp_path_factory.getbasetemp() / "pictures"
    root.mkdir(exist_ok=True)
    (root / "link").unlink(missing_ok=True)
    (root / "link").symlink_to("/etc")
    sources = Sources.of(root, [])
    for reference in ("/".join(parts), "/" + "/".join(parts)):
        try:
            place = sources.place(reference)
        except RefusedError:
            continue
        assert isinstance(place, Path)
        assert place.is_relative_to(root.resolve())


def test_an_item_has_its_own_picture_first() -> None:
    address = "https://cdn.example/a.jpg"
    assert LISTED.wanted(CatalogueItem(item_id="i", image_url=address)) == address
    assert LISTED.wanted(CatalogueItem(item_id="i", image_url=address, thumbnail=b"x")) is None
    assert LISTED.wanted(CatalogueItem(item_id="i", image_url="https://other.example/a.jpg")) is None
    assert Sources().wanted(CatalogueItem(item_id="i", image_url=address)) is None


@pytest.mark.parametrize(
    "host", ["https://cdn.example", "cdn.example/x", "a b", "cdn.example:0", "cdn.example:x", "-a"]
)
def test_a_host_that_is_none_is_told(host: str) -> None:
    settings = Settings(_env_file=None, image_hosts=[host])  # type: ignore[call-arg]
    with pytest.raises(UserError, match="MMREC_IMAGE_HOSTS"):
        sources_of(settings)


def test_a_folder_that_is_none_is_told(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, image_folder=tmp_path / "none")  # type: ignore[call-arg]
    with pytest.raises(UserError, match="MMREC_IMAGE_FOLDER"):
        sources_of(settings)
