"""The clock of a replay."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrec_stream.errors import UserError
from mmrec_stream.replay.pacing import Pace, parse_speed


@pytest.mark.parametrize(("text", "speed"), [("max", None), ("1x", 1.0), ("10x", 10.0), ("0.5x", 0.5), ("100", 100.0)])
def test_speeds(text: str, speed: float | None) -> None:
    assert parse_speed(text) == speed


@pytest.mark.parametrize("text", ["", "x", "fast", "0x", "-1x", "infx", "nanx"])
def test_what_is_no_speed_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--speed"):
        parse_speed(text)


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(0, 10**9), st.sampled_from([0.5, 1.0, 10.0]))
def test_time_passes_at_the_speed(first: int, started: int, later: int, speed: float) -> None:
    pace = Pace(speed, first, started)
    assert pace.due(first) == started
    assert abs((pace.due(first + later) or 0) - started - later / speed) <= 1
    assert Pace(None, first, started).due(first + later) is None
