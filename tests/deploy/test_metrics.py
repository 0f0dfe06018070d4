"""Prometheus, its alerts and the Grafana dashboard: they ask for metrics that a worker really has."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmrec_stream.settings import Settings
from streams.metrics import Metrics

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE = yaml.safe_load((DEPLOY.parent / "docker-compose.yml").read_text())


@pytest.fixture(scope="module")
def known() -> dict[str, set[str]]:
    """Every series that a worker exposes, with its labels; the ones of a scrape too."""
    metrics = Metrics()
    found: dict[str, set[str]] = {"up": set()}
    for collector in list(metrics.registry._collector_to_names):
        labels = set(getattr(collector, "_labelnames", ()))
        for name in metrics.registry._collector_to_names[collector]:
            found[name] = labels | ({"le"} if name.endswith("_bucket") else set())
    return found


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((DEPLOY / "grafana" / "dashboards" / "mmrec.json").read_text())
    return loaded


def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"] for rule in group["rules"]]


EXPRESSIONS = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
EXPRESSIONS += [rule["expr"] for rule in alerts()]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expressions_ask_for_metrics_and_labels_that_exist(expression: str, known: dict[str, set[str]]) -> None:
    assert expression.count("(") == expression.count(")")
    names = set(re.findall(r"\b(?:mmrec_\w+|up)\b", expression))
    assert names
    assert names <= set(known), f"no such metric: {names - set(known)}"
    grouped = {label.strip() for labels in re.findall(r"by \(([^)]*)\)", expression) for label in labels.split(",")}
    allowed = {"instance", "job"}.union(*(known[name] for name in names))
    assert grouped <= allowed, f"no such label: {grouped - allowed}"
    counters = {name for name in names if name.endswith(("_total", "_bucket"))}
    for name in counters:
        assert re.search(rf"(rate|increase)\({name}\[", expression), f"{name} only ever grows: ask for its rate"


def test_every_metric_is_on_the_dashboard(known: dict[str, set[str]]) -> None:
    shown = " ".join(target["expr"] for panel in dashboard()["panels"] for target in panel["targets"])
    wanted = {
        name for name in known if name.endswith(("_total", "_bucket")) or not re.search("_(count|sum|created)$", name)
    }
    wanted = {name for name in wanted if f"{name}_total" not in known and f"{name}_bucket" not in known} - {"up"}
    assert {name for name in wanted if name not in shown} == set()


def test_panels_do_not_overlap_and_say_what_they_show() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        assert panel["description"]
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
    identities = [panel["id"] for panel in dashboard()["panels"]]
    assert len(set(identities)) == len(identities)


def test_alerts_say_what_to_look_at() -> None:
    assert len({rule["alert"] for rule in alerts()}) == len(alerts())
    assert all(rule["annotations"]["summary"] and rule["labels"]["severity"] for rule in alerts())


def test_prometheus_scrapes_the_workers_where_they_listen() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    (static,) = job["static_configs"]
    workers = {name for name in COMPOSE["services"] if name.startswith("worker")}
    port = Settings.model_fields["web_port"].default
    assert set(static["targets"]) == {f"{name}:{port}" for name in workers}
    assert all(f'job="{job["job_name"]}"' in rule["expr"] for rule in alerts() if "up{" in rule["expr"])
    mounted = {volume.split(":")[1] for volume in COMPOSE["services"]["prometheus"]["volumes"]}
    assert {f"/etc/prometheus/{name}" for name in [*config["rule_files"], "prometheus.yml"]} <= mounted


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert {panel["datasource"]["uid"] for panel in dashboard()["panels"]} == {source["uid"]}
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "mmrec.yml").read_text())["providers"]
    mounted = dict(volume.split(":")[:2] for volume in COMPOSE["services"]["grafana"]["volumes"])
    assert mounted["./deploy/grafana/dashboards"] == provider["options"]["path"]
    assert mounted["./deploy/grafana/provisioning"] == "/etc/grafana/provisioning"


@pytest.mark.parametrize(
    "metric",
    [
        "mmrec_lag_records",
        "mmrec_oldest_open_chunk_seconds",
        "mmrec_ownership_changes_total",
        "mmrec_fenced_writes_total",
        "mmrec_input_gap_records_total",
        "mmrec_partitions",
    ],
)
def test_somebody_is_called_when_a_partition_is_not_well(metric: str) -> None:
    assert any(metric in rule["expr"] for rule in alerts())
