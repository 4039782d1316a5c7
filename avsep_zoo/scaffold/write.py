"""From templates to a package on the disk: all of its files, or none."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from string import Template

from avsep_zoo import API_VERSION, __version__
from avsep_zoo.errors import PluginError
from avsep_zoo.replaced import part_name, remove, write_text
from avsep_zoo.scaffold.names import Names

__all__ = ["files", "write_package"]

_MODULES = ("plugin", "encoder", "conditioner", "separator", "objective", "convert")


def files(names: Names) -> dict[str, str]:
    """Return the text of every file of a new method's package by its path there."""
    source = f"src/{names.package}"
    templates = {
        "pyproject.toml": "pyproject",
        ".gitignore": "gitignore",
        f"{source}/__init__.py": "package",
        f"{source}/py.typed": "typed",
        **{f"{source}/{module}.py": module for module in _MODULES},
        f"{source}/cards/TEMPLATE.md": "card",
        f"tests/test_{names.method}.py": "tests",
        "README.md": "readme",
    }
    major, minor = map(int, re.findall(r"\d+", __version__)[:2])
    words = {
        "method": names.method,
        "distribution": names.distribution,
        "package": names.package,
        "classes": names.classes,
        "api": str(API_VERSION),
        "zoo": f">={major}.{minor},<{major}.{minor + 2}",  # what is announced to go still works for one minor version
    }
    folder = resources.files("avsep_zoo.scaffold") / "templates"
    return {
        path: Template((folder / f"{template}.txt").read_text(encoding="utf-8")).substitute(words)
        for path, template in templates.items()
    }


def write_package(names: Names, folder: Path) -> list[str]:
    """Write the package of a new method into a folder that is not there yet.

    Returns:
        The paths of its files in the folder.

    Raises:
        PluginError: the folder is there already.
        OSError: it cannot be written; nothing is left of it then.
    """
    if folder.exists() or folder.is_symlink():
        raise PluginError(
            f"There is {str(folder)!r} already, and nothing in it is changed; name another folder with -o, or move it."
        )
    written = files(names)
    part = part_name(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove(part)
    try:
        for path, text in written.items():
            write_text(part / path, text)
        part.rename(folder)
    finally:
        remove(part)
    return list(written)
