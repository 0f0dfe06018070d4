"""Event files of every kind: what becomes an event, and what is refused with line, field and reason."""

import csv
import gzip
import io
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmrec_stream.contracts.behaviour import (
    AddToCart,
    BehaviourRecord,
    Cancel,
    Click,
    Follow,
    Purchase,
    Rating,
    View,
    decode_event,
    encode_event,
)
from mmrec_stream.errors import UserError
from mmrec_stream.replay import reading
from mmrec_stream.replay.mapping import Named, builtin, parse_mapping
from mmrec_stream.replay.reading import Chunk, Source, read_events, read_items
from mmrec_stream.replay.rows import Reject
from mmrec_stream.simulator import Shoppers, make_shop

REES46 = "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session\n"
OCTOBER = 1_569_888_000_000
"""2019-10-01 00:00:00 UTC."""


def read(
    path: Path, source: str | Named | None, anonymous_as: str | None = None
) -> tuple[list[BehaviourRecord], list[Reject]]:
    chunks = _chunks(path, source, anonymous_as)
    outcomes = [outcome for chunk in chunks for outcome in chunk.outcomes]
    rejects = [outcome for outcome in outcomes if isinstance(outcome, Reject)]
    return [outcome for outcome in outcomes if not isinstance(outcome, Reject)], rejects


def _chunks(path: Path, source: str | Named | None, anonymous_as: str | None = None) -> list[Chunk]:
    named = builtin(source) if isinstance(source, str) else source
    return list(read_events(Source(path, named, anonymous_as)))


def mapping(time: str = "", kind: str = 'constant = "view"', rest: str = "", fields: str = "") -> Named:
    return parse_mapping(
        f'[time]\ncolumn = "t"\n{time}\n[type]\n{kind}\n[fields]\nuser_id = "u"\nitem_id = "i"\n{fields}\n{rest}',
        "mine.toml",
    )


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def test_rees46(tmp_path: Path) -> None:
    path = write(
        tmp_path / "oct.csv",
        REES46
        + "2019-10-01 00:00:00 UTC,view,44,21,,shiseido,35.79,541,aa-1\n"
        + "2019-10-01 00:00:01 UTC,cart,39,20,appliances.kettle,,0.00,554,bb-2\n"
        + "2019-10-01 00:00:02 UTC,purchase,39,20,appliances.kettle,,33.2,554,bb-2\n",
    )
    events, rejects = read(path, "rees46")
    assert not rejects
    kettle = {"user_id": "554", "session_id": "bb-2", "item_id": "39", "category": "appliances.kettle"}
    assert events == [
        View(user_id="541", ts=OCTOBER, session_id="aa-1", item_id="44", brand="shiseido", price=35.79),
        AddToCart(ts=OCTOBER + 1000, price=0.0, **kettle),  # type: ignore[arg-type]
        Purchase(ts=OCTOBER + 2000, price=33.2, **kettle),  # type: ignore[arg-type]
    ]


def test_rows_that_cannot_be_events_are_told_with_line_field_and_reason(tmp_path: Path) -> None:
    good = "2019-10-01 00:00:00 UTC,view,44,21,,shiseido,35.79,541,aa-1\n"
    rows = [
        good,
        good.replace(",541,", ",,"),
        good.replace("view", "wishlist"),
        good.replace("2019-10-01", "2019-13-01"),
        "cut off,view,44\n",
        good.replace("35.79", "cheap"),
        "\n",
        good.replace("35.79", "-1"),
        good.replace(",44,", f",{'x' * 200},"),
        good.replace(" 00:00:00 UTC", ""),
        good.replace("35.79", "inf"),
        good,
    ]
    path = write(tmp_path / "oct.csv", REES46 + "".join(rows))
    events, rejects = read(path, "rees46")
    assert len(events) == 2
    assert sum(chunk.rows for chunk in _chunks(path, "rees46")) == len(rows)
    found = {reject.line: (reject.field, reject.reason) for reject in rejects}
    assert found == {
        3: ("user_id", "is missing"),
        4: ("type", "'wishlist' has no place in type.values"),
        5: ("ts", "'2019-13-01 00:00:00 UTC' is no time like %Y-%m-%d %H:%M:%S UTC"),
        6: ("", "has 3 columns instead of 9"),
        7: ("price", "is 'cheap', expected `float | null`, got `str`"),
        9: ("price", "is '-1', expected `float` >= 0.0"),
        10: ("item_id", f"is '{'x' * 200}', expected `str` of length <= 128"),
        11: ("ts", "'2019-10-01' is no time like %Y-%m-%d %H:%M:%S UTC"),
        12: ("price", "is 'inf', expected `float` <= 1000000000000.0"),
    }
    by_line = {reject.line: reject.row for reject in rejects}
    assert by_line[3] == rows[1].strip()
    assert by_line[6].strip() == rows[4].strip()


