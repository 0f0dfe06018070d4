"""docs/contracts.md: its examples are valid messages, and its table is the topics that there are."""

import json
import re
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from mmrec_stream.contracts.schemas import CONTRACTS, schema
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics, topic_plan
from tests.contracts.examples import EXAMPLES, codec

TEXT = (Path(__file__).parents[2] / "docs" / "contracts.md").read_text()
BLOCKS = re.findall(r"```json ([\w-]+)\n(.*?)\n```", TEXT, flags=re.DOTALL)
DECODERS = {codec(value)[2]: codec(value)[1] for value in EXAMPLES.values()}


@pytest.mark.parametrize(("contract", "message"), BLOCKS)
def test_examples_are_valid_and_have_no_field_that_is_passed_over(contract: str, message: str) -> None:
    value = DECODERS[contract](message.encode())
    Draft202012Validator(schema(contract)).validate(json.loads(message))
    known = set(value.__struct_fields__) | {"type"}
    assert set(json.loads(message)) <= known


def test_the_table_has_every_topic_with_its_key_and_schema() -> None:
    rows = dict(re.findall(r"^\| `([\w.-]+)` \| .*? \| ([\w ]+) \|$", TEXT, flags=re.MULTILINE))
    settings = Settings(_env_file=None)  # type: ignore[call-arg]
    plan = {spec.name: spec.key for spec in topic_plan(settings) if not spec.name.endswith("-changelog")}
    assert rows == plan
    assert set(re.findall(r"\(schemas/([\w-]+)\.schema\.json\)", TEXT)) == set(CONTRACTS)


def test_the_table_says_which_events_a_topic_gets() -> None:
    topics = Topics.of(Settings(_env_file=None))  # type: ignore[call-arg]
    for value in EXAMPLES.values():
        if hasattr(value, "CODE"):
            row = re.search(rf"^\| `{re.escape(topics.of_event(value))}` .*$", TEXT, flags=re.MULTILINE)
            assert row is not None
            assert value.CODE.name.lower() in row[0]
