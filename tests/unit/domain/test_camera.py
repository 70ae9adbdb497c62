"""What may be shown of a source: passwords among its parameters are blotted out, folders stay as they are."""

from __future__ import annotations

import pytest

from services.domain.camera import shown_source


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("http://10.0.0.7/mjpg?user=admin&pwd=hush", "http://10.0.0.7/mjpg?user=admin&pwd=***"),
        ("rtsp://h/x?Password=a%20b&channel=1", "rtsp://h/x?Password=***&channel=1"),
        ("https://h/x?access_token=abc#t", "https://h/x?access_token=***#t"),
        ("rtsp://h/live?channel=1", "rtsp://h/live?channel=1"),
        ("/data/pass=1", "/data/pass=1"),
    ],
)
def test_passwords_among_parameters_are_blotted_out(source: str, shown: str) -> None:
    assert shown_source(source) == shown
