"""Rules in a running worker: obeyed from the next list on, refused where they are wrong, taken back."""

import time
from pathlib import Path
from typing import Any

import pytest

from mmrec_stream.contracts.behaviour import Impression, View
from mmrec_stream.contracts.catalogue import CatalogueItem, encode_item
from mmrec_stream.contracts.recommendations import RecommendationList
from mmrec_stream.contracts.releases import encode_release
from mmrec_stream.kafka.clients import BatchProducer
from mmrec_stream.releases import announcement
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics
from tests.integration.workers import WorkerProcess, newest_lists, publish, wait_for
from tests.tiny import tiny_dataset, tiny_release

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(300)]

RULES = """
id = "shop"
banned = ["{banned}"]
max_per_category = 2
[[filters]]
id = "affordable"
only = "item.price <= {limit!r}"
[[boosts]]
id = "push"
when = 'item.id == "{pushed}"'
by = "1000.0"
"""


def test_rules_count_from_the_next_list_on(settings: Settings, topics: Topics, tmp_path: Path, mmrec: Any) -> None:
    items: list[CatalogueItem] = list(tiny_dataset().catalogue or ())
    by_id = {item.item_id: item for item in items}
    with BatchProducer(settings) as producer:
        producer.send(topics.releases, encode_release(announcement(tiny_release())), key=b"hybrid")
        for item in items:
            producer.send(topics.catalogue, encode_item(item), key=item.item_id.encode())
    with WorkerProcess(settings, tmp_path / "worker.log", list_size=8) as worker:
        worker.wait_ready()

        def next_list(policy: str) -> RecommendationList:
            def made() -> RecommendationList | None:
                publish(settings, [View(user_id="ann", item_id=items[0].item_id, ts=int(time.time() * 1000))])
                found = newest_lists(settings).get("ann")
                return found if found is not None and found.policy == policy else None

            found: RecommendationList = wait_for(f"a list by {policy!r}", made)
            return found

        plain = next_list("")
        prices = sorted(item.price or 0.0 for item in items)
        limit = prices[len(prices) * 2 // 3]
        pushed = next(i for i in by_id.values() if (i.price or 0.0) <= limit and i.item_id != plain.items[0].item_id)
        file = tmp_path / "shop.toml"
        file.write_text(RULES.format(banned=plain.items[0].item_id, limit=limit, pushed=pushed.item_id))
        told = mmrec(settings, "rules", "publish", str(file))
        assert (told.exit_code, "shop/1 is in force" in told.output) == (0, True), told.output
        tried = mmrec(settings, "rules", "try", "ann")
        assert (tried.exit_code, "shop/1" in tried.output) == (0, True), tried.output
        ruled = next_list("shop/1")
        ids = [item.item_id for item in ruled.items]
        assert ids
        assert plain.items[0].item_id not in ids
        assert all((by_id[one].price or 0.0) <= limit for one in ids)
        categories = [by_id[one].category for one in ids]
        assert max(map(categories.count, categories)) <= 2
        if pushed.item_id in ids:
            assert ids[0] == pushed.item_id
            assert ruled.items[0].reason is not None
            assert ruled.items[0].reason.of == "push"
        # Rules that are wrong never come into force, whoever publishes them.
        file.write_text('id = "shop"\n[[filters]]\nid = "f"\nonly = "item.prise > 1.0"\n')
        refused = mmrec(settings, "rules", "publish", str(file))
        assert refused.exit_code == 1
        assert "line 1, column 5" in refused.output
        with BatchProducer(settings) as producer:
            producer.send(topics.rules, b'{"id":"shop","version":9,"filters":[{"id":"f","only":"1"}]}', key=b"shop/9")
        wait_for("a refusal in the log", lambda: "rules are not used, those before stay" in worker.log.read_text())
        assert next_list("shop/1").items
        # What ann was shown lately is in her next lists no more; how much of it is known when it has come.
        file.write_text('id = "shop"\n[[filters]]\nid = "fresh"\nexclude = "shown.ago < 50"\n')
        assert mmrec(settings, "rules", "publish", str(file)).exit_code == 0
        before = next_list("shop/2")
        shown = [item.item_id for item in before.items]
        now = int(time.time() * 1000)
        publish(
            settings,
            [
                Impression(user_id="ann", item_id=one, ts=now, list_id=before.list_id, position=position)
                for position, one in enumerate(shown)
            ],
        )

        def of_others() -> RecommendationList | None:
            found = next_list("shop/2")
            return found if not {item.item_id for item in found.items} & set(shown) else None

        after = wait_for("a list of others", of_others)
        assert after.items
        assert after.strategy == "hybrid"
        tried = mmrec(settings, "rules", "try", "ann").output.splitlines()[1:]
        assert {line[4:32].strip() for line in tried} & set(shown)
        assert not {line[32:].split()[0] for line in tried if line[32:].strip()} & set(shown)
        # Nothing is left by rules: a list all the same, which says so.
        file.write_text('id = "shop"\n[[filters]]\nid = "later"\nonly = "user.events > 1000000"\n')
        assert mmrec(settings, "rules", "publish", str(file)).exit_code == 0
        fallen = next_list("shop/3/fallback")
        assert fallen.strategy == "popular"
        assert mmrec(settings, "rules", "publish", "--remove").exit_code == 0
        assert next_list("").strategy == "hybrid"
