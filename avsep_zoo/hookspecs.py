"""The hook a plugin implements, and the markers to do it with.

A plugin is any module or object with a function marked ``@avsep_zoo.hookimpl``::

    import avsep_zoo

    @avsep_zoo.hookimpl
    def avsep_register(register):
        register.separator("mine.unet", "my_package.separator:MyUNet", "U-Net with ...")
        register.method(avsep_zoo.Recipe("mine", ...))

Only names and lazy targets are handed over: listing imports neither torch nor the classes behind the names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from avsep_zoo.registry import Register

__all__ = ["API_VERSION", "PROJECT", "hookimpl", "hookspec"]

PROJECT = "avsep_zoo"
API_VERSION = 1
"""Version of hook and contracts. A plugin may declare ``avsep_zoo_api = 1``; a newer one is refused."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def avsep_register(register: Register) -> None:
    """Register parts and recipes by calling the methods of ``register``.

    Called once per plugin. An exception here takes back everything this plugin registered and is reported
    under its name; other plugins are not affected.
    """
