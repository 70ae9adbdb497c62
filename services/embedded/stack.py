"""Up, down, status: the one-machine stack as callers see it.

`up` returns when every part works; `down` leaves no process, port or shared memory behind, whatever
happened before. Both hold the home's lock, so two of them wait for each other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import psutil

from services.domain.errors import BadRequest
from services.embedded.addresses import StackAddresses, addresses_of, process_environment
from services.embedded.bringup import BringUp, OnEvent, Phase, StackEvent
from services.embedded.home import Home, load_state, prepare_state, save_state
from services.embedded.leftovers import marked_processes, remove_shared_memory, sweep
from services.embedded.parts import Parts
from services.embedded.programs import Program, programs_of, shared_memory_prefix
from services.embedded.settings import EmbeddedSettings, inherited_environment
from services.embedded.shutdown import stop_programs
from services.embedded.supervision import ProcessInfo, Supervisor

__all__ = [
    "OnEvent", "PartStatus", "Phase", "StackAddresses", "StackEvent",
    "down", "foreign_listeners", "running_stack", "status", "up",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class PartStatus:
    """Health of one part.

    Attributes:
        pid: main process, None when it does not run.
        healthy: its probe was answered just now.
        rss_mb: memory of its process tree in MB; shared pages count by share where the kernel tells.
        start_s: seconds from start to ready at the last `up`.
    """

    name: str
    pid: int | None
    healthy: bool
    port: int
    version: str
    rss_mb: float
    start_s: float | None


def ignore_event(_: StackEvent) -> None:
    """Tell nobody."""


def running_stack(settings: EmbeddedSettings) -> StackAddresses | None:
    """Return the addresses of the home's stack, None when it does not run. Cheap; asks no server."""
    home = settings.home_folder
    state = load_state(home)
    if state is None or not Supervisor(home).is_alive():
        return None
    return addresses_of(home, state, Parts(settings.parts_dir))


def up(
    settings: EmbeddedSettings, *, only: Collection[str] | None = None, on_event: OnEvent = ignore_event
) -> StackAddresses:
    """Start the stack and return when every part works; harmless when it runs.

    Blocks while another `up` or `down` works on the same home.

    Args:
        settings: home, parts and inference units.
        only: parts to start, None for all.
        on_event: told of every part's progress, from several threads.

    Raises:
        MissingPart: set-up has not been run.
        BadRequest: `only` names an unknown part.
        StopProcess: a part did not start; the stack is taken down again unless it ran before.
    """
    home, parts = settings.home_folder, Parts(settings.parts_dir)
    parts.require()
    with home.lock():
        supervisor = Supervisor(home)
        was_running = supervisor.is_alive()
        if not was_running:
            _sweep(home)
        home.make()
        state = prepare_state(home, units=settings.inference_units, is_running=was_running)
        programs = programs_of(home, state, parts)
        chosen = _chosen(programs, only)
        addresses = addresses_of(home, state, parts)
        try:
            if not was_running:
                environment = inherited_environment() | process_environment(addresses, state)
                supervisor.start(programs.values(), environment)
            took_s = BringUp(home, supervisor, chosen, on_event).run()
        except BaseException:
            if not was_running:
                _take_down(home, addresses, on_event)
            raise
        save_state(home, replace(state, start_s={**state.start_s, **took_s}))
    return addresses


def down(settings: EmbeddedSettings, *, on_event: OnEvent = ignore_event) -> int:
    """Stop the stack; harmless when it does not run.

    Returns:
        How many processes of a crashed stack had to be ended.
    """
    home = settings.home_folder
    if not home.path.is_dir():
        # Somebody may have removed the folder of a running stack; its processes carry the mark.
        return _sweep(home)
    with home.lock():
        state = load_state(home)
        if state is None:
            return _sweep(home)
        return _take_down(home, addresses_of(home, state, Parts(settings.parts_dir)), on_event)


def status(settings: EmbeddedSettings) -> list[PartStatus]:
    """Return the health of every part that was started; empty when the stack does not run."""
    home, parts = settings.home_folder, Parts(settings.parts_dir)
    state = load_state(home)
    infos = Supervisor(home).processes()
    if state is None or not infos:
        return []
    started = [
        (program, infos[name])
        for name, program in programs_of(home, state, parts).items()
        if name in infos and infos[name].started_unix_s
    ]
    with ThreadPoolExecutor(max_workers=len(started) or 1) as pool:
        healthy = list(pool.map(lambda pair: pair[0].is_ready(), started))
    return [
        PartStatus(
            name=program.name,
            pid=info.pid,
            healthy=is_healthy and info.pid is not None,
            port=program.port,
            version=program.version,
            rss_mb=round(_memory_bytes(info.pid) / 1e6, 1),
            start_s=state.start_s.get(program.name),
        )
        for (program, info), is_healthy in zip(started, healthy, strict=True)
    ]


def foreign_listeners(settings: EmbeddedSettings) -> list[tuple[str, str, int]]:
    """Return (process, address, port) of the stack's sockets that listen beyond loopback."""
    found = []
    for process in marked_processes(settings.home_folder.stack_id):
        try:
            name, connections = process.name(), process.net_connections(kind="tcp")
        except psutil.Error:
            continue
        for one in connections:
            if one.status == psutil.CONN_LISTEN and not _is_loopback(one.laddr.ip):
                found.append((name, one.laddr.ip, one.laddr.port))
    return found


def _is_loopback(address: str) -> bool:
    return address == "::1" or address.removeprefix("::ffff:").startswith("127.")


def _chosen(programs: Mapping[str, Program], only: Collection[str] | None) -> dict[str, Program]:
    if only is None:
        return dict(programs)
    if unknown := set(only) - set(programs):
        raise BadRequest(f"no part is called {', '.join(sorted(unknown))}; there are {', '.join(programs)}")
    return {name: program for name, program in programs.items() if name in only}


def _take_down(home: Home, addresses: StackAddresses, on_event: OnEvent) -> int:
    supervisor = Supervisor(home)
    infos = supervisor.processes()
    running = [name for name, info in infos.items() if _is_in_use(info)]
    stop_programs(supervisor, running, addresses, lambda name: on_event(StackEvent(name, Phase.STOPPED)))
    supervisor.shutdown()
    swept = _sweep(home)
    home.remove_runtime()
    return 0 if infos else swept


def _is_in_use(info: ProcessInfo) -> bool:
    return info.state not in {"STOPPED", "EXITED", "FATAL"}


def _sweep(home: Home) -> int:
    """End what a crashed run left behind, then remove its shared memory."""
    swept = sweep(home.stack_id)
    remove_shared_memory(shared_memory_prefix(home))
    return swept


def _memory_bytes(pid: int | None) -> int:
    """Return the memory of a process and all below it."""
    total = 0
    try:
        root = psutil.Process(pid) if pid else None
        processes = [root, *root.children(recursive=True)] if root else []
    except psutil.Error:
        return 0
    for process in processes:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total
