"""`mmrec profile` shows what the changelog knows of a user, by names where there are names."""

import json
from collections.abc import Callable

from mmrec_stream.contracts.behaviour import AddToCart, Impression, Purchase, View, encode_event
from mmrec_stream.contracts.catalogue import CatalogueItem, encode_item
from mmrec_stream.contracts.identity import id_key, partition_of
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics
from tests.cli.folding import NOW, fold_log, publish
from tests.conftest import Outcome

Mmrec = Callable[..., Outcome]


def test_a_profile_is_shown_as_people_read_it(settings: Settings, topics: Topics, mmrec: Mmrec) -> None:
    sofa = CatalogueItem(item_id="sofa", title="Blue sofa", category="sofas", brand="Norrsken")
    view = View(user_id="ann", item_id="sofa", category="sofas", brand="Norrsken", price=300.0, ts=NOW - 3_600_000)
    seen = Impression(user_id="ann", item_id="lamp", list_id="l1", position=0, ts=NOW - 1000)
    cart = AddToCart(user_id="ann", item_id="sofa", ts=NOW - 500)
    buy = Purchase(user_id="ann", item_id="lamp", ts=NOW)
    publish(settings, topics.catalogue, [("sofa", encode_item(sofa))])
    publish(settings, topics.clicks, [("ann", encode_event(view))])
    publish(settings, topics.feedback, [("ann", encode_event(seen))])
    publish(settings, topics.purchases, [("ann", encode_event(cart)), ("ann", encode_event(buy))])
    fold_log(settings)

    outcome = mmrec(settings, "profile", "ann", "--json")
    assert outcome.exit_code == 0, outcome.output
    found = json.loads(outcome.stdout)
    lamp = f"item #{id_key('lamp'):016x}"
    assert found["events"] == 4
    assert [(done["type"], done["item"]) for done in found["interactions"]] == [
        ("purchase", lamp),
        ("add_to_cart", "Blue sofa (sofa)"),
        ("view", "Blue sofa (sofa)"),
    ]
    assert [(held["item"], held["as"]) for held in found["held"]] == [
        ("Blue sofa (sofa)", "in the cart"),
        (lamp, "bought"),
    ]
    assert list(found["categories"]) == ["sofas"]
    assert list(found["brands"]) == ["Norrsken"]
    assert list(found["price_bands"]) == ["200 to 500"]
    assert 0.4 < found["counts"]["hour"]["view"] < 0.51, "an hour-old view counts half"
    assert found["counts"]["week"]["impression"] > 0.99
    partition = partition_of(b"ann", settings.partitions)
    assert found["folded"][f"{topics.purchases}/{partition}"] == 1

    text = mmrec(settings, "profile", "ann").stdout
    for part in ("ann: 4 events", "Blue sofa (sofa), in the cart", "purchase", "sofas", "200 to 500"):
        assert part in text


def test_the_newest_row_counts(settings: Settings, topics: Topics, mmrec: Mmrec) -> None:
    for _ in range(3):
        publish(settings, topics.clicks, [("ann", encode_event(View(user_id="ann", item_id="sofa", ts=NOW)))])
        fold_log(settings)
    assert json.loads(mmrec(settings, "profile", "ann", "--json").stdout)["events"] == 3


def test_an_unknown_user_is_a_readable_line(settings: Settings, topics: Topics, mmrec: Mmrec) -> None:
    outcome = mmrec(settings, "profile", "nobody")
    assert outcome.exit_code == 1
    assert "nothing is known of user 'nobody'" in outcome.stderr
