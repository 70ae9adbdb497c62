"""What a video source does before any process is started, and what it tells when its process fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.domain.errors import BadRequest
from services.ingest.sources.video import VideoSource, is_film


def test_a_source_never_shows_its_secret() -> None:
    source = VideoSource("rtsp://camera/1", secret="admin:hunter2")
    assert "hunter2" not in repr(source)
    assert "hunter2" not in str(vars(source))


@pytest.mark.parametrize(("address", "secret"), [("gopher://camera/1", None), ("rtsp://camera/1", "hunter2")])
def test_what_can_never_be_read_is_refused_at_once(address: str, secret: str | None) -> None:
    with pytest.raises(BadRequest) as caught:
        VideoSource(address, secret=secret)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(("name", "expected"), [("a.MP4", True), ("a.jpg", False), ("a", False)])
def test_films_are_told_by_their_names(name: str, expected: bool) -> None:
    assert is_film(Path(name)) is expected
