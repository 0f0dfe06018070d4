"""`mmrec redrive` publishes each usable dead letter once, to the right place, and leaves the rest."""

from collections.abc import Callable

from mmrec_stream.contracts.dead_letters import (
    MAX_KEY_BYTES,
    MAX_VALUE_BYTES,
    DeadLetter,
    Fault,
    Origin,
    dead_letter,
    encode_dead_letter,
)
from mmrec_stream.contracts.identity import partition_of
from mmrec_stream.kafka.clients import BatchProducer
from mmrec_stream.kafka.reader import read
from mmrec_stream.operations.letters import open_letters
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics
from tests.cli.folding import NOW, click, publish
from tests.conftest import Outcome

Mmrec = Callable[..., Outcome]


def letter(
    topic: str,
    offset: int,
    value: bytes | None,
    fault: Fault = Fault.MISPLACED,
    *,
    partition: int = 0,
    truncated: bool = False,
) -> DeadLetter:
    return DeadLetter(
        fault=fault,
        detail="",
        origin=Origin(topic=topic, partition=partition, offset=offset),
        key=b"some-key",
        value=value,
        truncated=truncated,
        noticed=NOW,
    )


def bury(settings: Settings, *letters: DeadLetter) -> None:
    with BatchProducer(settings, idempotent=False) as producer:
        for each in letters:
            producer.send(Topics.of(settings).dead_letters, encode_dead_letter(each), key=each.record_key)


def test_usable_letters_are_published_once_where_they_belong(settings: Settings, topics: Topics, mmrec: Mmrec) -> None:
    bury(
        settings,
        letter(topics.clicks, 1, click("ann")),
        letter(topics.clicks, 2, b"not json", Fault.NOT_JSON),
        letter(topics.clicks, 3, None, Fault.EMPTY),
        letter(topics.purchases, 4, click("bob").replace(b"click", b"purchase"), Fault.INTERNAL),
    )
    outcome = mmrec(settings, "redrive")
    assert outcome.exit_code == 0, outcome.output
    (ann,) = read(settings, topics.clicks)
    assert (ann.key(), ann.value(), ann.partition()) == (
        b"ann",
        click("ann"),
        partition_of(b"ann", settings.partitions),
    )
    assert ann.headers() == [("mmrec-dead-letter", f"{topics.clicks}/0/1".encode())]
    assert [m.key() for m in read(settings, topics.purchases)] == [b"bob"]
    assert outcome.stdout.count("published again") == 2
    assert outcome.stdout.count("still refused") == 1
    assert outcome.stdout.count("has no value") == 1
    assert {each.origin.offset for each in open_letters(settings)} == {2, 3}

    # A worker that reads the same record once more writes the letter once more; it is done all the same.
    bury(settings, letter(topics.clicks, 1, click("ann")))
    assert "published again" not in mmrec(settings, "redrive").stdout
    assert len(list(read(settings, topics.clicks))) == 1


def test_a_dry_run_changes_nothing(settings: Settings, topics: Topics, mmrec: Mmrec) -> None:
    bury(settings, letter(topics.clicks, 1, click("ann")))
    assert "published again (dry run)" in mmrec(settings, "redrive", "--dry-run").stdout
    assert list(read(settings, topics.clicks)) == []
    assert len(open_letters(settings)) == 1


def test_letters_can_be_chosen(settings: Settings, topics: Topics, mmrec: Mmrec) -> None:
    bury(
        settings,
        letter(topics.clicks, 1, click("a")),
        letter(topics.clicks, 2, click("b"), Fault.INTERNAL),
        letter(topics.feedback, 3, click("c")),
        letter(topics.clicks, 4, click("d")),
    )
    assert mmrec(settings, "redrive", "--fault", "misplaced", "--topic", "clicks", "--limit", "1").exit_code == 0
    assert [m.key() for m in read(settings, topics.clicks)] == [b"a"]
    assert mmrec(settings, "redrive", "--topic", topics.feedback, "--to", "purchases").exit_code == 0
    assert [m.key() for m in read(settings, topics.purchases)] == [b"c"]
    assert {each.origin.offset for each in open_letters(settings)} == {2, 4}


def test_what_would_be_refused_goes_only_when_told(settings: Settings, topics: Topics, mmrec: Mmrec) -> None:
    ahead = click("ann", ts=NOW + 10 * 86_400_000)
    bury(settings, letter(topics.clicks, 1, b"{}", Fault.INVALID), letter(topics.clicks, 2, ahead, Fault.FUTURE))
    assert mmrec(settings, "redrive").stdout.count("still refused") == 2
    assert mmrec(settings, "redrive", "--anyway").stdout.count("published again") == 2
    assert {m.key(): m.value() for m in read(settings, topics.clicks)} == {b"some-key": b"{}", b"ann": ahead}


def test_letters_of_foreign_topics_come_to_ours(settings: Settings, topics: Topics, mmrec: Mmrec) -> None:
    bury(settings, letter("shop.events", 1, click("ann")))
    own = settings.model_copy(update={"behaviour_topics": ["shop.events"]})
    assert mmrec(own, "redrive").exit_code == 0
    assert [m.key() for m in read(settings, topics.clicks)] == [b"ann"]


def test_a_cut_letter_is_completed_from_its_origin(settings: Settings, topics: Topics, mmrec: Mmrec) -> None:
    whole = click("ann")[:-1] + b',"session_id":"s"' + b" " * (MAX_VALUE_BYTES + 10) + b"}"
    publish(settings, topics.clicks, [("ann", whole)])
    partition = partition_of(b"ann", settings.partitions)
    cut = whole[:MAX_VALUE_BYTES]
    bury(
        settings,
        letter(topics.clicks, 0, cut, Fault.OVERSIZED, partition=partition, truncated=True),
        letter(topics.clicks, 99, cut, Fault.OVERSIZED, partition=partition, truncated=True),
    )
    roomy = settings.model_copy(update={"max_event_bytes": 2_000_000})
    outcome = mmrec(roomy, "redrive")
    assert outcome.stdout.count("published again") == 1
    assert outcome.stdout.count("cut off, and gone at its origin") == 1
    assert [m.value() for m in read(settings, topics.clicks)] == [whole, whole]


def test_a_key_that_no_letter_can_hold_reaches_the_broker_cut_and_comes_back_whole(
    settings: Settings, topics: Topics, mmrec: Mmrec
) -> None:
    key = b"k" * 800_000
    with BatchProducer(settings) as producer:
        producer.send(topics.clicks, b"{}", key=key, partition=1)
    bury(settings, dead_letter(Origin(topic=topics.clicks, partition=1, offset=0), key, b"{}", Fault.INVALID, "d"))
    assert [len(each.key or b"") for each in open_letters(settings)] == [MAX_KEY_BYTES]
    assert mmrec(settings, "redrive", "--anyway").stdout.count("published again") == 1
    assert [(m.key(), m.value()) for m in read(settings, topics.clicks)] == [(key, b"{}")] * 2


def test_a_destination_that_does_not_exist_is_refused(settings: Settings, topics: Topics, mmrec: Mmrec) -> None:
    bury(settings, letter(topics.clicks, 1, click("ann")))
    outcome = mmrec(settings, "redrive", "--to", "nowhere")
    assert outcome.exit_code == 1
    assert "topic nowhere does not exist" in outcome.stderr
