"""The widget as a package: its size, what it names, and the examples of docs/widget.md."""

import gzip
import json
import re
import tomllib
from pathlib import Path

import pytest

from tests.storefront.browser.conftest import OpenPage
from tests.storefront.browser.gateway import STATIC, Gateway, Page
from tests.storefront.browser.looks import until

ROOT = Path(__file__).parents[3]
DOCS = (ROOT / "docs" / "widget.md").read_text(encoding="utf-8")
WIDGET = STATIC / "widget" / "mmrec-recommendations.js"
BUDGET = 12 * 1024
README = (STATIC / "widget" / "README.md").read_text(encoding="utf-8")


def examples(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCS, re.DOTALL)


@pytest.mark.parametrize("number", range(2))
def test_the_html_examples_show_and_report(gateway: Gateway, open_page: OpenPage, number: int) -> None:
    gateway.tokens = {"a-token": "ada"}
    gateway.pages["/recommendation-token"] = Page("a-token")
    gateway.pages["/example"] = Page(examples("html")[number].replace("https://recommend.example.com", gateway.url))
    tab = open_page("/example")
    for row in tab.locator("mmrec-recommendations").all():
        row.locator("li:not([aria-hidden]) a").first.wait_for()
    if number == 1:
        assert until(tab, lambda: gateway.of("view"))[0]["user"] == "ada"
    else:
        assert tab.locator("li a").first.evaluate("link => link.pathname").startswith("/products/item-")
        until(tab, lambda: gateway.streams == ["ada"])


def test_the_theme_block_is_well_formed() -> None:
    (block,) = examples("liquid")
    (schema,) = re.findall(r"{% schema %}(.*?){% endschema %}", block, re.DOTALL)
    settings = {setting["id"] for setting in json.loads(schema)["settings"]}
    assert set(re.findall(r"block\.settings\.(\w+)", block)) == settings
    assert len(re.findall(r"{% if ", block)) == len(re.findall(r"{% endif ", block))


def test_the_package_has_what_it_names_and_the_projects_version() -> None:
    package = json.loads((STATIC / "widget" / "package.json").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert package["version"] == project["version"]
    named = {package["main"], package["types"], *package["files"], *package["sideEffects"]}
    for export in package["exports"].values():
        named |= set(export.values())
    assert [name for name in named if not (STATIC / "widget" / name).is_file()] == []


def test_the_readme_names_every_attribute_and_property() -> None:
    source = (STATIC / "widget" / "mmrec-recommendations.js").read_text()
    observed = re.search(r"observedAttributes = \[(.*?)\]", source, re.DOTALL)
    assert observed
    for name in re.findall(r'"([\w-]+)"', observed.group(1)):
        assert f"`{name}`" in README, name
    for name in sorted(set(re.findall(r"var\((--mmrec-[\w-]+)", source))):
        assert f"`{name}`" in README, name


def test_everything_ships_in_the_wheel() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["mmrec_stream"]
    package = STATIC.parents[1]
    shipped = {path for pattern in data for path in package.glob(pattern)}
    assert [str(path) for path in STATIC.rglob("*") if path.is_file() and path not in shipped] == []


def test_it_fits_into_its_budget_and_needs_nothing() -> None:
    source = WIDGET.read_bytes()
    assert len(gzip.compress(source, 9)) <= BUDGET
    assert not re.search(rb"^\s*(import|export)\b|\bimport\(|\beval\(|innerHTML", source, re.MULTILINE)


def test_the_types_name_every_attribute_and_event() -> None:
    source, types = WIDGET.read_text(), WIDGET.with_suffix(".d.ts").read_text()
    observed = re.search(r"observedAttributes = \[(.*?)\]", source, re.DOTALL)
    assert observed
    for name in re.findall(r'"([\w-]+)"', observed.group(1)):
        assert re.search(rf'^\s+"?{name}"?\?:', types, re.MULTILINE), name
    for name in ("list", "impression", "click", "error"):
        assert f'"mmrec:{name}"' in types
