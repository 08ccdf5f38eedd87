"""YAML files that people write or that ship with the package. Knows no schema of them."""

from collections.abc import Hashable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from pydantic import ValidationError


def read_yaml(path: Path) -> Any:
    """The value that a YAML file holds; a repeated key raises yaml.YAMLError, as YAML has it."""
    return yaml.load(path.read_text(encoding="utf-8"), _EachKeyOnce)  # rule-ok: SafeLoader


class _EachKeyOnce(yaml.SafeLoader):
    """PyYAML alone would silently take the last of repeated keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value]
        for number, (key, _) in enumerate(node.value):
            if key.value in keys[:number]:
                raise yaml.MarkedYAMLError(
                    problem=f"key {key.value} twice", problem_mark=key.start_mark
                )
        return super().construct_mapping(node, deep)


def shipped(folder: str) -> dict[str, Path]:
    """Files below `folder` by name, e.g. `demo/tiny`: from the wheel, or the checkout it is
    installed from."""
    package = Path(str(files("clare_cache")))
    for found in (package / folder, package.parent / folder):
        if found.is_dir():
            return {
                path.relative_to(found).with_suffix("").as_posix(): path
                for path in sorted(found.rglob("*.yaml"))
            }
    return {}


def faults_of(error: "ValidationError", *, whole: str) -> list[str]:
    """One sentence for each fault, after its place in the file; `whole` names the file itself."""
    return [
        f"{'.'.join(map(str, fault['loc'])) or whole}: {_spoken(fault)}" for fault in error.errors()
    ]


def _spoken(fault: Mapping[str, Any]) -> str:
    if fault["type"] == "extra_forbidden":
        return "unknown key; remove it or correct its spelling"
    if fault["type"] == "missing":
        return "required, found nothing"
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "value_error":
        return "; ".join(line.strip().removeprefix("- ") for line in message.splitlines())
    return f"{message}, found {fault['input']!r}"
