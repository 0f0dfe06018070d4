"""Mapping files: the built-in ones are right, and a mistake in one's own is named with key and file."""

import re
from pathlib import Path

import pytest
import typer

from mmrec_stream.cli import app
from mmrec_stream.errors import UserError
from mmrec_stream.replay.mapping import Mapping, builtin, builtin_formats, load_mapping, parse_mapping

GOOD = """
[time]
column = "when"
[type]
constant = "view"
[fields]
user_id = "who"
item_id = "what"
"""


def test_every_built_in_format_is_valid() -> None:
    assert set(builtin_formats()) >= {"rees46", "yoochoose", "online-retail"}
    for name in builtin_formats():
        assert builtin(name).mapping.fields["user_id"]


def test_an_unknown_format_is_answered_with_those_there_are() -> None:
    with pytest.raises(UserError, match=r"'amazon'.*jsonl.*rees46"):
        builtin("amazon")


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('column = "when"', 'colum = "when"', r"unknown field `colum`.*`time`"),
        ('column = "when"', "", r"missing required field `column`.*`time`"),
        ('column = "when"', "column = 3", r"Expected `str`, got `int`.*`time.column`"),
        ('constant = "view"', 'constant = "glance"', r"'glance'.*`type.constant`"),
        ('constant = "view"', "", r"`type` needs either"),
        ('constant = "view"', 'constant = "view"\ncolumn = "kind"\nvalues = {a = "view"}', r"`type` needs either"),
        ('constant = "view"', 'column = "kind"', r"`type.values` is missing"),
        ('constant = "view"', 'column = "kind"\nvalues = {a = "looked"}', r"'looked'.*`type.values"),
        ('user_id = "who"', "", r"`fields.user_id` is missing"),
        ('item_id = "what"', "", r"`fields.item_id` is missing"),
        ('item_id = "what"', 'item_id = "what"\ncolour = "c"', r"'colour'.*`fields`"),
        ('column = "when"', 'column = "when"\nunit = "s"\nformat = "%Y"', r"both `format` and `unit`"),
        ('column = "when"', 'column = "when"\ntimezone = "Mars/Olympus"', r"`time.timezone` is 'Mars/Olympus'"),
        ("[time]", '[file]\ndelimiter = "||"\n[time]', r"`file.delimiter`"),
        ("[time]", "[file]\nheader = false\n[time]", r"`file.columns` is missing"),
        ("[time]", "[time", r"Invalid statement|Expected|line"),
        ("[fields]", "[felds]", r"unknown field `felds`|missing required field `fields`"),
    ],
)
def test_a_mistake_is_named_with_key_and_file(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(UserError, match=complaint) as error:
        load_mapping(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_the_smallest_mapping_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    mapping = load_mapping(path).mapping
    assert mapping.file.delimiter == ","
    assert mapping.columns() == {"time.column": "when", "fields.user_id": "who", "fields.item_id": "what"}


def test_follows_need_no_item() -> None:
    text = GOOD.replace('"view"', '"follow"').replace('item_id = "what"', 'brand = "what"')
    assert parse_mapping(text, "x").mapping.fields["brand"] == "what"


def test_a_mapping_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.toml"):
        load_mapping(tmp_path / "gone.toml")


DOC = (Path(__file__).parents[2] / "docs" / "replay.md").read_text()


def test_the_mapping_in_the_manual_is_one_and_uses_every_table() -> None:
    (text,) = re.findall(r"```toml\n(.*?)\n```", DOC, flags=re.DOTALL)
    mapping = parse_mapping(text, "docs/replay.md").mapping
    assert mapping.file.delimiter == ";"
    assert mapping.type.when[0].type == "return"
    assert set(re.findall(r"^\[+([\w.]+)\]", text, flags=re.MULTILINE)) == {
        "type.when" if table == "when" else table for table in (*Mapping.__struct_fields__, "when")
    }


def test_the_manual_lists_every_format_and_option() -> None:
    assert {name for name in builtin_formats() if f"`{name}`" not in DOC} == set()
    parameters = typer.main.get_group(app).commands["replay"].params
    options = {option for parameter in parameters for option in parameter.opts if option.startswith("--")}
    assert {option for option in options - {"--bootstrap"} if option not in DOC} == set()
