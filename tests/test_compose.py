"""compose.yaml: what can be seen of it without docker."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

SERVICES = ["cockroach", "kafka", "redis", "elasticsearch", "clickhouse", "prometheus", "grafana"]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The file as docker would read it."""
    return yaml.safe_load(Path("compose.yaml").read_text())


def test_every_service_is_there_and_has_a_health_check(compose: dict[str, Any]) -> None:
    """So that `docker compose up --wait` knows when they are."""
    assert list(compose["services"]) == SERVICES
    for service in compose["services"].values():
        assert service["healthcheck"]["test"][0] == "CMD"
        assert service["healthcheck"]["retries"] >= 12


def test_every_port_is_bound_to_this_machine_alone_and_none_twice(compose: dict[str, Any]) -> None:
    """None of them asks for a password."""
    ports = [port for service in compose["services"].values() for port in service["ports"]]
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in ports)
    assert len({port.split(":")[1] for port in ports}) == len(ports)


def test_every_image_is_pinned_to_a_version(compose: dict[str, Any]) -> None:
    """No `latest`, and nothing that moves by itself within a month."""
    for service in compose["services"].values():
        assert re.fullmatch(r"[a-z./-]+:v?\d+\.\d+\.\d+(\.\d+)?", service["image"])


def test_every_volume_is_declared_and_every_file_that_is_mounted_exists(compose: dict[str, Any]) -> None:
    """Data in volumes that docker keeps, settings from the project, read only."""
    mounted = [volume for service in compose["services"].values() for volume in service["volumes"]]
    files = [volume for volume in mounted if volume.startswith("./")]
    assert {volume.split(":")[0] for volume in mounted if volume not in files} == set(compose["volumes"])
    for volume in files:
        assert volume.endswith(":ro")
        assert yaml.safe_load(Path(volume.split(":")[0]).read_text())


def test_what_is_scraped_and_shown_is_a_service_at_a_port_of_its_own(compose: dict[str, Any]) -> None:
    """A name that is misspelt would be an empty graph."""
    scraped = yaml.safe_load(Path("compose/prometheus.yml").read_text())["scrape_configs"]
    targets = [target for job in scraped for config in job["static_configs"] for target in config["targets"]]
    (shown,) = yaml.safe_load(Path("compose/grafana.yml").read_text())["datasources"]
    for address in [*targets, shown["url"].removeprefix("http://")]:
        host, _, port = address.partition(":")
        service = compose["services"][{"127.0.0.1": "prometheus"}.get(host, host)]
        assert port in [one.split(":")[2] for one in service["ports"]]
