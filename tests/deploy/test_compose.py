"""docker-compose.yml and its Dockerfile: valid, true to the product's commands and settings, and closed by default.

No Docker engine is needed: the compose file is judged by the specification's own schema and by what it refers to.
"""

import re
import subprocess
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from mmrec_stream.cli import app
from mmrec_stream.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
OURS = {"topics", "worker-1", "worker-2", "trainer", "shoppers"}
THEIRS = {"kafka", "prometheus", "grafana"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return loaded


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose["services"]
    return found


@pytest.fixture(scope="module")
def stages() -> dict[str, list[tuple[str, str]]]:
    """The Dockerfile's stages with their instructions; a stage begins with those of the stage it is built on."""
    text = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE))
    found: dict[str, list[tuple[str, str]]] = {}
    current: list[tuple[str, str]] = []
    for line in filter(str.strip, text.splitlines()):
        instruction, _, rest = line.strip().partition(" ")
        if instruction == "FROM":
            base, _, name = re.split(r"\s+(AS)\s+", rest)
            current = found[name] = [*found.get(base, [("FROM", base)])]
        else:
            current.append((instruction, rest))
    return found


def test_the_file_is_what_the_compose_specification_allows() -> None:
    command = [str(Path(sys.executable).with_name("check-jsonschema")), "--builtin-schema", "vendor.compose-spec"]
    result = subprocess.run([*command, str(COMPOSE)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_what_services_refer_to_is_there(compose: dict[str, Any], services: dict[str, dict[str, Any]]) -> None:
    assert set(services) == OURS | THEIRS
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            assert other in services, name
            if how["condition"] == "service_healthy":
                assert services[other]["healthcheck"]["test"], other
            if how["condition"] == "service_completed_successfully":
                assert services[other]["restart"] == "no", other
        assert set(service["networks"]) <= set(compose["networks"])
    sources = {volume.split(":")[0] for service in services.values() for volume in service.get("volumes", [])}
    assert {source for source in sources if not source.startswith("./")} == set(compose["volumes"])
    assert all((ROOT / source).exists() for source in sources if source.startswith("./"))
    images = {service["image"] for name, service in services.items() if name in THEIRS}
    assert all(re.search(r":v?\d+\.\d+\.\d+$", image) for image in images), "images of others are pinned"


@pytest.mark.parametrize("name", sorted(OURS))
def test_commands_are_real_ones_with_real_options(name: str, services: dict[str, dict[str, Any]]) -> None:
    _parse([str(part) for part in services[name]["command"]])


def _parse(arguments: list[str]) -> None:
    """Parse a command line as `mmrec` does, and run nothing."""
    name, *options = arguments
    plugins = {plugin.name: plugin for plugin in entry_points(group="mmrec.commands")}
    if name in plugins:
        alone = typer.Typer()
        alone.command(name)(plugins[name].load())
        command: Any = typer.main.get_command(alone)
    else:
        commands: Any = typer.main.get_group(app).commands
        assert name in commands, f"no command is called {name}"
        command = commands[name]
    command.make_context(name, options)


@pytest.mark.parametrize("name", sorted(OURS))
def test_environment_variables_are_real_settings(name: str, services: dict[str, dict[str, Any]]) -> None:
    environment = {key: _default(value) for key, value in services[name]["environment"].items()}
    assert {key.removeprefix("MMREC_").lower() for key in environment} <= set(Settings.model_fields)
    values = {key.removeprefix("MMREC_").lower(): value for key, value in environment.items()}
    assert Settings(_env_file=None, **values).bootstrap == "kafka:9092"  # type: ignore[arg-type, call-arg]


def _default(value: Any) -> str:
    """What compose makes of `${NAME:-default}` where NAME is not set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value))


def test_our_containers_may_do_little(services: dict[str, dict[str, Any]]) -> None:
    for name in OURS:
        service = services[name]
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["user"].split(":")[0] != "0", name
        assert not service.get("privileged"), name


def test_nothing_is_reachable_from_other_machines(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name
        assert service.get("network_mode") is None, name


def test_workers_read_the_releases_that_the_trainer_writes(services: dict[str, dict[str, Any]]) -> None:
    assert "releases:/data" in services["trainer"]["volumes"]
    for name in ("worker-1", "worker-2"):
        assert "releases:/data:ro" in services[name]["volumes"]
    assert services["worker-1"]["command"] == services["worker-2"]["command"] == ["worker"]


def test_kafka_listens_where_it_says(services: dict[str, dict[str, Any]]) -> None:
    environment = services["kafka"]["environment"]
    listeners = dict(entry.split("://") for entry in environment["KAFKA_LISTENERS"].split(","))
    advertised = dict(entry.split("://") for entry in environment["KAFKA_ADVERTISED_LISTENERS"].split(","))
    protocols = dict(entry.split(":") for entry in environment["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(","))
    assert set(listeners) == set(advertised) | {"CONTROLLER"} == set(protocols)
    for name, address in advertised.items():
        assert address.split(":")[1] == listeners[name].split(":")[1]
    assert advertised["INTERNAL"] == services["worker-1"]["environment"]["MMREC_BOOTSTRAP"]
    (port,) = services["kafka"]["ports"]
    assert port == f"{advertised['EXTERNAL']}:{listeners['EXTERNAL'].removeprefix(':')}"
    assert environment["KAFKA_CONTROLLER_QUORUM_VOTERS"] == f"{environment['KAFKA_NODE_ID']}@kafka:9093"


def test_images_are_built_from_stages_that_exist(
    services: dict[str, dict[str, Any]], stages: dict[str, list[tuple[str, str]]]
) -> None:
    for name in OURS:
        build = services[name]["build"]
        assert ROOT / build["dockerfile"] == DOCKERFILE
        stage = stages[build["target"]]
        declared = {value.split("=")[0] for lines in stages.values() for kind, value in lines if kind == "ARG"}
        assert set(build["args"]) <= declared, name
        assert ("USER", "10001:10001") in stage
        assert services[name]["user"] == "10001:10001"
        assert services[name]["image"] == f"mmrec-{build['target']}"


def test_what_is_copied_is_there_and_in_the_build_context(stages: dict[str, list[tuple[str, str]]]) -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    kept = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert "*" in ignored
    copied = set()
    for lines in stages.values():
        for kind, value in lines:
            if kind == "COPY" and "--from" not in value:
                copied |= set(value.split()[:-1])
    assert all((ROOT / name).exists() for name in copied)
    assert copied == kept
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {name.removesuffix("*") for name in packages} <= copied


def test_images_are_pinned_not_root_and_know_whether_they_are_well(stages: dict[str, list[tuple[str, str]]]) -> None:
    for name in ("worker", "trainer"):
        assert [value for kind, value in stages[name] if kind == "USER"][-1] == "10001:10001"
        assert ("ENTRYPOINT", '["mmrec"]') in stages[name]
        (command,) = [value for kind, value in stages[name] if kind == "CMD"]
        _parse([str(part) for part in yaml.safe_load(command)])
    installs = [value for lines in stages.values() for kind, value in lines if kind == "RUN" and "pip install" in value]
    assert installs
    assert all(step.count("pip install") == step.count("-c constraints.txt") for step in installs)
    (health,) = [value for kind, value in stages["worker"] if kind == "HEALTHCHECK"]
    assert f"127.0.0.1:{Settings.model_fields['web_port'].default}/health" in health
    environment = [value for kind, value in stages["worker"] if kind == "ENV"]
    names = re.findall(r"MMREC_(\w+)=", " ".join(environment))
    assert names
    assert {name.lower() for name in names} <= set(Settings.model_fields)


@pytest.mark.parametrize(("status", "well"), [(200, True), (503, False), (None, False)])
def test_the_health_check_hears_what_a_worker_says(
    status: int | None, well: bool, stages: dict[str, list[tuple[str, str]]]
) -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status or 0 if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
            pass

    (check,) = [value for kind, value in stages["worker"] if kind == "HEALTHCHECK"]
    python, *arguments = yaml.safe_load(check[check.index("[") :])
    assert python == "python"
    with HTTPServer(("127.0.0.1", 0), Page) as server:
        port = server.server_port
        if status is None:
            server.server_close()
        else:
            threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [sys.executable, *(argument.replace("6066", str(port)) for argument in arguments)]
        result = subprocess.run(command, capture_output=True, timeout=20, check=False)
        if status is not None:
            server.shutdown()
    assert (result.returncode == 0) == well
