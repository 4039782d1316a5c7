"""The parts that come with the core, registered the way a plugin does it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from avsep_zoo.hookspecs import hookimpl

if TYPE_CHECKING:
    from avsep_zoo.registry import Register


@hookimpl
def avsep_register(register: Register) -> None:
    """Register the core's front end and backbone."""
    register.front_end("stft", "avsep_zoo.front_end:StftFrontEnd", "STFT, optionally on a log-frequency axis")
    register.separator("mask_unet", "avsep_zoo.blocks.unet:MaskUNet", "Sound-of-Pixels U-Net with sigmoid masks")
