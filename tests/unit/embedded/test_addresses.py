"""The environment that processes find: fixed names, loopback only, no secret in what need not have it."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.embedded.addresses import (
    StackAddresses,
    addresses_of,
    exported_environment,
    process_environment,
)
from services.embedded.home import Home, State, prepare_state
from services.embedded.parts import Parts
from services.embedded.settings import inherited_environment


@pytest.fixture
def state(tmp_path: Path) -> State:
    return prepare_state(Home(tmp_path), units=2, is_running=False)


@pytest.fixture
def addresses(tmp_path: Path, state: State) -> StackAddresses:
    return addresses_of(Home(tmp_path), state, Parts(tmp_path / "parts"))


def test_processes_find_the_names_they_read(addresses: StackAddresses, state: State) -> None:
    environment = process_environment(addresses, state)
    wanted = {
        "LOUPE_HOME", "LOUPE_KAFKA_BOOTSTRAP", "LOUPE_REDIS_URL", "LOUPE_DATABASE_URL", "AWS_ENDPOINT_URL_S3",
        "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "LOUPE_TRITON_GRPC",
        "LOUPE_TRITON_REPOSITORY", "LOUPE_RAY_ADDRESS", "LOUPE_RAY_DASHBOARD_URL", "RAY_AUTH_MODE",
        "RAY_AUTH_TOKEN_PATH", "LOUPE_RESULTS_PORT", "LOUPE_TRAINER_PORT", "LOUPE_HOSTING_PORT",
        "LOUPE_GATEWAY_PORT", "LOUPE_INFERENCE_UNITS", "LOUPE_METRICS_URL",
    }  # fmt: skip
    assert wanted <= set(environment)
    assert environment["LOUPE_INFERENCE_UNITS"] == "2"


def test_every_address_is_loopback(addresses: StackAddresses, state: State) -> None:
    environment = process_environment(addresses, state)
    for name, value in environment.items():
        if ":" in value and "sqlite" not in value:
            assert "127.0.0.1:" in value, name


def test_env_exports_what_stock_clients_read(addresses: StackAddresses) -> None:
    assert list(exported_environment(addresses)) == [
        "LOUPE_KAFKA_BOOTSTRAP", "LOUPE_METRICS_URL", "LOUPE_INGEST_URL", "AWS_ENDPOINT_URL_S3",
        "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION",
    ]  # fmt: skip


def test_loopback_never_goes_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "intranet,127.0.0.1")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of another account")
    environment = inherited_environment()
    assert environment["no_proxy"] == "intranet,127.0.0.1,localhost"
    assert "127.0.0.1" in environment["NO_PROXY"]
    assert "PYTHONPATH" not in environment
    assert "AWS_SESSION_TOKEN" not in environment
