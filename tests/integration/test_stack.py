"""The one-machine stack on its real servers: starts, heals, and leaves nothing behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request

import psutil
import pytest
from typer.testing import CliRunner

from services.cli.main import app
from services.domain.errors import BadRequest, StopProcess
from services.embedded import stack
from services.embedded.addresses import StackAddresses
from services.embedded.contents import s3_client
from services.embedded.home import is_free, load_state
from services.embedded.leftovers import marked_processes
from services.embedded.probes import LOOPBACK
from services.embedded.programs import shared_memory_prefix
from services.embedded.settings import EmbeddedSettings, inherited_environment
from services.embedded.stack import PartStatus
from tests.poll import poll_until

SERVERS = ("kafka", "redis", "s3", "triton", "ray")
_SHARED_MEMORY = Path("/dev/shm")
# Ray's twenty processes start in 10 s on two quiet cores, in a minute on busy ones.
pytestmark = [pytest.mark.real, pytest.mark.timeout(400)]
_BACK_DEADLINE_S = 180


@contextmanager
def own_home() -> Iterator[EmbeddedSettings]:
    """Give a home, and take down whatever a test left in it."""
    # A name that configuration files and command lines must quote.
    with tempfile.TemporaryDirectory(prefix="loupe 100% für ", ignore_cleanup_errors=True) as folder:
        settings = EmbeddedSettings(home=Path(folder), inference_units=2)
        try:
            yield settings
        finally:
            stack.down(settings)


@pytest.fixture(scope="module")
def running() -> Iterator[EmbeddedSettings]:
    """Return a home whose five servers run."""
    with own_home() as settings:
        stack.up(settings, only=SERVERS)
        yield settings


@pytest.fixture
def home() -> Iterator[EmbeddedSettings]:
    """Return an empty home."""
    with own_home() as settings:
        yield settings


def addresses(settings: EmbeddedSettings) -> StackAddresses:
    found = stack.running_stack(settings)
    assert found is not None
    return found


def part(settings: EmbeddedSettings, name: str) -> PartStatus:
    return next(one for one in stack.status(settings) if one.name == name)


def pids(settings: EmbeddedSettings) -> dict[str, int | None]:
    return {one.name: one.pid for one in stack.status(settings)}


def kill_supervisor(settings: EmbeddedSettings) -> None:
    pid = (settings.home_folder.runtime / "supervisord.pid").read_text()
    psutil.Process(int(pid)).send_signal(signal.SIGKILL)
    poll_until(lambda: stack.running_stack(settings) is None, deadline_s=5)


def assert_nothing_left(settings: EmbeddedSettings) -> None:
    assert marked_processes(settings.home_folder.stack_id) == []
    state = load_state(settings.home_folder)
    assert state is not None
    assert [name for name, port in state.ports.items() if not is_free(port)] == []
    assert not settings.home_folder.runtime.exists()
    assert list(_SHARED_MEMORY.glob(f"*{settings.home_folder.stack_id}*")) == []
    assert stack.running_stack(settings) is None
    assert stack.status(settings) == []


def test_status_tells_health_memory_port_and_version(running: EmbeddedSettings) -> None:
    found = {one.name: one for one in stack.status(running)}
    assert set(found) == set(SERVERS)
    for one in found.values():
        assert one.healthy, one
        assert one.pid is not None
        assert one.rss_mb > 1
        assert one.version
        assert not is_free(one.port)
        assert one.start_s is not None


def test_up_twice_changes_nothing(running: EmbeddedSettings) -> None:
    before = pids(running)
    assert stack.up(running, only=SERVERS) == addresses(running)
    assert pids(running) == before


def test_everything_listens_on_loopback_only(running: EmbeddedSettings) -> None:
    assert stack.foreign_listeners(running) == []


def test_secrets_are_readable_by_their_owner_alone(running: EmbeddedSettings) -> None:
    home = running.home_folder
    for path in (home.path / "state.json", home.ray_token, *home.config.iterdir()):
        assert path.stat().st_mode & 0o077 == 0, path


def test_objects_and_plain_files_are_the_same(running: EmbeddedSettings) -> None:
    at = addresses(running)
    client = s3_client(at.s3_endpoint, at.s3_key, at.s3_secret, at.s3_region)
    client.put_object(Bucket="loupe-models", Key="a/put.bin", Body=b"put")
    assert (at.objects / "loupe-models" / "a" / "put.bin").read_bytes() == b"put"
    (at.objects / "loupe-models" / "a" / "written.bin").write_bytes(b"written")
    assert client.get_object(Bucket="loupe-models", Key="a/written.bin")["Body"].read() == b"written"
    keys = [one["Key"] for one in client.list_objects_v2(Bucket="loupe-models", Prefix="a/")["Contents"]]
    assert keys == ["a/put.bin", "a/written.bin"]


def test_the_command_tells_other_programs_where_it_is(
    running: EmbeddedSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOUPE_HOME", str(running.home))
    lines = CliRunner().invoke(app, ["env"]).output.splitlines()
    assert f"export LOUPE_KAFKA_BOOTSTRAP={addresses(running).kafka_bootstrap}" in lines
    listed = json.loads(CliRunner().invoke(app, ["status", "--json"]).output)
    assert {part["name"] for part in listed} == set(SERVERS)
    assert {"name", "pid", "healthy", "port", "version", "rss_mb"} <= set(listed[0])


@pytest.mark.parametrize("name", SERVERS)
def test_a_killed_part_comes_back(running: EmbeddedSettings, name: str) -> None:
    before = part(running, name)
    assert before.pid is not None
    psutil.Process(before.pid).send_signal(signal.SIGKILL)

    def is_back() -> bool:
        now = part(running, name)
        return now.healthy and now.pid != before.pid

    poll_until(is_back, deadline_s=_BACK_DEADLINE_S, every_s=0.5, what=f"{name} restarted")


_MODEL = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        out = pb_utils.Tensor("OUT", np.zeros(1, np.float32))
        return [pb_utils.InferenceResponse([out]) for _ in requests]
"""
_MODEL_CONFIG = """
backend: "python"
input { name: "IN" data_type: TYPE_FP32 dims: [ 1 ] }
output { name: "OUT" data_type: TYPE_FP32 dims: [ 1 ] }
"""