def test_line_numbers_hold_over_many_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BATCH_BYTES", 4096)
    lines = [REES46]
    expected = []
    for number in range(2, 3000):
        if number % 97 == 0:
            lines.append("too,short\n")
            expected.append(number)
        elif number % 89 == 0:
            lines.append("\n")
        elif number % 83 == 0:
            lines.append("2019-10-01 00:00:00 UTC,view,44,21,,shiseido,35.79,,aa-1\n")
            expected.append(number)
        else:
            lines.append(f"2019-10-01 00:00:00 UTC,view,{number},21,,shiseido,35.79,541,aa-1\n")
    path = write(tmp_path / "oct.csv", "".join(lines))
    chunks = _chunks(path, "rees46")
    assert len(chunks) > 10
    assert [chunk.done for chunk in chunks] == sorted(chunk.done for chunk in chunks)
    assert chunks[-1].done == 1.0
    events, rejects = read(path, "rees46")
    assert sorted(reject.line for reject in rejects) == expected
    assert [int(event.item_id) for event in events if isinstance(event, View)] == sorted(
        set(range(2, 3000)) - set(expected) - {n for n in range(2, 3000) if n % 89 == 0 and n % 97}
    )


@pytest.mark.parametrize("suffix", [".csv.gz", ".txt.gz"])
def test_yoochoose_compressed(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clicks{suffix}"
    path.write_bytes(gzip.compress(b"SessionId\tItemId\tTime\n1\t214\t1396860669.277\n2\t215\tsoon\n"))
    events, (reject,) = read(path, "yoochoose")
    assert events == [Click(user_id="1", session_id="1", item_id="214", ts=1396860669277)]
    assert (reject.line, reject.field, reject.reason) == (3, "ts", "'soon' is no time in s since 1970")


def test_yoochoose_as_published(tmp_path: Path) -> None:
    clicks = write(tmp_path / "yoochoose-clicks.dat", "1,2014-04-07T10:51:09.277Z,214,S\n")
    buys = write(tmp_path / "yoochoose-buys.dat", "42,2014-04-06T18:44:58.314Z,215,12462,2\n")
    (click,), _ = read(clicks, "yoochoose-clicks")
    assert click == Click(user_id="1", session_id="1", item_id="214", category="S", ts=1396867869277)
    (bought,), _ = read(buys, "yoochoose-buys")
    assert isinstance(bought, Purchase)
    assert (bought.order_id, bought.quantity, bought.price) == ("42", 2, 12462.0)


@pytest.fixture
def retail(tmp_path: Path) -> Path:
    from datetime import datetime

    rows = [
        ("536365", "85123A", "WHITE HEART", 6, datetime(2010, 12, 1, 8, 26), 2.55, 17850.0),
        ("C536379", "85123A", "", -1, datetime(2011, 6, 1, 9, 0), 27.5, 14527.0),
        ("536414", "22139", "RETRO SPOT", 56, datetime(2010, 12, 1, 11, 52), 0.0, None),
        ("536589", "21777", "lost", -10, datetime(2010, 12, 1, 16, 50), 0.0, 17850.0),
    ]
    names = ["InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID"]
    table = pa.table({name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)})
    path = tmp_path / "online_retail.parquet"
    pq.write_table(table, path)
    return path


def test_online_retail_cancellations_and_missing_customers(retail: Path) -> None:
    events, rejects = read(retail, "online-retail")
    assert events == [
        Purchase(user_id="17850", item_id="85123A", order_id="536365", quantity=6, price=2.55, ts=1291191960000),
        # Summer time: nine o'clock in London is eight in UTC.
        Cancel(user_id="14527", item_id="85123A", order_id="C536379", quantity=1, price=27.5, ts=1306915200000),
    ]
    assert [(r.line, r.field) for r in rejects] == [(3, "user_id"), (4, "quantity")]
    assert rejects[0].row == "536414,22139,RETRO SPOT,56,2010-12-01 11:52:00,0.0,"


