"""HTML pages that need no other file: the templates, and media as data URIs."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from typing import Any

from avsep_zoo.decibels import decibels
from avsep_zoo.errors import AvsepError

__all__ = ["COLOURS", "data_uri", "render_page"]

# Okabe and Ito, Color Universal Design (2008), without black and yellow.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")


def render_page(template: str, values: Mapping[str, Any]) -> str:
    """Render a template of the package; every value is escaped.

    Raises:
        AvsepError: the template engine is missing.
    """
    try:
        import jinja2
    except ImportError as error:
        raise AvsepError("A report needs jinja2; install it: pip install jinja2.") from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("avsep_zoo"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["decibels"] = decibels
    return environment.get_template(template).render(values)


def data_uri(kind: str, content: bytes) -> str:
    """Return ``content`` of the media type ``kind`` as the address of itself."""
    return f"data:{kind};base64,{b64encode(content).decode()}"
