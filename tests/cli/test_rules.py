"""`mmrec rules`: mistakes are shown where they are, and nothing broken or emptying comes into force."""

from pathlib import Path
from typing import Any

import pytest

from mmrec_stream.contracts.catalogue import CatalogueItem, encode_item
from mmrec_stream.kafka.clients import BatchProducer
from mmrec_stream.kafka.reader import read
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics

GOOD = """
id = "shop"
note = "autumn"
banned = ["i-1"]
max_per_brand = 2

[[filters]]
id = "cheap"
only = "item.price < 30.0"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "shop.toml"
    path.write_text(GOOD)
    return path


@pytest.fixture
def catalogue(settings: Settings, topics: Topics) -> Topics:
    with BatchProducer(settings) as producer:
        for number in range(10):
            item = CatalogueItem(item_id=f"i-{number}", price=10.0 * number)
            producer.send(topics.catalogue, encode_item(item), key=item.item_id.encode())
    return topics


class TestWithoutABroker:
    """A file can be checked on any machine."""

    SETTINGS = Settings(_env_file=None, bootstrap="127.0.0.1:1")  # type: ignore[call-arg]

    def test_a_good_file_is_right_as_far_as_is_known(self, mmrec: Any, file: Path) -> None:
        found = mmrec(self.SETTINGS, "rules", "check", str(file))
        assert found.exit_code == 0, found.output
        assert "the rules are right; what they take out is not known" in found.output

    @pytest.mark.parametrize(
        ("wrong", "told"),
        [
            (
                'only = "item.prise < 30.0"',
                ["filters[0] cheap: only, line 1, column 5", "  item.prise < 30.0\n      ^"],
            ),
            ('only = "item.price < 30"', ["numbers beside a double have a point: 20.0"]),
            ('only = "item.price <"', ["filters[0] cheap: only, line 1"]),
            ('only = "item.price + 1.0"', ["it gives DOUBLE, not BOOL"]),
            ('only = "true"\nexclude = "false"', ["either `only` or `exclude`"]),
            ('onlie = "true"', ["onlie"]),
        ],
    )
    def test_a_mistake_is_shown_with_its_place(self, mmrec: Any, file: Path, wrong: str, told: list[str]) -> None:
        file.write_text(GOOD.replace('only = "item.price < 30.0"', wrong))
        found = mmrec(self.SETTINGS, "rules", "check", str(file))
        assert found.exit_code == 1
        assert not [text for text in told if text not in found.output], found.output

    def test_every_mistake_is_shown_at_once(self, mmrec: Any, file: Path) -> None:
        file.write_text(GOOD.replace("item.price < 30.0", "item.x") + '[[boosts]]\nid = "cheap"\nby = "1"\n')
        found = mmrec(self.SETTINGS, "rules", "check", str(file))
        assert "filters[0] cheap" in found.output
        assert "cheap: two rules have this id" in found.output
        assert "boosts[0] cheap: by" in found.output


def test_check_says_what_is_taken_out_and_what_is_left(
    settings: Settings, catalogue: Topics, mmrec: Any, file: Path
) -> None:
    found = mmrec(settings, "rules", "check", str(file))
    assert found.exit_code == 0, found.output
    assert "cheap takes out 7 of 10 products: i-3, i-4, i-5, i-6, i-7 …" in found.output
    assert "left: home 2, product 2, cart 2 of 10" in found.output
    weighed = '[[objectives]]\nid = "dear"\nof = "item.price"\nweight = 0.5\n[[objectives]]\nid = "m"\nof = '
    file.write_text(f'{GOOD}{weighed}"item.numbers.margin"\nweight = 0.2\n')
    weighs = mmrec(settings, "rules", "check", str(file)).output
    assert "dear is known of 10 of 10 products: from 0 to 90, half of them up to 45" in weighs
    assert "m is known of 0 of 10 products: so that it changes nothing" in weighs
    file.write_text(GOOD.replace("< 30.0", "< 0.0").replace('id = "cheap"', 'id = "cheap"\nsurfaces = ["cart"]'))
    empty = mmrec(settings, "rules", "check", str(file))
    assert empty.exit_code == 1
    assert "no product is left on cart" in empty.output
    assert mmrec(settings, "rules", "publish", str(file)).exit_code == 1
    assert mmrec(settings, "rules", "show").output == "no rules are in force\n"


def test_what_is_published_is_shown_and_told_apart_and_can_be_taken_back(
    settings: Settings, catalogue: Topics, mmrec: Any, file: Path
) -> None:
    assert mmrec(settings, "rules", "diff", str(file)).exit_code == 1
    assert "shop/1 is in force" in mmrec(settings, "rules", "publish", str(file)).output
    shown = mmrec(settings, "rules", "show").output
    assert '"version": 1' in shown or '"id": "shop"' in shown
    same = mmrec(settings, "rules", "diff", str(file))
    assert (same.exit_code, same.output) == (0, "nothing would change\n")
    file.write_text(GOOD.replace("autumn", "winter"))
    other = mmrec(settings, "rules", "diff", str(file))
    assert other.exit_code == 1
    assert '-  "note": "autumn"' in other.output
    assert '+  "note": "winter"' in other.output
    with BatchProducer(settings) as producer:  # a broken one, by somebody else
        producer.send(catalogue.rules, b'{"id":"shop","version":7,"filters":[{"id":"f","only":"1"}]}', key=b"shop/7")
    assert '"note": "autumn"' in mmrec(settings, "rules", "show").output
    assert "shop/2 is in force" in mmrec(settings, "rules", "publish", str(file)).output
    assert '"note": "winter"' in mmrec(settings, "rules", "show").output
    assert "rules are taken back" in mmrec(settings, "rules", "publish", "--remove").output
    assert mmrec(settings, "rules", "show").output == "no rules are in force\n"
    newest = {message.key(): message.value() for message in read(settings, catalogue.rules)}
    assert set(newest) == {b"shop/1", b"shop/2", b"shop/7"}
    assert not any(newest.values())  # so that nothing comes back when the topic is compacted


def test_publish_wants_a_file_or_to_take_back(settings: Settings, topics: Topics, mmrec: Any, file: Path) -> None:
    for arguments in ([], [str(file), "--remove"]):
        found = mmrec(settings, "rules", "publish", *arguments)
        assert found.exit_code == 1
        assert "give either a file or --remove" in found.output