def test_the_invoice_can_stand_in_for_a_missing_customer(retail: Path) -> None:
    events, rejects = read(retail, "online-retail", anonymous_as="invoice")
    assert [event.user_id for event in events] == ["17850", "14527", "invoice-536414"]
    assert len(rejects) == 1
    with pytest.raises(UserError, match=r"nothing called 'basket'.*it has invoice"):
        read(retail, "online-retail", anonymous_as="basket")
    with pytest.raises(UserError, match="jsonl has nothing called"):
        read(retail, None, anonymous_as="invoice")


def test_online_retail_items_have_the_last_text_that_is_not_empty(retail: Path) -> None:
    items = {item.item_id: item for item in read_items(Source(retail, builtin("online-retail")))}
    assert items["85123A"].title == "WHITE HEART"
    assert items["85123A"].price == 27.5
    assert set(items) == {"85123A", "22139", "21777"}


def test_rees46_items_leave_out_what_is_wrong(tmp_path: Path) -> None:
    path = write(
        tmp_path / "oct.csv",
        REES46
        + "2019-10-01 00:00:00 UTC,view,44,21,,shiseido,35.79,541,aa-1\n"
        + "2019-10-01 00:00:00 UTC,view,44,21,beauty.cream,,-3,541,aa-1\n"
        + f"2019-10-01 00:00:00 UTC,view,{'x' * 129},21,beauty.cream,,3,541,aa-1\n",
    )
    (item,) = read_items(Source(path, builtin("rees46")))
    assert (item.item_id, item.category, item.brand, item.price) == ("44", "beauty.cream", "shiseido", None)


def test_items_need_a_mapping_that_tells_of_them(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "t,u,i\n")
    with pytest.raises(UserError, match="says nothing of the catalogue"):
        list(read_items(Source(path, mapping())))


def test_our_own_events_come_back_from_json_lines(tmp_path: Path) -> None:
    shoppers = Shoppers(make_shop(60, pictures=False), 40)
    log = list(shoppers.past(8, 1_790_000_000_000))
    path = tmp_path / "events.jsonl.gz"
    path.write_bytes(gzip.compress(b"".join(encode_event(event) + b"\n" for event in log)))
    events, rejects = read(path, None)
    assert events == log
    assert not rejects


def test_json_lines_that_are_no_events(tmp_path: Path) -> None:
    good = encode_event(View(user_id="u", item_id="i", ts=OCTOBER))
    path = tmp_path / "events.jsonl"
    path.write_bytes(
        b"\n".join([good, b"{", b"", b'{"type":"view","user_id":"u","ts":1569888000000}', b"\xff\xfe", good])
    )
    events, rejects = read(path, None)
    assert len(events) == 2
    assert [(reject.line, reject.field) for reject in rejects] == [(2, ""), (4, "item_id"), (5, "")]
    assert rejects[1].reason == "is missing"


@pytest.mark.parametrize(
    ("time", "text"),
    [
        ("", "2019-10-01T00:00:00Z"),
        ("", "2019-10-01T02:00:00+02:00"),
        ("", "2019-10-01 00:00:00.000"),
        ("", "2019-10-01"),
        ('timezone = "Europe/Berlin"', "2019-10-01T02:00:00"),
        ('format = "%d.%m.%Y %H:%M"', "01.10.2019 00:00"),
        ('format = "%d.%m.%Y %H:%M"\ntimezone = "America/New_York"', "30.09.2019 20:00"),
        ('format = "%Y-%m-%dT%H:%M:%S%z"', "2019-10-01T01:00:00+0100"),
        ('format = "%Y-%m-%d %H:%M:%S.%f"', "2019-10-01 00:00:00.000000"),
        ('unit = "s"', "1569888000"),
        ('unit = "ms"', "1569888000000"),
    ],
)
def test_times_in_many_forms(tmp_path: Path, time: str, text: str) -> None:
    path = write(tmp_path / "mine.csv", f"t,u,i\n{text},u1,i1\n,u1,i1\nnever,u1,i1\n")
    events, rejects = read(path, mapping(time))
    assert [event.ts for event in events] == [OCTOBER]
    assert [(reject.line, reject.field) for reject in rejects] == [(3, "ts"), (4, "ts")]


def test_times_given_in_seconds_by_mistake_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.csv", "t,u,i\n1569888000,u1,i1\n")
    events, (reject,) = read(path, mapping('unit = "ms"'))
    assert not events
    assert reject.field == "ts"


