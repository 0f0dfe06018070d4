"""The published JSON Schemas: up to date, and of one mind with the decoders."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from mmrec_stream.contracts.behaviour import BehaviourRecord
from mmrec_stream.contracts.schemas import CONTRACTS, schema, schema_files
from mmrec_stream.settings import Settings
from tests.contracts.examples import EXAMPLES, any_of, as_json, codec

PUBLISHED = Path(__file__).parents[2] / "docs" / "schemas"


@pytest.fixture(scope="module")
def validators() -> dict[str, Draft202012Validator]:
    found = {
        name: Draft202012Validator(json.loads((PUBLISHED / f"{name}.schema.json").read_bytes())) for name in CONTRACTS
    }
    for validator in found.values():
        Draft202012Validator.check_schema(validator.schema)
    return found


def test_the_published_files_are_up_to_date() -> None:
    assert {path.name: path.read_bytes() for path in PUBLISHED.iterdir()} == schema_files(), "run `mmrec schemas`"


@pytest.mark.parametrize("name", EXAMPLES)
def test_real_messages_are_valid(name: str, validators: dict[str, Draft202012Validator]) -> None:
    encode, _, contract = codec(EXAMPLES[name])
    validators[contract].validate(json.loads(encode(EXAMPLES[name])))


@given(any_of(BehaviourRecord))
@settings(max_examples=50, deadline=None)
def test_any_event_is_valid(value: Any) -> None:
    Draft202012Validator(schema("behaviour-event")).validate(json.loads(codec(value)[0](value)))


@given(st.sampled_from(sorted(EXAMPLES)), st.data())
@settings(deadline=None)
def test_schema_and_decoder_refuse_the_same(name: str, data: st.DataObject) -> None:
    message = as_json(EXAMPLES[name])
    field = data.draw(st.sampled_from(sorted(message)))
    wrong: Any = data.draw(st.sampled_from([..., None, "", -1, 3.5, [], {}, True, "x" * 9000, 10**15]))
    if wrong is ...:
        del message[field]
    else:
        message[field] = wrong
    _, decode, contract = codec(EXAMPLES[name])
    try:
        decode(json.dumps(message).encode())
        accepted = True
    except msgspec.ValidationError:
        accepted = False
    assert Draft202012Validator(schema(contract)).is_valid(message) == accepted


def test_the_command_writes_and_checks(tmp_path: Path, mmrec: Any) -> None:
    nowhere = Settings(_env_file=None)  # type: ignore[call-arg]
    assert mmrec(nowhere, "schemas", "--out", str(tmp_path)).exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == set(schema_files())
    assert mmrec(nowhere, "schemas", "--check", "--out", str(tmp_path)).exit_code == 0
    (tmp_path / "dead-letter.schema.json").write_text("{}")
    result = mmrec(nowhere, "schemas", "--check", "--out", str(tmp_path))
    assert result.exit_code == 1
    assert "dead-letter.schema.json" in result.output
    assert "catalogue-item" not in result.output
