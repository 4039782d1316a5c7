"""The front matter of a card's README: YAML between two lines of ``---``, read so that it cannot do harm."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from avsep_zoo.errors import WeightsError

__all__ = ["FrontMatter", "read_front_matter"]

_FRONT = re.compile(r"\A---\n(.*?)\n---\n(.*)\Z", re.DOTALL)
_MOST_VALUES = 100_000


@dataclass(frozen=True)
class FrontMatter:
    """What was read.

    Args:
        values: the YAML, whatever it is; None where it is empty.
        text: Markdown below it.
        twice: a sentence for every key that a mapping has twice; YAML silently takes the last one.
    """

    values: Any
    text: str
    twice: tuple[str, ...]


def read_front_matter(folder: Path) -> FrontMatter:
    """Read the front matter of ``README.md`` in a folder.

    Raises:
        WeightsError: there is no such file, it has none, or none that can be read; or its anchors unfold to far more
            than is written.
    """
    file = folder / "README.md"
    try:
        match = _FRONT.match(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = " ".join(str(error).split())
        raise WeightsError(
            f"The card {str(file)!r} cannot be read ({why}); give the folder of a weights card, in UTF-8."
        ) from error
    if match is None:
        raise WeightsError(
            f"The card {str(file)!r} has no front matter; a weights card has YAML between two lines of --- at its very "
            "beginning."
        )
    loader = yaml.SafeLoader(match[1])
    try:
        node = loader.get_single_node()
        if _unfolded(node) > _MOST_VALUES:
            raise WeightsError(
                f"The anchors in the front matter of {str(file)!r} unfold to far too many values; write the values "
                "themselves."
            )
        values = loader.construct_document(node) if node is not None else None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        why = " ".join(str(error).split())
        raise WeightsError(f"The front matter of {str(file)!r} is no YAML ({why}); correct it.") from error
    return FrontMatter(values, match[2], tuple(_duplicates(node)))


def _unfolded(root: Any) -> float:
    """How many values a node and those in it are, each as often as it is named; infinite for one that holds itself."""
    sizes: dict[int, float] = {}

    def size(node: Any) -> float:
        if id(node) not in sizes:
            sizes[id(node)] = math.inf  # until it is known
            inner = node.value if isinstance(node, yaml.CollectionNode) else ()
            below = (one for entry in inner for one in (entry if isinstance(entry, tuple) else (entry,)))
            sizes[id(node)] = 1 + sum(map(size, below))
        return sizes[id(node)]

    return size(root)


def _duplicates(root: Any) -> Iterator[str]:
    """Give the keys that a mapping has twice."""
    waiting: list[Any] = [root]
    seen: set[int] = set()
    while waiting:
        node = waiting.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            lines: dict[str, int] = {}
            for key, value in node.value:
                line = key.start_mark.line + 2  # the front matter begins in the second line
                if isinstance(key, yaml.ScalarNode) and (first := lines.setdefault(key.value, line)) != line:
                    yield f"The key {key.value!r} of line {line} is in line {first} already; keep one of them."
                waiting.append(value)
