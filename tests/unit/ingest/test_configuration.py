"""What people write about cameras: passwords come out of addresses, whatever they hold."""

from __future__ import annotations

import pytest

from services.domain.errors import BadRequest
from services.ingest.configuration import split_secret


@pytest.mark.parametrize(
    ("text", "address", "secret"),
    [
        ("rtsp://ann:hush@host:554/live", "rtsp://host:554/live", "ann:hush"),
        ("rtsp://ann:hu%2Fsh%40@host/live?a=b", "rtsp://host/live?a=b", "ann:hu/sh@"),
        ("rtsp://ann:hu@sh@host/live", "rtsp://host/live", "ann:hu@sh"),
        ("rtsp://[::1]:554/live", "rtsp://[::1]:554/live", None),
        ("rtsp://host/a@b", "rtsp://host/a@b", None),
        ("/data/line-1", "/data/line-1", None),
    ],
)
def test_a_password_is_taken_out_of_an_address(text: str, address: str, secret: str | None) -> None:
    assert split_secret(text) == (address, secret)


@pytest.mark.parametrize("password", ["hu/sh", "12/34", "12#34", "12?34", "hu#sh"])
def test_a_password_whose_end_cannot_be_told_is_refused_and_not_repeated(password: str) -> None:
    with pytest.raises(BadRequest, match="%2F") as refused:
        split_secret(f"rtsp://ann:{password}@host/live")
    assert "ann" not in refused.value.message
    assert password not in refused.value.message
