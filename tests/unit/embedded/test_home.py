"""Homes: ports that do not collide, state that is kept and private."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.domain.errors import BadSettings
from services.embedded.home import (
    PORT_NAMES,
    Home,
    cluster_id_of,
    free_ports,
    is_free,
    load_state,
    prepare_state,
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server


def test_every_home_has_its_own_id_and_runtime_folder() -> None:
    one, other = Home(Path("/a/.loupe")), Home(Path("/b/.loupe"))
    assert one.stack_id != other.stack_id
    assert one.runtime != other.runtime


def test_unix_sockets_fit_however_deep_the_home_is() -> None:
    deep = Home(Path("/" + "/".join(["folder"] * 40)))
    # Ray: <temp>/session_2026-11-21_10-32-39_123456_1234567/sockets/plasma_store
    longest = deep.runtime / "ray" / "session_2026-11-21_10-32-39_123456_1234567" / "sockets" / "plasma_store"
    assert len(str(longest)) < 107


def test_a_first_state_has_distinct_free_ports_for_every_name(home: Home) -> None:
    state = prepare_state(home, units=3, is_running=False)
    assert set(state.ports) == set(PORT_NAMES)
    assert len(set(state.ports.values())) == len(PORT_NAMES)
    assert all(is_free(port) for port in state.ports.values())
    assert state.units == 3


def test_state_and_token_are_kept_and_private(home: Home) -> None:
    first = prepare_state(home, units=1, is_running=False)
    token = home.ray_token.read_text()
    assert prepare_state(home, units=1, is_running=False) == first
    assert load_state(home) == first
    assert home.ray_token.read_text() == token
    for path in (home.path / "state.json", home.ray_token):
        assert path.stat().st_mode & 0o077 == 0


def test_a_port_taken_meanwhile_is_replaced_and_the_others_stay(home: Home) -> None:
    first = prepare_state(home, units=1, is_running=False)
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", first.ports["kafka"]))
        squatter.listen()
        second = prepare_state(home, units=1, is_running=False)
        running = prepare_state(home, units=1, is_running=True)
    changed = {name for name in PORT_NAMES if second.ports[name] != first.ports[name]}
    assert changed == {"kafka"}
    assert second.ports["kafka"] not in first.ports.values()
    assert running.ports == second.ports


def test_a_running_stack_keeps_its_units(home: Home) -> None:
    prepare_state(home, units=2, is_running=False)
    assert prepare_state(home, units=5, is_running=True).units == 2
    assert prepare_state(home, units=5, is_running=False).units == 5


def test_a_listening_port_is_not_free(listener: socket.socket) -> None:
    assert not is_free(listener.getsockname()[1])


def test_free_ports_stay_below_the_ephemeral_range() -> None:
    assert all(20000 <= port < 32768 for port in free_ports(50, seed="any"))


def test_a_comma_in_the_home_is_refused() -> None:
    with pytest.raises(BadSettings, match="comma"):
        Home(Path("/tmp/a,b")).make()


def test_a_cluster_id_is_never_taken_for_an_option() -> None:
    # The first six bits 62 are a dash in this alphabet.
    assert cluster_id_of(bytes([62 << 2]) + bytes(15)) == "A" + "A" * 21
    assert cluster_id_of(bytes(16)) == "A" * 22
