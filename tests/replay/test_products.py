"""A shop's own product file: what becomes of its rows and pictures, and the guide's own example."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from mmrec_stream.cli import app
from mmrec_stream.contracts.catalogue import MAX_THUMBNAIL, CatalogueItem
from mmrec_stream.errors import UserError
from mmrec_stream.pictures.thumbnails import SIDE
from mmrec_stream.replay.mapping import load_catalogue_mapping, load_mapping
from mmrec_stream.replay.products import read_products
from mmrec_stream.replay.reading import Source, read_events
from mmrec_stream.replay.rows import Product, Reject
from mmrec_stream.replay.withdrawing import Missing, published_ids
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics

GUIDE = (Path(__file__).parent.parent.parent / "docs" / "quickstart-own-shop.md").read_text()


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A folder with the guide's files, under the names that it gives them."""
    for name in ("products.csv", "products.toml", "visits.csv", "visits.toml"):
        block = re.search(rf"`{name}`.*?```\w+\n(.*?)```", GUIDE, re.DOTALL)
        assert block, name
        (tmp_path / name).write_text(block[1])
    return tmp_path


def read(folder: Path, rows: str = "", pictures: Path | None = None) -> list[CatalogueItem | Reject]:
    with (folder / "products.csv").open("a") as file:
        file.write(rows)
    found = read_products(folder / "products.csv", load_catalogue_mapping(folder / "products.toml"), pictures)
    return [one.item if isinstance(one, Product) else one for one in found]


def test_the_guides_products_are_what_it_says(example: Path) -> None:
    chair, table, lamp = read(example)
    assert chair == CatalogueItem(
        item_id="A-1",
        title="Oak chair",
        description="Solid oak, for the kitchen.",
        category="furniture.chairs",
        brand="Holm",
        price=1129.5,
        tags=["oak", "kitchen"],
        stock=4,
    )
    assert isinstance(table, CatalogueItem)
    assert not table.offered
    assert isinstance(lamp, CatalogueItem)
    assert lamp.price == 79.9


def test_the_guides_visits_are_events(example: Path) -> None:
    (chunk,) = read_events(Source(example / "visits.csv", load_mapping(example / "visits.toml")))
    assert not [one for one in chunk.outcomes if isinstance(one, Reject)]
    assert len(chunk.outcomes) == 3


def test_rows_that_are_no_products_are_told_with_line_and_field(example: Path) -> None:
    found = read(example, "A-4;Rug;;textiles;Lys;cheap;;1\n;Nameless;;x;y;1;;1\nA-1;Again;;x;y;1;;1\n")
    rejects = [(one.line, one.field) for one in found if isinstance(one, Reject)]
    assert rejects == [(5, "price"), (6, "item_id"), (7, "item_id")]


