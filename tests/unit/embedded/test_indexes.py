"""pip's indexes reach uv, unless uv has its own."""

from __future__ import annotations

from services.embedded.indexes import translated, uv_environment


def test_pip_settings_become_uvs() -> None:
    listed = (
        "global.index-url='https://one.example/simple'\n"
        "global.extra-index-url='\\nhttps://two.example/simple\\nhttps://three.example/simple'\n"
        "global.find-links='\\n/a\\n/b'\n"
        "global.timeout='60'\n"
    )
    assert translated(listed) == {
        "UV_DEFAULT_INDEX": "https://one.example/simple",
        "UV_INDEX": "https://two.example/simple https://three.example/simple",
        "UV_FIND_LINKS": "/a,/b",
    }


def test_the_environment_wins_over_files() -> None:
    listed = ":env:.index-url='https://env.example'\nglobal.index-url='https://file.example'\n"
    assert translated(listed) == {"UV_DEFAULT_INDEX": "https://env.example"}


def test_settings_of_other_commands_are_not_taken() -> None:
    assert translated("download.index-url='https://one.example'\n") == {}


def test_uvs_own_setting_is_left_alone() -> None:
    assert uv_environment({"UV_DEFAULT_INDEX": "https://mine.example"}) == {}