def test_ones_own_columns_types_and_delimiter(tmp_path: Path) -> None:
    path = write(
        tmp_path / "mine.csv",
        't;u;i;kind;stars;n\n2019-10-01;"Zoë; ""Z""";i1;gesehen;;\n2019-10-01;u2;i1;Wertung;4,5;\n'
        "2019-10-01;u2;i1;Wertung;4.5;\n2019-10-01;u2;i1;Suche;;\n2019-10-01;u2;i1;Korb;;3\n",
    )
    kinds = '{ gesehen = "view", Wertung = "rating", Suche = "skip", Korb = "add_to_cart" }'
    named = mapping(
        kind=f'column = "kind"\nvalues = {kinds}',
        fields='rating = "stars"\nquantity = "n"',
        rest='[file]\ndelimiter = ";"',
    )
    (chunk,) = _chunks(path, named)
    assert chunk.rows == 5
    events, (reject,) = read(path, named)
    assert events == [
        View(user_id='Zoë; "Z"', item_id="i1", ts=OCTOBER),
        Rating(user_id="u2", item_id="i1", ts=OCTOBER, rating=4.5),
        AddToCart(user_id="u2", item_id="i1", ts=OCTOBER, quantity=3),
    ]
    assert (reject.line, reject.field) == (3, "rating")


def test_follows_of_brands(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.csv", "t,u,i\n2019-10-01,u1,Ember\n2019-10-01,u1,\n")
    text = '[time]\ncolumn="t"\n[type]\nconstant="follow"\n[fields]\nuser_id="u"\nbrand="i"'
    events, (reject,) = read(path, parse_mapping(text, "x"))
    assert events == [Follow(user_id="u1", brand="Ember", ts=OCTOBER)]
    assert "either `followed_user_id` or `brand`" in reject.reason


def test_other_encodings_and_bytes_that_are_no_text(tmp_path: Path) -> None:
    latin = write(tmp_path / "latin.csv", "t,u,i\n2019-10-01,Zoë,i1\n", "latin-1")
    (event,), _ = read(latin, mapping(rest='[file]\nencoding = "latin-1"'))
    assert event.user_id == "Zoë"
    wrong = tmp_path / "wrong.csv"
    wrong.write_bytes("t,u,i\n2019-10-01,Zoë,i1\n2019-10-01,Zo".encode() + b"\xff,i1\nsh\xfert\n2019-10-01,u3,i1\n")
    events, rejects = read(wrong, mapping())
    assert [event.user_id for event in events] == ["Zoë", "u3"]
    short, reject = rejects
    assert (short.line, short.reason, short.row.strip()) == (4, "has 1 columns instead of 3", "sh\\xfert")
    assert (reject.line, reject.field, reject.reason) == (3, "user_id", "holds bytes that are no text")
    assert reject.row == "2019-10-01,Zo\\xff,i1"


def test_parquet_with_binary_columns(tmp_path: Path) -> None:
    path = tmp_path / "old.parquet"
    columns = {"t": [b"2019-10-01"] * 3, "u": [b"u1", b"\xff", None], "i": [b"i1"] * 3}
    pq.write_table(pa.table(columns), path)
    events, rejects = read(path, mapping())
    assert [event.user_id for event in events] == ["u1"]
    assert [(r.line, r.field, r.row) for r in rejects] == [
        (2, "user_id", "2019-10-01,\\xff,i1"),
        (3, "user_id", "2019-10-01,,i1"),
    ]


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    path = write(tmp_path / "bom.csv", "t,u,i\n2019-10-01,u1,i1\n", "utf-8-sig")
    assert len(read(path, mapping())[0]) == 1


def test_line_breaks_in_values_where_they_are_announced(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.csv", 't,u,i,note\n2019-10-01,u1,i1,"two\nlines"\n2019-10-01,u2,i2,x\n')
    events, rejects = read(path, mapping(rest="[file]\nmultiline = true"))
    assert [event.user_id for event in events] == ["u1", "u2"]
    assert not rejects


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.csv", "time,u,i\n")
    with pytest.raises(
        UserError, match=r"mine\.toml: `time\.column` is 't', which mine\.csv does not have; it has 'time'"
    ):
        read(path, mapping())


@pytest.mark.parametrize(
    ("name", "data", "complaint"),
    [
        ("x.csv", None, "No such file"),
        ("x.jsonl", None, "No such file"),
        ("x.csv", b"", "is empty"),
        ("x.csv", b"t,u,i,u\n", "two columns called 'u'"),
        ("x.csv.gz", b"t,u,i\n", "cannot be read"),
        ("x.csv.gz", gzip.compress(b"t,u,i\n" + b"2019-10-01,u,i\n" * 9999)[:-200], "cannot be read"),
        ("x.parquet", b"PAR1 and nothing more", "cannot be read"),
    ],
)
def test_files_that_cannot_be_read_are_one_readable_line(
    tmp_path: Path, name: str, data: bytes | None, complaint: str
) -> None:
    path = tmp_path / name
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UserError, match=complaint) as error:
        read(path, None if name.endswith("jsonl") else mapping())
    assert str(path) in str(error.value)


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), min_size=1, max_size=20).filter(
    lambda text: text.strip() == text
)


