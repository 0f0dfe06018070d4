"""What sells out is in no list from then on, and lists that hold it are made again."""

from typing import Any

import pytest

from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.contracts.identity import list_id
from mmrec_stream.ranking.recommend import Recommender
from tests.streams.bench import Bench, forget, view

ITEMS = ("lamp", "rug", "vase")


def sell_out(bench: Bench, item: str) -> None:
    """As the catalogue's follower tells it."""
    bench.recommender._catalogue.update([CatalogueItem(item_id=item, stock=0)])
    bench.lists.withdraw([item])


def held(bench: Bench, place: int = -1) -> set[str]:
    return {item.item_id for item in bench.outbox.published[place].items}


async def popular(bench: Bench) -> None:
    """Three items that everybody likes, each seen by somebody else."""
    await bench.chunk(*(view(f"fan of {item}", item) for item in ITEMS))
    await bench.until(lambda: len(bench.outbox.published) == len(ITEMS))


@pytest.mark.usefixtures("scoring")
async def test_a_list_with_what_sells_out_is_made_again_for_the_same_event(bench: Bench) -> None:
    await popular(bench)
    await bench.chunk(view("ann", "chair"))
    await bench.until(lambda: len(bench.outbox.published) == 4)
    first = bench.outbox.published[3]
    assert held(bench) >= {"lamp", "rug"}
    bench.outbox.confirm()
    sell_out(bench, "lamp")
    bench.outbox.confirm()
    await bench.until(lambda: any(one.user_id == "ann" for one in bench.outbox.published[4:]))
    again = next(one for one in bench.outbox.published[4:] if one.user_id == "ann")
    assert "lamp" not in {item.item_id for item in again.items}
    assert (again.cause, again.revision) == (first.cause, 1)
    cause = again.cause
    assert again.list_id == list_id("ann", cause.topic, cause.partition, cause.offset, again.release, 1)
    assert again.list_id != first.list_id


@pytest.mark.usefixtures("scoring")
async def test_a_list_scored_before_the_change_goes_out_without_the_product(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await popular(bench)
    recommend = Recommender.recommend

    def overtaken(recommender: Recommender, *arguments: Any) -> Any:
        slates = recommend(recommender, *arguments)
        monkeypatch.undo()
        sell_out(bench, "rug")
        return slates

    monkeypatch.setattr(Recommender, "recommend", overtaken)
    bench.outbox.confirm()
    await bench.chunk(view("ann", "chair"))
    await bench.until(lambda: len(bench.outbox.published) > 3)
    assert bench.outbox.published[3].user_id == "ann"
    assert "rug" not in held(bench, 3)
    assert "lamp" in held(bench, 3)
    bench.outbox.confirm()
    await bench.until(lambda: any(one.user_id == "ann" and one.revision for one in bench.outbox.published))
    assert not any("rug" in {item.item_id for item in one.items} for one in bench.outbox.published[3:])


@pytest.mark.usefixtures("scoring")
async def test_no_older_list_follows_a_newer_one(bench: Bench) -> None:
    await popular(bench)
    await bench.chunk(view("ann", "chair"))
    await bench.until(lambda: len(bench.outbox.published) == 4)
    sell_out(bench, "lamp")  # while nothing is confirmed, so that the list to be made again has to wait
    last = await bench.chunk(view("ann", "stool"))
    await bench.until(lambda: bench.outbox.published[-1].cause.offset == last)
    bench.outbox.confirm()
    await bench.turns()
    of_ann = [one for one in bench.outbox.published if one.user_id == "ann"]
    assert [one.cause.offset for one in of_ann] == sorted(one.cause.offset for one in of_ann)
    assert (of_ann[-1].cause.offset, of_ann[-1].revision) == (last, 0)


@pytest.mark.usefixtures("scoring")
async def test_nothing_is_made_again_for_the_forgotten_or_by_who_has_handed_over(bench: Bench) -> None:
    await popular(bench)
    await bench.chunk(view("ann", "chair"))
    await bench.until(lambda: len(bench.outbox.published) == 4)
    bench.outbox.confirm()
    await bench.chunk(forget("ann"))
    sell_out(bench, "lamp")
    bench.owner.close()
    sell_out(bench, "rug")
    bench.outbox.confirm()
    await bench.turns()
    assert not any(one.user_id == "ann" for one in bench.outbox.published[4:])
    assert not bench.lists._recent
