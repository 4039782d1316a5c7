"""A new method's plugin package, made of templates: ``avsep new``."""

from __future__ import annotations

from avsep_zoo.scaffold.names import Names
from avsep_zoo.scaffold.write import files, write_package

__all__ = ["Names", "files", "write_package"]
