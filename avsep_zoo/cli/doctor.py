"""``avsep doctor``: look at everything the zoo needs from this machine, and say what to do about the rest."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from avsep_zoo import __version__
from avsep_zoo.cli.terminal import busy, print_json, print_table
from avsep_zoo.errors import AvsepError

if TYPE_CHECKING:
    from avsep_zoo.weights.cards import Card

__all__ = ["Check", "doctor"]

_PACKAGES = (
    "accelerate", "einops", "filelock", "huggingface-hub", "jinja2", "numpy", "pillow", "pluggy", "pyyaml", "rich",
    "safetensors", "scipy", "soundfile", "soxr", "typer",
)  # fmt: skip
_OPTIONAL = {
    "data": (("h5py",), "data sets with HDF5 files (asiw)"),
    "detect": (("torchvision", "transformers"), "detectors and motion networks of 'avsep prepare'"),
    "train": (("peft", "tensorboard"), "'avsep train' with --lora or tensorboard=true"),
}
"""Extra of ``pyproject.toml`` -> its packages, and what needs them; ``_tools`` looks at those of ``synth``."""
_DECODERS = ("h264", "hevc", "vp9", "mpeg4", "aac", "mp3", "vorbis", "opus", "flac", "pcm_s16le")
_ENCODERS = ("libx264", "aac")
_FREE_BYTES = 2**30


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Args:
        name: what.
        status: ``ok``, ``warn`` (something optional is missing) or ``fail``.
        found: what is there.
        advice: what to do, empty for ``ok``.
    """

    name: str
    status: Literal["ok", "warn", "fail"]
    found: str
    advice: str = ""


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the checks as JSON.")] = False,
) -> None:
    """Check what the zoo needs from this machine.

    Versions, devices, codecs, plugins, weights, tools, folders. Exit code 1 if a check fails.
    """
    with busy("Looking"):
        checks = [check for look in _LOOKS for check in look()]
    failed = any(check.status == "fail" for check in checks)
    if as_json:
        print_json([asdict(check) for check in checks])
        raise typer.Exit(int(failed))
    from rich.text import Text

    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    rows = []
    for check in checks:
        found = Text.assemble(check.found, (f"\n-> {check.advice}" if check.advice else "", "bold"))
        rows.append((Text(check.status, style=colours[check.status]), check.name, found))
    print_table(("", "", ""), rows)
    raise typer.Exit(int(failed))


