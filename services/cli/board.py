"""A small board of parts and what happens to them, live on a terminal, a line per change elsewhere."""

from __future__ import annotations

import time
from threading import Lock
from types import TracebackType

from rich.console import Console, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

_MARKS = {"ready": Text("●", "green"), "failed": Text("●", "red"), "stopped": Text("○", "dim")}


class Board:
    """Shows one row per part; may be told from several threads."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._rows: dict[str, tuple[str, str]] = {}
        self._since_s: dict[str, float] = {}
        self._spinner = Spinner("dots", style="cyan")
        self._lock = Lock()
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=8, transient=False)

    def tell(self, part: str, state: str, note: str = "") -> None:
        """Set what happens to a part; `state` is ready, failed, stopped, or any word for work going on."""
        with self._lock:
            is_news = self._rows.get(part, ("", ""))[0] != state
            if is_news:
                self._since_s[part] = time.monotonic()
            self._rows[part] = (state, note)
        if is_news and not self._console.is_terminal:
            self._console.print(f"{part:<16} {state} {note}".rstrip(), highlight=False)

    def __enter__(self) -> Board:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def _render(self) -> RenderableType:
        table = Table(box=None, show_header=False, padding=(0, 1), title=self._title, title_justify="left")
        with self._lock:
            rows = dict(self._rows)
        for part, (state, note) in rows.items():
            mark = _MARKS.get(state, self._spinner)
            waiting = "" if state in _MARKS else f"{time.monotonic() - self._since_s[part]:.0f} s"
            table.add_row(mark, Text(part, "bold"), state, Text(note or waiting, "dim"))
        return table
