"""Addresses of films and cameras, with and without passwords."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

import pytest

from services.domain.errors import BadRequest
from services.ingest.video_child.job import Job, job_of

SECRET = "line 3:p@ss:w/rd%20"


def test_the_secret_is_in_the_url_alone() -> None:
    job = job_of("rtsp://camera-3:8554/main?x=1", SECRET)
    parts = urlsplit(job.url)
    assert (unquote(parts.username or ""), unquote(parts.password or "")) == ("line 3", "p@ss:w/rd%20")
    assert (parts.hostname, parts.port, parts.path, parts.query) == ("camera-3", 8554, "/main", "x=1")
    assert job.shown == "rtsp://camera-3:8554/main?x=1"
    assert "p@ss" not in repr(job)
    assert "p%40ss" not in repr(job)


def test_a_password_in_the_address_is_used_and_not_shown() -> None:
    job = job_of("http://admin:hunter2@camera/stream")
    assert job.url == "http://admin:hunter2@camera/stream"
    assert job.shown == "http://camera/stream"
    assert "hunter2" not in repr(job)


@pytest.mark.parametrize(
    ("address", "url", "is_live", "name"),
    [
        ("films/line.mp4", "file:films/line.mp4", False, "line.mp4"),
        ("/films/a:b.avi", "file:/films/a:b.avi", False, "a:b.avi"),
        ("usb:/dev/video0", "/dev/video0", True, "video0"),
        ("RTSP://camera/1", "rtsp://camera/1", True, "rtsp"),
        ("https://camera/1.m3u8", "https://camera/1.m3u8", True, "https"),
    ],
)
def test_addresses_are_understood(address: str, url: str, is_live: bool, name: str) -> None:
    job = job_of(address)
    assert (job.url, job.is_live, job.name) == (url, is_live, name)
    assert Job.from_json(job.to_json()) == job


@pytest.mark.parametrize(
    "address",
    [
        "ftp://camera/1",
        "rtsp://",
        "rtsp:///path",
        "rtsp://camera:port/",
        "rtsp://[::1/",
        "usb:video0",
        "usb:",
    ],
)
def test_what_can_never_be_read_is_refused_without_the_password(address: str) -> None:
    with pytest.raises(BadRequest) as caught:
        job_of(address, SECRET)
    assert "p@ss" not in str(caught.value)


def test_a_secret_without_a_colon_is_refused_without_showing_it() -> None:
    with pytest.raises(BadRequest, match="no colon") as caught:
        job_of("rtsp://camera/1", "hunter2")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_rates_are_refused(fps: float) -> None:
    with pytest.raises(BadRequest, match="above 0"):
        job_of("film.mp4", fps=fps)