def _versions() -> Iterator[Check]:
    from avsep_zoo.plugins import checkout_root

    root = checkout_root()
    where = f"checkout {root}" if root else f"installed in {Path(__file__).resolve().parents[1]}"
    yield Check("python", "ok", f"{platform.python_version()} on {platform.platform()}")
    yield Check("avsep-zoo", "ok", f"{__version__}, {where}")
    found, missing = _installed(_PACKAGES)
    if missing:
        yield Check("packages", "fail", f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    else:
        yield Check("packages", "ok", ", ".join(found))
    for extra, (names, needed) in _OPTIONAL.items():
        found, missing = _installed(names)
        if missing:
            lacking = f"missing: {', '.join(missing)}, for {needed} only"
            yield Check(f"extra {extra}", "warn", lacking, f"pip install {' '.join(missing)}")
        else:
            yield Check(f"extra {extra}", "ok", f"{', '.join(found)}, for {needed}")


def _installed(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Packages that are installed, with their versions, and those that are not."""
    found, missing = [], []
    for name in names:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    return found, missing


def _devices() -> Iterator[Check]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Check("torch", "fail", f"cannot be imported ({error})", "pip install --force-reinstall torch")
        return
    yield Check("torch", "ok", torch.__version__)
    yield Check("cpu", "ok", f"{torch.get_num_threads()} of {os.cpu_count()} cores in use")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            card = torch.cuda.get_device_properties(index)
            yield Check("cuda", "ok", f"{card.name}, {card.total_memory / 2**30:.0f} GiB")
    else:
        yield Check("cuda", "ok", "none; everything runs on the CPU")
    if torch.backends.mps.is_available():
        yield Check("mps", "ok", "there, but not used")


def _codecs() -> Iterator[Check]:
    try:
        import av
    except (ImportError, OSError) as error:
        yield Check("ffmpeg", "fail", f"PyAV cannot be imported ({error})", "pip install --force-reinstall av")
        return
    yield Check("ffmpeg", "ok", f"{av.ffmpeg_version_info} in PyAV {av.__version__}")
    yield _codec_check("decoders", _DECODERS, "r", "files with them cannot be read")
    yield _codec_check("encoders", _ENCODERS, "w", "'avsep synth' needs them")
    import soundfile

    version = f"libsndfile {soundfile.__libsndfile_version__}"
    if "MP3" in soundfile.available_formats():
        yield Check("report audio", "ok", f"MP3 by {version}")
    else:
        yield Check("report audio", "warn", f"{version} has no MP3", "pip install -U soundfile, or use --no-report")


def _codec_check(what: str, names: Sequence[str], mode: Literal["r", "w"], needed: str) -> Check:
    missing = [name for name in names if not _has_codec(name, mode)]
    if missing:
        return Check(what, "warn", f"missing: {', '.join(missing)}", f"{needed}; pip install PyAV's wheel")
    return Check(what, "ok", ", ".join(names))


def _has_codec(name: str, mode: Literal["r", "w"]) -> bool:
    from av.codec import Codec
    from av.codec.codec import UnknownCodecError

    try:
        Codec(name, mode)
    except UnknownCodecError:
        return False
    return True


def _plugins() -> Iterator[Check]:
    from avsep_zoo.plugins import plugin_reports

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reports = plugin_reports(try_first=True)
    for report in reports:
        what = f"plugin {report.name}"
        if report.status == "failed":
            yield Check(what, "fail", report.error, "'avsep plugins --verbose' shows the traceback")
        elif report.status == "incomplete":
            advice = "install a plugin that has what is missing, or report it to its author"
            yield Check(what, "warn", " ".join(report.problems), advice)
        elif report.remarks:
            yield Check(what, "warn", " ".join(report.remarks), "report it to its author")
        elif report.status == "ok":
            yield Check(what, "ok", report.distribution or report.origin)
        else:
            yield Check(what, "warn", "disabled", "AVSEP_ZOO_DISABLE names it")


def _weights() -> Iterator[Check]:
    from avsep_zoo.plugins import checkout_root
    from avsep_zoo.registry import registry
    from avsep_zoo.weights.cards import read_card

    root = checkout_root()
    places = [*([root / "weights_cards"] if root else []), *(entry.target for entry in registry().list("cards"))]
    seen = set()
    for file in (file for place in places for file in sorted(place.glob("*/README.md"))):
        name = file.parent.name
        if name in seen:
            continue
        seen.add(name)
        try:
            yield _card_check(f"weights {name}", read_card(file.parent))
        except AvsepError as error:
            yield Check(f"weights {name}", "fail", "the card is damaged", str(error))
    for recipe in registry().methods().values():
        if recipe.weights and recipe.weights not in seen:
            yield Check(f"weights {recipe.weights}", "warn", "not here", f"give --weights to use {recipe.name}")


def _card_check(what: str, card: Card) -> Check:
    from avsep_zoo.weights.cards import file_sha256
    from avsep_zoo.weights.download import weights_state

    state = weights_state(card)
    if state == "to convert":
        return Check(what, "ok", "weights are yours to convert")
    if state == "missing":
        return Check(what, "warn", f"{card.weights.name} is not here", f"put it into {card.folder} again")
    if state != "here":
        return Check(what, "ok", f"{state}, {card.hub}")
    if file_sha256(card.weights) != card.sha256:
        return Check(what, "fail", "sha256 is not the one of the card", f"fetch {card.weights} again")
    return Check(what, "ok", f"{card.weights.stat().st_size / 1e6:.1f} MB, sha256 as the card says")


def _tools() -> Iterator[Check]:
    from avsep_zoo.synth.soundfont import FLUID_R3, TIM_GM, find_soundfont, fluidsynth_version
    from avsep_zoo.synth.sprites import find_font

    looks: dict[str, Callable[[], object]] = {
        "fluidsynth": fluidsynth_version,
        "soundfont": lambda: find_soundfont(FLUID_R3),
        "test soundfont": lambda: find_soundfont(TIM_GM),
        "emoji font": find_font,
    }
    for name, look in looks.items():
        try:
            yield Check(name, "ok", str(look()))
        except AvsepError as error:
            yield Check(name, "warn", "missing, for 'avsep synth' only", str(error))


def _folders() -> Iterator[Check]:
    import torch

    folders = {"temporary files": tempfile.gettempdir(), "torch.hub cache": torch.hub.get_dir()}
    for name, folder in folders.items():
        place = Path(folder).absolute()
        while not place.exists():
            place = place.parent
        free = shutil.disk_usage(place).free
        if not os.access(place, os.W_OK):
            yield Check(name, "fail", f"{folder} cannot be written", "set TMPDIR or TORCH_HOME")
        elif free < _FREE_BYTES:
            yield Check(name, "warn", f"{folder}, {free / 2**20:.0f} MiB free", "long recordings need more; make room")
        else:
            yield Check(name, "ok", f"{folder}, {free / 2**30:.0f} GiB free")


_LOOKS = (_versions, _devices, _codecs, _plugins, _weights, _tools, _folders)
