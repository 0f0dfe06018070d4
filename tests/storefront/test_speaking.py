"""Which modality spoke for a list: shares of a likeness that adds up."""

import msgspec
import numpy as np
import pytest

from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.ranking.scorer import Scorer
from mmrec_stream.releases import load_release
from mmrec_stream.simulator import make_shop
from mmrec_stream.storefront.modalities import ATTRIBUTES, BEHAVIOUR, PICTURE, TEXT, modality_of
from mmrec_stream.storefront.speaking import Voices
from tests.tiny import tiny_release

SHOP = make_shop(60, seed=3)


@pytest.fixture(scope="module")
def voices() -> Voices:
    return Voices(load_release(tiny_release()))


def without(item: CatalogueItem, *names: str) -> CatalogueItem:
    blank = CatalogueItem(item_id=item.item_id)
    return msgspec.structs.replace(item, **{name: getattr(blank, name) for name in names})


def test_shares_are_of_every_modality_and_differ_from_list_to_list(voices: Voices) -> None:
    lists = [SHOP[start : start + 6] for start in range(0, 48, 6)]
    found = [voices.shares(listed, SHOP[50:53]) for listed in lists]
    for shares in found:
        assert shares.keys() == {TEXT, PICTURE, ATTRIBUTES, BEHAVIOUR}
        assert sum(shares.values()) == pytest.approx(1)
        assert min(shares.values()) >= 0
    assert max(np.ptp([shares[name] for shares in found]) for name in found[0]) > 0.05


def test_a_modality_that_the_products_lack_says_nothing(voices: Voices) -> None:
    new = [msgspec.structs.replace(item, item_id=f"new-{item.item_id}") for item in SHOP[:6]]
    own = SHOP[:3]
    assert voices.shares(new, own)[BEHAVIOUR] < 0.01
    for name, fields in ((TEXT, ("title", "description")), (PICTURE, ("thumbnail",))):
        assert voices.shares(new, own)[name] > 0
        assert voices.shares([without(item, *fields) for item in new], own)[name] == 0


def test_what_the_modalities_say_adds_up_to_the_likeness() -> None:
    scorer = Scorer.load(tiny_release(), provider="cpu", threads=1)
    voices = Voices(scorer.release)
    one, own = SHOP[7], SHOP[20]
    vectors = {item.item_id: vector for item, vector in zip(SHOP, scorer.release.item_vectors, strict=False)}
    likeness = float(vectors[one.item_id] @ vectors[own.item_id])
    amounts = voices.amounts([one], [own])
    assert sum(float(amount[0]) for amount in amounts.values()) == pytest.approx(likeness, abs=1e-3)


def test_nothing_speaks_where_there_is_nothing(voices: Voices) -> None:
    assert voices.shares([], SHOP[:1]) == voices.shares(SHOP[:3], []) == {}


@pytest.mark.parametrize(
    ("encoder", "name"),
    [("lstm", TEXT), ("timm:resnet18", PICTURE), ("id", BEHAVIOUR), ("precomputed:sound", "sound")],
)
def test_encoders_are_called_by_what_they_look_at(encoder: str, name: str) -> None:
    assert modality_of(encoder) == name
