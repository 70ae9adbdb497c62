"""Ray's REST door, played by a server of the standard library."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from services.domain.errors import BadSettings, ModelUnavailable, Rejected
from services.hosting.serve_api import RestServeApi


class Head(BaseHTTPRequestHandler):
    """Asks for the token `secret`, takes configurations without `bad`."""

    taken: list[object]

    def do_GET(self) -> None:
        self._answer(*((200, '{"applications": {}}') if self._is_known() else (401, "Unauthorized")))

    def do_PUT(self) -> None:
        config = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "bad" in config:
            self._answer(400, "ValidationError:\n bad")
            return
        type(self).taken.append(config)
        self._answer(200, "")

    def _is_known(self) -> bool:
        return self.path == "/api/serve/applications/" and self.headers["Authorization"] == "Bearer secret"

    def _answer(self, status: int, body: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    Head.taken = []
    server = HTTPServer(("127.0.0.1", 0), Head)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("secret\n")
    return path


def test_reads_and_puts_with_the_token(url: str, token: Path) -> None:
    api = RestServeApi(url, token)
    assert api.details() == {"applications": {}}
    api.put({"applications": []})
    assert Head.taken == [{"applications": []}]
    api.close()


def test_a_renewed_token_is_read_again(url: str, token: Path) -> None:
    token.write_text("old")
    api = RestServeApi(url, token)
    with pytest.raises(ModelUnavailable, match="401"):
        api.details()
    token.write_text("secret")
    assert api.details() == {"applications": {}}
    api.close()


def test_a_refused_configuration_says_why(url: str, token: Path) -> None:
    api = RestServeApi(url, token)
    with pytest.raises(Rejected, match="does not take the configuration: ValidationError: bad"):
        api.put({"bad": 1})
    api.close()


def test_a_head_that_is_away_is_transient(token: Path) -> None:
    api = RestServeApi("http://127.0.0.1:9", token)
    with pytest.raises(ModelUnavailable, match="does not answer"):
        api.details()
    api.close()


def test_a_missing_token_file_is_named(url: str, tmp_path: Path) -> None:
    api = RestServeApi(url, tmp_path / "nothing")
    with pytest.raises(BadSettings, match="nothing"):
        api.details()
    api.close()
