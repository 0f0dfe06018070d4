"""The synthetic shop: the same for the same seed, and every modality tells a part of what an item is."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from mmrec_stream.contracts.catalogue import decode_item, encode_item
from mmrec_stream.simulator import Shop, make_shop
from mmrec_stream.simulator.pictures import SHOP_SIDE, SIDE
from mmrec_stream.simulator.words import BRANDS, CATEGORIES, COLOURS, STYLES, USES


@pytest.fixture(scope="module")
def shop() -> Shop:
    return make_shop(900, seed=3)


def test_the_same_seed_gives_the_same_shop(shop: Shop) -> None:
    again = make_shop(900, seed=3)
    assert list(again) == list(shop)
    assert (again.successors == shop.successors).all()


def test_another_seed_gives_another_shop(shop: Shop) -> None:
    assert [item.title for item in make_shop(900, seed=4)] != [item.title for item in shop]


def test_leaving_pictures_out_changes_nothing_else(shop: Shop) -> None:
    bare = make_shop(900, seed=3, pictures=False)
    assert (bare.style == shop.style).all()
    assert all(item.thumbnail is None for item in bare)
    assert [item.title for item in bare] == [item.title for item in shop]


def test_items_are_valid_contracts(shop: Shop) -> None:
    assert all(decode_item(encode_item(item)) == item for item in shop)
    assert len({item.item_id for item in shop}) == len(shop)


def test_a_shop_smaller_than_the_category_tree_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 12 items"):
        make_shop(11)


def test_the_smallest_shop_has_every_category() -> None:
    assert {item.category for item in make_shop(12)} == {category.name for category in CATEGORIES}


def _pixels(shop: Shop, row: int) -> np.ndarray:
    thumbnail = shop[row].thumbnail
    assert thumbnail is not None
    return np.asarray(Image.open(BytesIO(thumbnail)).convert("RGB"), dtype=float)


def test_pictures_show_the_colour(shop: Shop) -> None:
    palette = np.array(list(COLOURS.values()), dtype=float)
    right = 0
    for row in range(200):
        pixels = _pixels(shop, row)
        assert pixels.shape == (SIDE, SIDE, 3)
        distance = np.linalg.norm(pixels[:, :, None, :] - palette, axis=3)
        close = distance.min(axis=2) < 45
        right += np.bincount(distance.argmin(axis=2)[close], minlength=len(palette)).argmax() == shop.colour[row]
    assert right >= 190


def test_a_large_picture_is_recognised_as_its_small_one() -> None:
    large, small = make_shop(60, seed=3, side=SHOP_SIDE), make_shop(60, seed=3)
    assert [item.title for item in large] == [item.title for item in small]
    assert _pixels(large, 0).shape == (SHOP_SIDE, SHOP_SIDE, 3)
    reduced = [Image.fromarray(_pixels(large, row).astype(np.uint8)).resize((SIDE, SIDE)) for row in range(60)]
    seen = np.stack([np.asarray(image, float) for image in reduced])
    drawn = np.stack([_pixels(small, row) for row in range(60)])
    seen, drawn = ((of - of[:, :1, :1]).reshape(60, -1) for of in (seen, drawn))  # grounds differ
    nearest = np.linalg.norm(seen[:, None] - drawn[None], axis=2).argmin(axis=1)
    assert (nearest == np.arange(60)).mean() > 0.75  # by chance .02; light patterns on a light ground are hard


def test_pictures_of_one_category_look_more_alike_than_others(shop: Shop) -> None:
    shapes = np.stack(
        [(_pixels(shop, row).max(axis=2) - _pixels(shop, row).min(axis=2) > 25).ravel() for row in range(300)]
    )
    alike = (shapes[:, None] == shapes[None]).mean(axis=2)
    same = shop.category[:300, None] == shop.category[None, :300]
    assert alike[same & ~np.eye(300, dtype=bool)].mean() > alike[~same].mean() + 0.05


def test_each_modality_shows_some_of_the_style_and_none_all(shop: Shop) -> None:
    titles = [item.title + " " + item.description for item in shop]
    hinted = np.array(
        [[any(word.lower() in text.lower() for word in words) for words in STYLES.values()] for text in titles]
    )
    by_text = hinted[np.arange(len(shop)), shop.style].mean()
    brand_style = np.array(
        [np.bincount(shop.style[shop.brand == b], minlength=len(STYLES)).argmax() for b in range(len(BRANDS))]
    )
    by_brand = (brand_style[shop.brand] == shop.style).mean()
    for found in (by_text, by_brand):
        assert 0.65 < found < 0.92


def test_the_use_is_in_the_text_alone(shop: Shop) -> None:
    phrases = list(USES.values())
    for row, item in enumerate(shop):
        assert any(phrase in item.description for phrase in phrases[shop.use[row]])
    pixels = np.stack([_pixels(shop, row).mean(axis=(0, 1)) for row in range(len(shop))])
    means = np.stack([pixels[shop.use == use].mean(axis=0) for use in range(len(USES))])
    assert np.ptp(means, axis=0).max() < 0.5 * pixels.std(axis=0).max()


def test_prices_follow_category_and_brand(shop: Shop) -> None:
    price = np.array([item.price for item in shop], dtype=float)
    medians = np.array([CATEGORIES[c].price for c in shop.category])
    assert np.corrcoef(np.log(price), np.log(medians))[0, 1] > 0.7
    level = np.log(price / medians)
    within = np.mean([level[shop.brand == b].std() for b in range(len(BRANDS)) if (shop.brand == b).sum() > 5])
    assert within < 0.85 * level.std()


def test_relatives_share_style_and_complements_are_of_other_categories(shop: Shop) -> None:
    assert (shop.category[shop.successors] == shop.category[:, None]).all()
    assert (shop.category[shop.complements] != shop.category[:, None]).all()
    assert (shop.style[shop.successors] == shop.style[:, None]).mean() > 0.6
    assert (shop.style[shop.complements] == shop.style[:, None]).mean() > 0.5