@given(st.lists(st.tuples(TEXT, TEXT, st.none() | TEXT, st.integers(0, 10**9)), min_size=1, max_size=20))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
def test_any_text_comes_through_csv(tmp_path: Path, rows: list[tuple[str, str, str | None, int]]) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["t", "u", "i", "b"])
    writer.writerows([OCTOBER + ts, user, item, brand] for user, item, brand, ts in rows)
    path = write(tmp_path / "any.csv", buffer.getvalue())
    events, rejects = read(path, mapping('unit = "ms"', fields='brand = "b"'))
    assert not rejects
    assert events == [View(user_id=u, item_id=i, brand=b, ts=OCTOBER + ts) for u, i, b, ts in rows]


@pytest.mark.data
class TestRealFiles:
    @pytest.fixture
    def data(self) -> Path:
        if "MMREC_DATA" not in os.environ:
            pytest.skip("needs the real data sets: set MMREC_DATA")
        return Path(os.environ["MMREC_DATA"])

    def test_rees46(self, data: Path) -> None:
        path = data / "rees46_2019oct_sample" / "2019-Oct_first_rows.csv"
        events, rejects = read(path, "rees46")
        assert not rejects
        assert Counter(type(event).__name__ for event in events) == {"View": 17055, "AddToCart": 165, "Purchase": 214}
        assert len({event.user_id for event in events}) == 4504
        assert len(list(read_items(Source(path, builtin("rees46"))))) == 6493

    def test_yoochoose(self, data: Path) -> None:
        folder = data / "yoochoose_100k_clicks"
        for name, clicks, sessions in (("test", 13568, 3416), ("train_full", 70278, 17794)):
            events, rejects = read(folder / f"yoochoose-clicks-100k_{name}.txt.gz", "yoochoose")
            assert not rejects
            assert (len(events), len({event.user_id for event in events})) == (clicks, sessions)

    def test_online_retail(self, data: Path) -> None:
        path = data / "uci_online_retail" / "online_retail.parquet"
        counts: Counter[Any] = Counter()
        for chunk in _chunks(path, "online-retail"):
            counts["rows"] += chunk.rows
            counts.update(o.field if isinstance(o, Reject) else type(o).__name__ for o in chunk.outcomes)
        assert counts == {
            "rows": 541909,
            "Purchase": 397924,
            "Cancel": 8905,
            "user_id": 133742,
            "quantity": 1336,
            "price": 2,
        }


PIECES = st.sampled_from(
    [
        b"2019-10-01 00:00:00 UTC",
        b"view",
        b"44",
        b"",
        b",",
        b"\n",
        b"\r\n",
        b'"',
        b"\xff",
        b"\0",
        b"-1",
        b"nan",
        b"1e999",
    ]
) | st.binary(max_size=6)


@given(st.lists(PIECES, max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
def test_whatever_a_file_holds_every_row_is_an_event_or_a_reject(tmp_path: Path, pieces: list[bytes]) -> None:
    path = tmp_path / "any.csv"
    path.write_bytes(REES46.encode() + b"".join(pieces))
    events, rejects = read(path, "rees46")
    assert all(decode_event(encode_event(event)) == event for event in events)
    assert all(reject.reason and reject.line > 1 for reject in rejects)


@given(
    st.lists(
        PIECES | st.sampled_from([b'{"type":"view",', b'"ts":1e99,', b"{", b"}", b"[[", b'"\\ud800"']), max_size=40
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
def test_whatever_json_lines_hold_every_line_is_an_event_or_a_reject(tmp_path: Path, pieces: list[bytes]) -> None:
    path = tmp_path / "any.jsonl"
    path.write_bytes(b"".join(pieces))
    events, rejects = read(path, None)
    lines = [line for line in path.read_bytes().split(b"\n") if line.strip()]
    assert len(events) + len(rejects) == len(lines)
