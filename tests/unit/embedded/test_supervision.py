"""The supervisor's configuration says what the programs say, whatever characters are in them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from services.embedded.home import Home, prepare_state
from services.embedded.parts import Parts
from services.embedded.programs import OUR_PROCESSES, Program, programs_of
from services.embedded.supervision import Supervisor, last_words, supervisor_configuration


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "a home, 100%")


def program(**changes: object) -> Program:
    values: dict[str, object] = {
        "name": "one", "command": ("run", "it"), "is_ready": lambda: True, "port": 1, "version": "1",
    }  # fmt: skip
    return Program(**{**values, **changes})  # type: ignore[arg-type] # values of a test


def test_percent_signs_and_quotes_are_escaped(home: Home) -> None:
    words = ("/a b/server", "--rate=100%", '--json={"a": 1}')
    section = supervisor_configuration(home, [program(command=words)])["program:one"]
    assert section["command"] == r'"/a b/server" "--rate=100%%" "--json={\"a\": 1}"'


def test_every_program_carries_its_mark_and_restarts(home: Home) -> None:
    section = supervisor_configuration(home, [program(environment={"A": "1"})])["program:one"]
    assert section["environment"] == 'A="1",LOUPE_STACK_PART="one"'
    assert section["autorestart"] == "true"
    assert section["killasgroup"] == "true"


def test_nothing_listens_on_tcp(home: Home) -> None:
    sections = supervisor_configuration(home, [program()]).sections()
    assert "unix_http_server" in sections
    assert "inet_http_server" not in sections


def test_a_supervisor_that_is_not_there_is_not_alive(home: Home) -> None:
    supervisor = Supervisor(home)
    assert not supervisor.is_alive()
    assert supervisor.processes() == {}
    supervisor.shutdown()


def test_the_last_words_are_the_end_of_the_log(home: Home) -> None:
    home.logs.mkdir(parents=True)
    assert last_words(home, "one") == "(no log)"
    (home.logs / "one.log").write_text("\n".join(f"line {n}" for n in range(100)))
    assert last_words(home, "one").endswith("line 98\nline 99")
    assert "line 50" not in last_words(home, "one")


def test_programs_need_only_programs_that_exist(home: Home, tmp_path: Path) -> None:
    home.path.mkdir()
    programs = programs_of(home, prepare_state(home, units=3, is_running=False), Parts(tmp_path))
    for one in programs.values():
        assert set(one.after) <= {*programs, "database"}
    assert set(OUR_PROCESSES) <= set(programs)
    resources = next(word for word in programs["ray"].command if word.startswith("--resources="))
    assert json.loads(resources.removeprefix("--resources=")) == {"inference_unit": 3}
    main_ports = [one.port for one in programs.values()]
    assert len(set(main_ports)) == len(main_ports)
