"""Official BiModalSep checkpoints (one file: separator, mask head and all of CLAP) in this project's names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from avsep_bimodal_sep.clap_keys import clap_entries
from avsep_bimodal_sep.conditioner import TextAttention
from avsep_bimodal_sep.official_keys import CLAP, CONSTANTS, OfficialSettings, bare, recognise, target
from avsep_bimodal_sep.separator import ConditionalUNet
from avsep_zoo.errors import WeightsError
from avsep_zoo.weights.pretrained import read_checkpoint

if TYPE_CHECKING:
    from avsep_bimodal_sep.objective import BiModalObjective

__all__ = ["JUDGE", "convert_official", "load_official", "read_official"]

JUDGE = "objective.judge."  # entries of the judge begin so in converted state dicts

_TITLES = ("model_best.pth.tar", "model_weights.pth.tar")
_SUFFIXES = (".pth.tar", ".pth", ".pt", ".safetensors")
_ADVICE = "take the variant the checkpoint was made with"


def convert_official(
    official: Mapping[str, Any], *, n_fft: int = 1022, judge: bool = False
) -> tuple[dict[str, Tensor], list[str]]:
    """Map an official state dict, or some of its entries, to the entries of a model and of its judge.

    Args:
        official: entries by name; see :func:`target`.
        n_fft: of the model's front end; constants of another transform are refused.
        judge: keep CLAP's sound tower, as ``objective.judge.*``.

    Returns:
        The entries, and the official ones that are not used.

    Raises:
        WeightsError: an entry is unknown, stored twice, no tensor of finite numbers, or a constant of another size.
    """
    if not isinstance(official, Mapping):
        raise WeightsError(f"The checkpoint is of the type {type(official).__name__}; give a state dict of tensors.")
    settings = recognise(str(key) for key in official)
    entries: dict[str, Tensor] = {}
    unused: list[str] = []
    origins: dict[str, str] = {}
    for key, value in official.items():
        plain = bare(str(key))
        if plain in origins:
            raise WeightsError(
                f"The checkpoint has {key} and {origins[plain]}, which mean the same; remove one of them."
            )
        origins[plain] = str(key)
        _check_numbers(plain, value)
        _check_constant(plain, value, n_fft)
        try:
            name = target(plain, settings)
        except KeyError:
            raise WeightsError(
                f"The entry {key} is none of BiModalSep; give a checkpoint of the official code."
            ) from None
        if name is not None:
            entries[name] = value
        elif judge and (heard := _heard(plain.removeprefix(CLAP), value)):
            entries |= heard
        else:
            unused.append(plain)
    return entries, unused


def read_official(checkpoint: str | Path) -> dict[str, Tensor]:
    """Read the state dict of an official file; pickled objects other than tensors and plain values are never loaded.

    Args:
        checkpoint: a file of the official training (its weights are under ``state_dict``) or of the state dict alone,
            or a folder with ``model_best.pth.tar``, ``model_weights.pth.tar`` or just one file.

    Raises:
        WeightsError: there is no such file, there are several, or it holds no state dict.
    """
    return read_checkpoint(checkpoint, suffixes=_SUFFIXES, preferred=_TITLES)


def load_official(
    model: nn.Module,
    checkpoint: str | Path | Mapping[str, Any],
    *,
    objective: BiModalObjective | None = None,
) -> list[str]:
    """Load an official checkpoint into a model, and CLAP's sound tower into the judge of the model's objective.

    Args:
        model: in place; heads of attention leave no trace in a checkpoint and have to be those it was trained with.
        checkpoint: a file or folder, see :func:`read_official`, or the state dict itself.
        objective: in place; without it, or where its judge is not CLAP, the sound tower stays unused.

    Returns:
        The official entries that are not used.

    Raises:
        WeightsError: the file cannot be read, an entry is wrong (see :func:`convert_official`), entries are missing,
            or the model has other settings, entries or shapes; nothing is loaded then.
    """
    official = checkpoint if isinstance(checkpoint, Mapping) else read_official(checkpoint)
    judge = None if objective is None else objective.judge
    n_fft = getattr(getattr(model, "front_end", None), "n_fft", 1022)
    state, unused = convert_official(official, n_fft=n_fft, judge=judge is not None)
    _check_settings(model, recognise(str(key) for key in official))
    wanted = dict(model.state_dict())
    wanted |= {} if judge is None else {JUDGE + name: value for name, value in judge.state_dict().items()}
    if lacking := wanted.keys() - state.keys():
        raise WeightsError(f"The checkpoint lacks {_few(lacking)}; {_ADVICE}.")
    if extra := state.keys() - wanted.keys():
        raise WeightsError(f"The model has no place for {_few(extra)}; {_ADVICE}.")
    if off := sorted(name for name, value in wanted.items() if value.shape != state[name].shape):
        ours, theirs = tuple(wanted[off[0]].shape), tuple(state[off[0]].shape)
        raise WeightsError(
            f"The shape of {off[0]}, the first of {len(off)} that differ, is {theirs} in the checkpoint and {ours} in "
            f"the model; {_ADVICE}."
        )
    model.load_state_dict({name: value for name, value in state.items() if not name.startswith(JUDGE)})
    if judge is not None:
        judge.load_state_dict({k.removeprefix(JUDGE): v for k, v in state.items() if k.startswith(JUDGE)})
    return unused


def _heard(name: str, value: Tensor) -> dict[str, Tensor]:
    """An entry of LAION-CLAP that belongs to the judge."""
    if name == "logit_scale_a":
        return {f"{JUDGE}logit_scale_a": value.reshape(())}
    if not name.startswith(("audio_branch.", "audio_projection.")):
        return {}
    return {f"{JUDGE}clap.{place}": part for place, part in clap_entries({name: value}).items()}


def _check_settings(model: nn.Module, settings: OfficialSettings) -> None:
    """Refuse a model of other settings before its names are compared, which tell less."""
    separator, conditioner = getattr(model, "separator", None), getattr(model, "conditioner", None)
    if not isinstance(separator, ConditionalUNet) or not isinstance(conditioner, TextAttention):
        names = " and ".join(type(part).__name__ for part in (separator, conditioner))
        raise WeightsError(f"The model has {names}; the checkpoint is of bimodal_sep.unet and bimodal_sep.attention.")
    ours: dict[str, Any] = {"levels": separator.levels, "res_layers": separator.res_layers}
    ours |= {"layer": conditioner.layer} if conditioner.layer != settings.layer else {"blocks": conditioner.blocks}
    if settings.layer == conditioner.layer == "identity":
        del ours["blocks"]
    for name, value in ours.items():
        if value != (theirs := getattr(settings, name)):
            raise WeightsError(f"The checkpoint has {name} {theirs} and the model {value}; {_ADVICE}.")


def _check_numbers(key: str, value: Any) -> None:
    if not isinstance(value, Tensor) or value.layout != torch.strided:
        raise WeightsError(
            f"The entry {key} is of the type {type(value).__name__}; give a state dict of dense tensors."
        )
    if not torch.isfinite(value).all():
        raise WeightsError(f"The entry {key} holds numbers that are not finite; take an earlier checkpoint of the run.")


def _check_constant(key: str, value: Tensor, n_fft: int) -> None:
    """Refuse constants of a transform of another size."""
    if found := CONSTANTS.fullmatch(key):
        right = [n_fft // 2 + 1, 1, n_fft] if found[1] == "stft" else [n_fft, n_fft, 1]
        right = [n_fft] if found[2] == "ola_window" else right
        if list(value.shape) != right:
            raise WeightsError(
                f"The constant {key} has the shape {list(value.shape)}, and {right} is that of a Fourier transform of "
                f"{n_fft} samples; take the front end the checkpoint was made with."
            )


def _few(names: Collection[str]) -> str:
    """Some names, for a message."""
    first = sorted(names)[:3]
    return ", ".join(first) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
