"""What the README promises exists: settings with their defaults, commands, files."""

import re
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from mmrec_stream.cli import app
from mmrec_stream.settings import Settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def shown(default: object) -> str:
    match default:
        case None | [] | "":
            return ""
        case bool():
            return f"`{str(default).lower()}`"
        case float():
            return f"`{default:g}`"
        case _:
            return f"`{default}`"


def test_the_configuration_table_is_what_can_be_set() -> None:
    table = dict(re.findall(r"^\| `(MMREC_\w+)` \|(.*?)\|", README, flags=re.MULTILINE))
    fields = Settings.model_fields
    assert {name: default.strip() for name, default in table.items()} == {
        f"MMREC_{name.upper()}": shown(field.get_default(call_default_factory=True)) for name, field in fields.items()
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_is_named_exists(page: Path) -> None:
    named = set(re.findall(r"^(?:    |`{3}.*\n)?mmrec ([a-z]+)|`mmrec ([a-z]+)", page.read_text(), flags=re.MULTILINE))
    plugged = {plugin.name for plugin in entry_points(group="mmrec.commands")}
    own = {command.callback.__name__ for command in app.registered_commands if command.callback}
    groups = {group.name for group in app.registered_groups}
    assert {one or other for one, other in named} <= own | plugged | groups


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
