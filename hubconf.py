"""torch.hub entry points: one per method, and ``compose``. Only ``dependencies`` need to be installed."""

import contextlib as _contextlib
import sys as _sys
import warnings as _warnings
from collections.abc import Callable as _Callable
from importlib.machinery import PathFinder as _PathFinder
from pathlib import Path as _Path
from typing import Any as _Any

dependencies = [
    "PIL", "av", "einops", "numpy", "pluggy", "safetensors", "scipy", "soundfile", "soxr", "torch", "yaml",
]  # fmt: skip

_ROOT = _Path(__file__).resolve().parent


def _is_other(entry: str) -> bool:
    """Whether ``import avsep_zoo`` would find another one than that of this folder in an entry of ``sys.path``."""
    spec = _PathFinder.find_spec("avsep_zoo", [entry])
    return spec is not None and spec.origin is not None and _Path(spec.origin).resolve().parent.parent != _ROOT


# torch.hub removes the first entry; spawned workers need one that stays: the last, or just before another avsep_zoo.
_place = next((i for i, entry in enumerate(_sys.path) if _is_other(entry)), len(_sys.path))
if str(_ROOT) not in _sys.path[1:_place]:
    _sys.path.insert(_place, str(_ROOT))

if (_other := _sys.modules.get("avsep_zoo")) and _Path(str(_other.__file__)).resolve().parents[1] != _ROOT:
    _text = f"avsep_zoo is imported from {_other.__file__} already; start a new process to use {_ROOT}."
    _specs = (_ROOT / "avsep_zoo" / "hookspecs.py").read_text(encoding="utf-8")
    if f"\nAPI_VERSION = {getattr(_other, 'API_VERSION', None)}\n" not in _specs:
        raise RuntimeError(_text)
    _warnings.warn(_text, stacklevel=2)

_DOC = """{0.summary}

Paper: {0.paper}
Cues: {0.cues}.

Weights: {weights}.

Args:
    variant: one of {variants}; None is the one with published weights, or without weights
        {0.default_variant}.
    weights: "default" for the published weights; the name of another weights card, its folder, or
        "hf://org/name@commit" on the Hugging Face Hub; or None for an untrained model.
    pretrained: True for weights="default", False for weights=None.
    device: where to put the model, e.g. "cuda"; None is the CPU.

Example:
    >>> model = torch.hub.load("avsep-zoo/avsep-zoo", "{0.name}", trust_repo=True)
    >>> from avsep_zoo import Cue
    >>> cues = [Cue(label="violin", box=(0, 20, 190, 180)), Cue(label="flute", box=(195, 20, 380, 180))]
    >>> model.separate("duet.mp4", cues).save("stems")
"""


def _entry_point(recipe: _Any) -> _Callable[..., _Any]:
    def entry_point(
        *,
        variant: str | None = None,
        weights: str | _Path | None = "default",
        pretrained: bool | None = None,
        device: _Any = None,
    ) -> _Any:
        import avsep_zoo
        from avsep_zoo.errors import WeightsError

        if pretrained is not None:
            if weights != "default":
                raise WeightsError(f"pretrained={pretrained} and weights={weights!r} are given; give one of them.")
            weights = "default" if pretrained else None
        name = f"{recipe.name}.{variant}" if variant else recipe.name
        return avsep_zoo.load(name, weights=weights, device=device)

    entry_point.__name__ = entry_point.__qualname__ = recipe.name
    variants = ", ".join(recipe.variant_names)
    entry_point.__doc__ = _DOC.format(recipe, variants=variants, weights=_weights(recipe.weights))
    return entry_point


def _weights(name: str | None) -> str:
    """What is said of the default weights: their card, the size of their file and their licence."""
    from avsep_zoo.errors import AvsepError
    from avsep_zoo.weights.cards import card_folder, read_card
    from avsep_zoo.weights.licences import entries

    folder = card_folder(name) if name else None
    if folder is None:
        return f"{name}, of which there is no card here" if name else "none are published"
    try:
        manifest = read_card(folder).manifest
    except AvsepError as error:
        return f"{name}; {str(error).rstrip('.')}"
    licences = dict.fromkeys(entry.licence for entry in entries(manifest) if entry.field == "weights")
    size = f", {manifest['bytes'] / 1e6:.1f} MB" if manifest.get("bytes") else ""
    return f"{name}{size}, licence: {', '.join(licences)}"


def __dir__() -> list[str]:
    names = [name for name in globals() if not name.startswith("_")]
    try:
        import avsep_zoo

        return [*names, *avsep_zoo.methods(), "compose"]
    except Exception as error:  # torch.hub reads the dependencies through here, and says which ones are missing
        with _contextlib.suppress(Warning):
            _warnings.warn(f"The methods cannot be listed ({type(error).__name__}: {error}).", stacklevel=2)
        return names


def __getattr__(name: str) -> object:
    if not name.startswith("_"):
        import avsep_zoo

        if name == "compose":
            return avsep_zoo.compose
        if name in (methods := avsep_zoo.methods()):
            return _entry_point(methods[name])
    raise AttributeError(f"hubconf.py has no entry point {name!r}.")
