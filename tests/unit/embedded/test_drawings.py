"""What drawings of photos are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.embedded.drawings import names_of


@pytest.mark.parametrize(
    ("photos", "names"),
    [
        (["a.jpg", "line/b.png"], ["a", "b"]),
        # Equal stems keep their folders, below what they have in common; the others stay as they are.
        (["set/good/1.jpg", "set/bad/1.jpg", "set/bad/2.jpg"], ["good/1", "bad/1", "2"]),
        (["set/1.jpg", "set/bad/1.jpg"], ["1", "bad/1"]),
        (["set/1.jpg", "set/1.png"], ["1.jpg", "1.png"]),
        # A dot is part of a stem.
        (["v1.2.jpg"], ["v1.2"]),
        (["a.jpg", "a.jpg"], ["a", "a"]),
    ],
)
def test_photos_keep_their_names_and_their_folders_where_they_have_to(
    photos: list[str], names: list[str]
) -> None:
    found = names_of([Path(one) for one in photos])
    assert [str(found[Path(one)]) for one in photos] == names


def test_links_are_called_by_where_they_lie(tmp_path: Path) -> None:
    photos = [tmp_path / line / "x.jpg" for line in ("a", "b")]
    for number, photo in enumerate(photos):
        photo.parent.mkdir()
        photo.symlink_to(tmp_path / "store" / f"{number}.jpg")
    found = names_of(photos)
    assert [found[photo] for photo in photos] == [Path("a/x"), Path("b/x")]