def test_a_killed_tritonserver_leaves_no_shared_memory(home: EmbeddedSettings) -> None:
    at = stack.up(home, only=("triton",))
    (at.model_repository / "zero" / "1").mkdir(parents=True)
    (at.model_repository / "zero" / "config.pbtxt").write_text(_MODEL_CONFIG)
    (at.model_repository / "zero" / "1" / "model.py").write_text(_MODEL)
    load = Request(f"{at.triton_http}/v2/repository/models/zero/load", method="POST")
    with LOOPBACK.open(load, timeout=60) as answer:
        assert answer.status == 200
    regions = set(_SHARED_MEMORY.glob(f"{shared_memory_prefix(home.home_folder)}*"))
    assert regions
    before = part(home, "triton").pid
    assert before is not None
    psutil.Process(before).send_signal(signal.SIGKILL)
    poll_until(
        lambda: part(home, "triton").healthy and part(home, "triton").pid != before,
        deadline_s=_BACK_DEADLINE_S,
    )
    assert not regions & set(_SHARED_MEMORY.iterdir())


def test_two_homes_run_side_by_side(running: EmbeddedSettings, home: EmbeddedSettings) -> None:
    stack.up(home, only=("kafka", "redis"))
    other = addresses(home)
    assert other.kafka_bootstrap != addresses(running).kafka_bootstrap
    assert all(one.healthy for one in stack.status(home))
    stack.down(home)
    assert_nothing_left(home)
    assert all(one.healthy for one in stack.status(running))


def test_two_ups_at_once_make_one_stack(home: EmbeddedSettings) -> None:
    with ThreadPoolExecutor() as pool:
        ups = [pool.submit(stack.up, home, only=("redis", "triton")) for _ in range(2)]
        assert ups[0].result() == ups[1].result()
    servers = [one for one in marked_processes(home.home_folder.stack_id) if one.name() == "redis-server"]
    assert len(servers) == 1


def test_ports_and_credentials_are_kept(home: EmbeddedSettings) -> None:
    first = stack.up(home, only=("redis",))
    stack.down(home)
    assert stack.up(home, only=("redis",)) == first


def test_down_leaves_nothing(home: EmbeddedSettings) -> None:
    stack.up(home, only=("kafka", "redis", "s3", "triton"))
    assert stack.down(home) == 0
    assert_nothing_left(home)
    assert stack.down(home) == 0


def test_up_after_a_killed_supervisor_starts_anew(home: EmbeddedSettings) -> None:
    stack.up(home, only=("redis", "triton"))
    kill_supervisor(home)
    stack.up(home, only=("redis", "triton"))
    assert all(one.healthy for one in stack.status(home))
    servers = [one for one in marked_processes(home.home_folder.stack_id) if one.name() == "redis-server"]
    assert len(servers) == 1


def test_down_after_an_up_that_was_killed_leaves_nothing(home: EmbeddedSettings) -> None:
    environment = inherited_environment() | {"LOUPE_HOME": str(home.home)}
    command = [sys.executable, "-m", "services.cli.main", "up", "--only", "ray", "--only", "redis"]
    up = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    poll_until(lambda: len(marked_processes(home.home_folder.stack_id)) > 3, deadline_s=30)
    up.kill()
    up.wait(10)
    stack.down(home)
    assert_nothing_left(home)


def test_an_interrupted_up_takes_down_what_it_started(home: EmbeddedSettings) -> None:
    environment = inherited_environment() | {"LOUPE_HOME": str(home.home)}
    command = [sys.executable, "-m", "services.cli.main", "up", "--only", "ray", "--only", "redis"]
    # A background job of a shell may ignore SIGINT; this one must not.
    command = ["env", "--default-signal=INT", *command]
    up = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    poll_until(lambda: len(marked_processes(home.home_folder.stack_id)) > 3, deadline_s=30)
    up.send_signal(signal.SIGINT)
    assert up.wait(30) == 130
    assert_nothing_left(home)


def test_a_part_that_cannot_start_is_told_with_its_log(home: EmbeddedSettings) -> None:
    broken = home.home_folder.path / "kafka"
    broken.mkdir(parents=True)
    (broken / "meta.properties").write_text("version=1\ncluster.id=of-another-cluster\nnode.id=7\n")
    with pytest.raises(StopProcess, match=r"(?s)kafka dies while it starts.*node id") as failure:
        stack.up(home, only=("kafka", "redis"))
    assert failure.value.details["part"] == "kafka"
    assert_nothing_left(home)


def test_an_unknown_part_is_refused_by_name(home: EmbeddedSettings) -> None:
    with pytest.raises(BadRequest, match="no part is called zookeeper; there are kafka"):
        stack.up(home, only=("zookeeper",))


def test_a_home_that_never_was_up_is_quiet(home: EmbeddedSettings) -> None:
    assert stack.running_stack(home) is None
    assert stack.status(home) == []
    assert stack.down(home) == 0
    assert list(home.home.iterdir()) in ([], [home.home / "lock"])


def test_down_after_a_killed_supervisor_leaves_nothing(running: EmbeddedSettings) -> None:
    """The last test of this file: it ends the stack that the others share."""
    kill_supervisor(running)
    assert stack.down(running) >= len(SERVERS)
    assert_nothing_left(running)
