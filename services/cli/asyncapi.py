"""`loupe asyncapi`: the document of all topics, for other people's programs and code generators."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def asyncapi(
    as_yaml: Annotated[bool, typer.Option("--yaml/--json", help="YAML, or JSON.")] = True,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it there.")
    ] = None,
) -> None:
    """Print the AsyncAPI 3.0 document: every topic, key, header and payload. Needs no stack.

    Example: `loupe asyncapi --json > loupe.json`
    """
    text = as_text(as_yaml=as_yaml)
    if output is None:
        typer.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")


def as_text(*, as_yaml: bool) -> str:
    """Return the document."""
    from services.wire.asyncapi import document

    if not as_yaml:
        return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"

    import yaml

    class Plain(yaml.SafeDumper):
        """Writes what stands in two places twice, instead of naming it once by an anchor."""

        def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the base class gives it
            return True

    def write_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)

    Plain.add_representer(str, write_text)
    text: str = yaml.dump(document(), Dumper=Plain, sort_keys=False, allow_unicode=True, width=110)
    return text
