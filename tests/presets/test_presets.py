"""Presets: a file of events in the field's own words makes the tastes that somebody of the field would expect."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mmrec_stream.cli import app
from mmrec_stream.contracts.behaviour import BehaviourRecord
from mmrec_stream.contracts.identity import short_key
from mmrec_stream.data.dataset import from_events
from mmrec_stream.data.requests import ItemFacts, profiles_of
from mmrec_stream.data.splits import Cases, Ragged
from mmrec_stream.errors import UserError
from mmrec_stream.presets import SHOP, load_preset, parse_preset, preset_names, preset_text
from mmrec_stream.profiles.columns import columns_of
from mmrec_stream.profiles.fold import fold
from mmrec_stream.profiles.rows import ProfileRows
from mmrec_stream.profiles.tastes import Tastes
from mmrec_stream.ranking.repeats import Repeats, barred_keys
from mmrec_stream.replay.mapping import load_mapping
from mmrec_stream.replay.reading import Source, read_events
from mmrec_stream.replay.rows import Reject
from mmrec_stream.settings import load_settings

NOW = datetime(2026, 11, 24, 20, 0, tzinfo=UTC)

MAPPING = """
[time]
column = "when"
[type]
column = "what"
values = { }
[fields]
user_id = "who"
item_id = "item"
category = "about"
"""

Did = tuple[float, str, str, int]
"""Days ago, the field's word for it, what it was about, how many times."""

EVENINGS: dict[str, tuple[list[Did], list[str]]] = {
    # A film that was finished, beside many that were only looked at.
    "video": ([(1, "finish", "crime", 1), (0, "trailer", "comedy", 7), (0, "pause", "comedy", 9)], ["crime", "comedy"]),
    # What was kept two months ago, beside what an evening's radio played.
    "music": ([(60, "playlist_add", "jazz", 3), (0, "play", "pop", 8)], ["jazz", "pop"]),
    # Last week's story was read to the end five times over; today's has been opened twice.
    "news": ([(7, "read", "election", 5), (0, "open", "storm", 2)], ["storm", "election"]),
    # A booking three weeks ago, beside an evening of looking around.
    "travel": ([(21, "book", "beach", 1), (0, "details", "city", 11)], ["beach", "city"]),
}
"""By field: what somebody did, their tastes in order under the preset; a shop's rule has it the other way round."""


def read(folder: Path, preset: str) -> list[BehaviourRecord]:
    """What a field's somebody did, as a replay of their platform's file publishes it."""
    rows = ["when,what,who,item,about"]
    for days, word, about, times in EVENINGS[preset][0]:
        moment = NOW - timedelta(days=days)
        rows += [f"{(moment + timedelta(seconds=n)).isoformat()},{word},ann,{about}-{n},{about}" for n in range(times)]
    (folder / "log.csv").write_text("\n".join(rows) + "\n")
    (folder / "mine.toml").write_text(MAPPING)
    source = Source(folder / "log.csv", load_mapping(folder / "mine.toml", load_preset(preset).events))
    outcomes = [outcome for chunk in read_events(source) for outcome in chunk.outcomes]
    events = [outcome for outcome in outcomes if not isinstance(outcome, Reject)]
    assert len(events) == len(outcomes)
    return sorted(events, key=lambda event: event.ts)


def affinities(events: list[BehaviourRecord], preset: str) -> dict[str, float]:
    rows = ProfileRows()
    columns = columns_of(events, range(len(events)))
    fold(rows.records, rows.rows_of(columns.users), columns, 1, Tastes.of(preset))
    record = rows.records[0]
    weights = dict(zip(record["category_keys"].tolist(), record["category_weights"].tolist(), strict=True))
    names = {about for evening, _ in EVENINGS.values() for _, _, about, _ in evening}
    return {name: weights[short_key(name)] for name in names if short_key(name) in weights}


@pytest.mark.parametrize("preset", EVENINGS)
def test_a_replayed_evening_makes_the_tastes_that_the_field_expects(preset: str, tmp_path: Path) -> None:
    _, expected = EVENINGS[preset]
    events = read(tmp_path, preset)
    tastes = affinities(events, preset)
    assert sorted(tastes, key=lambda name: -tastes[name]) == expected
    by_shop = affinities(events, SHOP)
    assert sorted(by_shop, key=lambda name: -by_shop[name]) == expected[::-1]


