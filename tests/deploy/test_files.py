"""The files of ``deploy/``, as far as they can be checked without a network."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from catenary.eventlog.committer.log import STOP_TIMEOUT
from catenary.factory import RUN_DRAIN_TIMEOUT
from catenary.limits import Limits
from catenary.serving.server import HANGING_SECONDS
from catenary.settings import PREFIX, Settings
from catenary.supervisor import ENDING_SECONDS
from tests.e2e.balancers import DEPLOY
from tests.e2e.server import REPOSITORY

CLOSING_SECONDS = 2
LEAVING = CLOSING_SECONDS + RUN_DRAIN_TIMEOUT + ENDING_SECONDS + HANGING_SECONDS + STOP_TIMEOUT
"""A node that is told to stop may take so long."""

SILENCE = Limits().heartbeat_interval * 1.2
"""Nothing is sent for at most so long."""

COMPOSE = DEPLOY / "compose.yaml"
KUBERNETES = DEPLOY / "kubernetes" / "catenary.yaml"
UNIT = DEPLOY / "systemd" / "catenary.service"


def seconds(text: object) -> float:
    found = re.fullmatch(r"(\d+)(s?)", str(text))
    assert found, text
    return float(found[1])


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return loaded


def manifests() -> dict[str, dict[str, Any]]:
    return {found["kind"]: found for found in yaml.safe_load_all(KUBERNETES.read_text())}


def pod() -> dict[str, Any]:
    found: dict[str, Any] = manifests()["Deployment"]["spec"]["template"]["spec"]
    return found


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(DEPLOY.rglob("*")) if path.is_file()],
    ids=lambda path: path.name,
)
def test_every_setting_exists(path: Path) -> None:
    """A variable that a file sets is one that the server knows, or the balancer's own."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    known |= {"CATENARY_BIND", "CATENARY_NODE_1", "CATENARY_NODE_2"}
    assert set(re.findall(r"CATENARY_\w+", path.read_text())) <= known


def test_the_compose_file_is_one() -> None:
    """It has the form that Compose asks for."""
    subprocess.run(
        (
            sys.executable,
            "-m",
            "check_jsonschema",
            "--builtin-schema",
            "vendor.compose-spec",
            COMPOSE,
        ),
        check=True,
    )


def test_compose_starts_two_nodes_over_one_log_behind_haproxy() -> None:
    """The nodes are the same, their names are those that HAProxy asks, and they may drain."""
    services = compose()["services"]
    balancer = (DEPLOY / "haproxy.cfg").read_text()
    nodes = [name for name in services if name.startswith("node")]
    assert len(nodes) == 2
    for name in nodes:
        assert f"-{name}:8000}}" in balancer
        assert services[name]["environment"]["CATENARY_LOG"] == "redis://redis:6379/0"
        assert seconds(services[name]["stop_grace_period"]) > LEAVING
        build = services[name]["build"]
        assert (COMPOSE.parent / build["context"] / build["dockerfile"]).is_file()
    (source, *_) = services["haproxy"]["volumes"][0].split(":")
    assert (COMPOSE.parent / source).resolve() == DEPLOY / "haproxy.cfg"
    # What it says of durability holds, and Redis throws nothing away.
    assert services[nodes[0]]["environment"]["CATENARY_DURABILITY"] == "process"
    assert {"--appendonly", "yes", "noeviction"} <= set(services["redis"]["command"])


def test_the_image_has_what_the_package_is_built_of() -> None:
    """Each file that the build of the package names is copied before it."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    needed = {project["project"]["readme"], "pyproject.toml", "src", "LICENSE"}
    needed |= set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"])
    copied = set()
    for line in (DEPLOY / "Dockerfile").read_text().splitlines():
        words = line.split()
        if words[:1] == ["COPY"] and not words[1].startswith("--"):
            copied |= set(words[1:-1])
    assert needed == copied
    assert all((REPOSITORY / name).exists() for name in copied)


def test_the_manifests_are_valid() -> None:
    """Each has the form that Kubernetes 1.30 asks for, and nothing that it does not know."""
    assert manifests().keys() == {"Deployment", "Service", "PodDisruptionBudget"}
    for manifest in manifests().values():
        kubernetes_validate.validate(manifest, "1.30", strict=True)


def test_the_manifests_speak_of_the_same_pods() -> None:
    """What the deployment starts is what the service and the disruption budget select."""
    deployment = manifests()["Deployment"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"] == labels
    assert manifests()["Service"]["spec"]["selector"] == labels
    budget = manifests()["PodDisruptionBudget"]["spec"]
    assert budget["selector"]["matchLabels"] == labels
    assert 0 < budget["maxUnavailable"] < deployment["replicas"]
    assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_a_pod_is_asked_and_left_as_a_node_wants() -> None:
    """Ready is /readyz, alive is /healthz, and the end waits for preStop and the drain."""
    spec = pod()
    (container,) = spec["containers"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    ready = container["readinessProbe"]
    assert before > ready["periodSeconds"] * ready["failureThreshold"]
    assert spec["terminationGracePeriodSeconds"] > before + LEAVING
    environment = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert float(environment["CATENARY_RUN_DRAIN_TIMEOUT"]) == RUN_DRAIN_TIMEOUT


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """It knows every line, and waits longer than a drain takes."""
    text = UNIT.read_text()
    (found,) = re.findall(r"^TimeoutStopSec=(.*)$", text, re.MULTILINE)
    assert seconds(found) > LEAVING
    (command,) = re.findall(r"^ExecStart=(\S+)", text, re.MULTILINE)
    own = tmp_path / UNIT.name
    own.write_text(text.replace(command, sys.executable))
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    done = subprocess.run(
        ("systemd-analyze", "verify", own), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("haproxy.cfg", r"timeout (?:client|server|tunnel) (\d+)s"),
        ("nginx.conf", r"proxy_(?:read|send)_timeout (\d+)s"),
    ],
)
def test_timeouts_of_balancers_are_longer_than_a_silence(name: str, setting: str) -> None:
    """A connection on which only heartbeats come is not cut."""
    found = re.findall(setting, (DEPLOY / name).read_text())
    assert len(found) >= 2
    assert all(float(each) > 2 * SILENCE for each in found)


def test_the_page_about_haproxy_says_how_its_file_asks_the_nodes() -> None:
    """When a node gets nothing new, and when it gets something again."""
    (found,) = re.findall(
        r"inter (\d+)s fall (\d+) rise (\d+)", (DEPLOY / "haproxy.cfg").read_text()
    )
    page = (REPOSITORY / "docs" / "how-to" / "deploy-compose.md").read_text()
    (said,) = re.findall(
        r"\| each (?:(\d+) )?seconds?, out after (\d+) failures?, in after (\d+) ", page
    )
    assert (said[0] or "1", *said[1:]) == found
