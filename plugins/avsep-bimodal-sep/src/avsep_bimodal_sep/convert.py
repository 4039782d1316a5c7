"""Official BiModalSep checkpoints (one file: separator, mask head and all of CLAP) in this project's names."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from avsep_bimodal_sep.official_keys import CONSTANTS, OfficialSettings, recognise, target
from avsep_zoo.errors import WeightsError
from avsep_zoo.weights.converter import Converter, Entries

__all__ = ["CONVERTER", "convert_official"]

_N_FFT = 1022
_PUBLISHED = OfficialSettings(levels=7, res_layers=1, layer="sca", blocks=1)
_WORDS = {
    "levels": "levels of the U-Net", "res_layers": "convolutions in a residual block", "layer": "condition layers",
    "blocks": "condition layers at a level",
}  # fmt: skip


def convert_official(official: Mapping[str, Tensor]) -> Entries:
    """Map an official state dict, or some of its entries, to the entries of a model.

    Args:
        official: entries by name; see :func:`~avsep_bimodal_sep.official_keys.target`.

    Returns:
        The entries, and the official ones that are not used: constants, norms that are never applied, and CLAP's sound
        tower, which belongs to the judge of a training.

    Raises:
        KeyError: an entry is unknown.
        WeightsError: there are condition layers of several kinds.
    """
    settings = recognise(official)
    entries: dict[str, Tensor] = {}
    unused: list[str] = []
    for key, value in official.items():
        name = target(key, settings)
        if name is None:
            unused.append(key)
        else:
            entries[name] = value
    return entries, unused


def _entries(parts: Mapping[str, Mapping[str, Tensor]]) -> Entries:
    """Of a whole file, once its networks are known to be the published ones."""
    official = parts["model"]
    _check_settings(recognise(official))
    for key, value in official.items():
        _check_constant(key, list(value.shape))
    entries, unused = convert_official(official)
    return entries, [f"model.{key}" for key in unused]


def _check_settings(settings: OfficialSettings) -> None:
    """Refuse networks of other settings, which many names of entries would tell less plainly."""
    for name, words in _WORDS.items():
        theirs, published = getattr(settings, name), getattr(_PUBLISHED, name)
        if theirs != published:
            raise WeightsError(
                f"The checkpoint has {theirs} {words} and the published networks have {published}; no variant of "
                "bimodal_sep is built like it, give a checkpoint of an official training script."
            )


def _check_constant(key: str, shape: list[int]) -> None:
    """Refuse constants of a transform of another size, which no other entry tells."""
    if found := CONSTANTS.fullmatch(key):
        right = [_N_FFT // 2 + 1, 1, _N_FFT] if found[1] == "stft" else [_N_FFT, _N_FFT, 1]
        right = [_N_FFT] if found[2] == "ola_window" else right
        if shape != right:
            raise WeightsError(
                f"The constant {key} has the shape {shape}, and {right} is that of the published Fourier transform of "
                f"{_N_FFT} samples; give a checkpoint of an official training script."
            )


CONVERTER = Converter(parts={"model": r"net_(sound|synthesizer|clap)\."}, entries=_entries)
"""The one file of a training run: ``model_best.pth.tar``, or ``model_weights.pth.tar`` as it is published."""