def test_pictures_are_found_by_name_and_fit_the_contract(example: Path) -> None:
    photos = example / "photos"
    photos.mkdir()
    Image.effect_noise((1800, 900), 90).convert("RGBA").save(photos / "A-1.png")
    (photos / "A-2.jpg").write_text("no picture")
    chair, table, lamp = read(example, pictures=photos)
    assert isinstance(chair, CatalogueItem)
    assert chair.thumbnail is not None
    assert len(chair.thumbnail) <= MAX_THUMBNAIL
    (example / "out.jpg").write_bytes(chair.thumbnail)
    with Image.open(example / "out.jpg") as image:
        assert (image.format, image.size) == ("JPEG", (SIDE, SIDE // 2))
    assert isinstance(table, Reject)
    assert (table.line, table.field) == (3, "picture")
    assert isinstance(lamp, CatalogueItem)
    assert lamp.thumbnail is None


def test_no_name_leads_out_of_the_pictures_folder(example: Path) -> None:
    Image.new("RGB", (8, 8)).save(example / "secret.png")
    (example / "photos").mkdir()
    found = read(example, "../secret;Trick;;x;y;1;;1\n", example / "photos")[-1]
    assert isinstance(found, CatalogueItem)
    assert found.thumbnail is None


def test_a_wrong_mapping_is_told_with_its_place(example: Path) -> None:
    mapping = example / "products.toml"
    mapping.write_text(mapping.read_text().replace('"net price"', '"gross price"'))
    with pytest.raises(UserError, match=r"`fields.price` is 'gross price', which products.csv does not have"):
        read(example)
    mapping.write_text('[fields]\ntitle = "name"\n')
    with pytest.raises(UserError, match=r"`fields.item_id` is missing"):
        read(example)


def test_a_dry_run_needs_no_broker(example: Path) -> None:
    done = CliRunner().invoke(
        app, ["catalogue", str(example / "products.csv"), "--mapping", str(example / "products.toml"), "--dry-run"]
    )
    assert done.exit_code == 0, done.output
    assert "3  products would be published" in done.output


def reread(settings: Settings, mmrec: Any, example: Path, *options: str) -> Any:
    return mmrec(
        settings, "catalogue", str(example / "products.csv"), "--mapping", str(example / "products.toml"), *options
    )


def test_what_a_file_lacks_is_told_and_taken_out_when_asked(
    settings: Settings, topics: Topics, mmrec: Any, example: Path
) -> None:
    file = example / "products.csv"
    first = reread(settings, mmrec, example)
    assert first.exit_code == 0, first.output
    assert "stay" not in first.output
    head, chair, table, lamp = file.read_text().splitlines()
    # The table is gone; the lamp's row is there and wrong, so that the lamp stays as it was.
    file.write_text("\n".join([head, chair, lamp.replace("79,90", "cheap")]))
    told = reread(settings, mmrec, example)
    assert (told.exit_code, published_ids(settings, topics.catalogue)) == (0, {"A-1", "A-2", "A-3"})
    assert re.search(r" 1  stay, .*--withdraw-missing.*\n +A-2\n", told.output)
    tried = reread(settings, mmrec, example, "--withdraw-missing", "--dry-run", "--most-withdrawn", "1")
    assert re.search(r" 1  would be withdrawn", tried.output)
    refused = reread(settings, mmrec, example, "--withdraw-missing")
    assert refused.exit_code == 1
    assert "lacks 1 of 3 products (33%)" in refused.output
    assert published_ids(settings, topics.catalogue) == {"A-1", "A-2", "A-3"}
    done = reread(settings, mmrec, example, "--withdraw-missing", "--most-withdrawn", "0.34")
    assert done.exit_code == 0, done.output
    assert re.search(r" 1  withdrawn, which the file does not have\n +A-2\n", done.output)
    assert published_ids(settings, topics.catalogue) == {"A-1", "A-3"}
    # Put back into the file, it is there again.
    file.write_text("\n".join([head, chair, table, lamp]))
    assert reread(settings, mmrec, example, "--withdraw-missing").exit_code == 0
    assert published_ids(settings, topics.catalogue) == {"A-1", "A-2", "A-3"}


def test_nothing_is_withdrawn_while_a_row_does_not_say_which_product_it_is() -> None:
    missing = Missing.of({f"i{n}" for n in range(100)}, {f"i{n}" for n in range(98)}, nameless=1)
    with pytest.raises(UserError, match="1 rejected rows do not say which product"):
        missing.check(1.0)
    Missing.of({"a"}, {"a", ""}, nameless=1).check(0.0)


@given(st.sets(st.integers(0, 40)), st.sets(st.integers(0, 40)), st.floats(0, 1))
def test_at_most_the_share_allowed_goes_and_the_share_that_is_named_suffices(
    published: set[int], there: set[int], most: float
) -> None:
    missing = Missing.of(set(map(str, published)), set(map(str, there)), nameless=0)
    assert set(missing.item_ids) == set(map(str, published - there))
    try:
        missing.check(most)
    except UserError as error:
        assert len(missing.item_ids) > most * len(published)
        missing.check(float(str(error).rsplit(" ", 1)[1]))
    else:
        assert not missing.item_ids or len(missing.item_ids) <= most * len(published) + 1e-9


def test_a_bad_picture_does_not_withdraw_its_product(
    settings: Settings, topics: Topics, mmrec: Any, example: Path
) -> None:
    assert reread(settings, mmrec, example).exit_code == 0
    photos = example / "photos"
    photos.mkdir()
    (photos / "A-2.jpg").write_text("no picture")
    done = reread(settings, mmrec, example, "--pictures", str(photos), "--withdraw-missing")
    assert done.exit_code == 0, done.output
    assert re.search(r" 0  withdrawn", done.output)
    assert published_ids(settings, topics.catalogue) == {"A-1", "A-2", "A-3"}