@pytest.mark.parametrize("preset", EVENINGS)
def test_data_sets_fold_by_the_rule_that_they_were_read_with(preset: str, tmp_path: Path) -> None:
    events = read(tmp_path, preset)
    dataset = from_events("mine", events, rule=Tastes.of(preset))
    log = dataset.interactions.where(np.arange(len(events)))
    one = np.array([0])
    cases = Cases(log, one.astype(np.int32), one, one + len(log), log.times[-1:], Ragged.of([one]))
    assert dataset.catalogue is not None
    record = profiles_of(cases, ItemFacts.of(list(dataset.item_ids), list(dataset.catalogue), [], []))[0]
    weights = dict(zip(record["category_keys"].tolist(), record["category_weights"].tolist(), strict=True))
    for name, weight in affinities(events, preset).items():
        assert weights[short_key(name)] == pytest.approx(weight, rel=1e-6)


def test_every_preset_fits_its_field(monkeypatch: pytest.MonkeyPatch) -> None:
    assert preset_names() == sorted([SHOP, *EVENINGS])
    for name in preset_names():
        monkeypatch.setenv("MMREC_PRESET", name)
        assert load_settings().repurchase_days == load_preset(name).defaults.repurchase_days
        assert load_settings().seen_days == load_preset(name).defaults.seen_days
    monkeypatch.setenv("MMREC_REPURCHASE_DAYS", "3")
    assert load_settings().repurchase_days == 3.0, "what is set wins"


def test_what_was_kept_comes_back_in_music_and_what_was_read_stays_out_of_news(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later_s = int((NOW + timedelta(days=31)).timestamp())
    for preset, out in (("music", 0), ("news", 7)):
        events = read(tmp_path, preset)
        rows = ProfileRows()
        columns = columns_of(events, range(len(events)))
        fold(rows.records, rows.rows_of(columns.users), columns, 1, Tastes.of(preset))
        monkeypatch.setenv("MMREC_PRESET", preset)
        settings = load_settings()
        repeats = Repeats.of_days(settings.seen_days, settings.repurchase_days)
        barred = barred_keys(rows.records[:1], np.array(later_s), repeats)
        assert len(set(barred[barred > 0].tolist())) == out, preset


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("half_life_days = 1", "half_life_days = 0", "half_life_days"),
        ("half_life_days = 1", "half_life_days = nan", "half_life_days"),
        ("view = 0.5", "", "missing required field `view`"),
        ("view = 0.5", "view = -1", "weights.view"),
        ("view = 0.5", "view = 0.5\nglance = 1", "glance"),
        ('open = "click"', 'open = "opened"', "`events.open` is 'opened': one of view, click"),
        ("[weights]", "[weights", ""),
    ],
)
def test_a_wrong_file_is_refused_with_its_key(old: str, new: str, complaint: str) -> None:
    text = preset_text("news")
    assert old in text
    with pytest.raises(UserError, match=r"^preset mine\.toml: ") as refused:
        parse_preset(text.replace(old, new, 1), "mine.toml")
    assert complaint in str(refused.value)


def test_a_preset_of_ones_own_is_copied_checked_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = CliRunner().invoke(app, ["presets", "music"])
    assert shown.exit_code == 0, shown.output
    own = tmp_path / "radio.toml"
    own.write_text(shown.stdout.replace("repurchase_days = 0", "repurchase_days = 2"))
    monkeypatch.setenv("MMREC_PRESET", str(own))
    assert load_settings().repurchase_days == 2
    assert Tastes.of(str(own)).name == "radio"
    listed = CliRunner().invoke(app, ["presets"])
    assert listed.exit_code == 0, listed.output
    assert [line.split()[0] for line in listed.stdout.splitlines()[1:6]] == preset_names()
    assert f"{own} *" in listed.stdout
    monkeypatch.setenv("MMREC_PRESET", "radio")
    with pytest.raises(UserError, match="no preset is called 'radio': there are music, news"):
        load_settings()
    monkeypatch.setenv("MMREC_PRESET", str(tmp_path / "none.toml"))
    with pytest.raises(UserError, match=r"none\.toml cannot be read"):
        load_settings()
