"""Low-rank adapters for any method, by peft.

Source: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from avsep_zoo.errors import AvsepError, DataError
from avsep_zoo.model import SeparationModel
from avsep_zoo.training.freeze import named_by, trained_tables

__all__ = ["add_adapters", "merged"]

_SETTINGS = ("r", "alpha", "dropout", "targets")


def add_adapters(model: SeparationModel, settings: Mapping[str, Any]) -> None:
    """Put low-rank adapters on layers of the model, in place; they alone are trained from here on.

    The adapted model gives what it gave before, until it is trained. All else is frozen as by
    :func:`~avsep_zoo.training.freeze.freeze`, batch norms included, but for the rows of classes that were just
    added. Checkpoints hold the adapters; for a card take :func:`merged`.

    Args:
        model: a composed model.
        settings: ``r`` rank of the adapters, at least 1 (8); ``alpha``, at least 1, their output is scaled by
            alpha / r (2 r); ``dropout`` of what they read, in [0, 1) (0); ``targets`` names or patterns of the
            modules that get one, as in :func:`~avsep_zoo.training.freeze.freeze`. Without targets these are all
            linear layers and 2-D convolutions that are not frozen already. Layers inside an
            ``nn.MultiheadAttention`` cannot have one, and neither can grouped and dilated convolutions, nor those
            that pad with anything but zeros.

    Raises:
        DataError: a setting is unknown or impossible, no layer can have an adapter, or they have them already.
        AvsepError: peft is not installed.
    """
    rank, alpha, dropout, targets = _checked(settings)
    if hasattr(model, "peft_config"):
        raise DataError(f"{model.name} has adapters already; merge them before new ones are put on it.")
    layers = _layers(model, targets)
    try:
        import peft
    except ImportError as error:
        raise AvsepError("Adapters need peft; run: pip install peft.") from error
    config = peft.LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules="|".join(map(re.escape, layers))
    )
    peft.inject_adapter_in_model(config, model)  # freezes all but the adapters
    for table in trained_tables(model):
        table.requires_grad_(True)
    model.frozen = frozenset(key for key, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad)


def merged(model: SeparationModel) -> SeparationModel:
    """Return a copy whose adapters are merged into ordinary weights, with the keys of a model that had none."""
    plain = copy.deepcopy(model)
    if not hasattr(plain, "peft_config"):
        return plain
    from peft.tuners.tuners_utils import BaseTunerLayer

    for path, module in list(plain.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent, _, name = path.rpartition(".")
            setattr(plain.get_submodule(parent), name, module.get_base_layer())
    del plain.peft_config
    plain.frozen = frozenset()
    return plain


def _layers(model: SeparationModel, targets: Sequence[str] | None) -> list[str]:
    """Paths of the layers that get an adapter."""
    able, attention = {}, tuple(p for p, m in model.named_modules() if isinstance(m, nn.MultiheadAttention))
    for path, module in model.named_modules():
        plain = isinstance(module, nn.Linear | nn.Conv2d) and "weight" in module._parameters  # not parametrised
        inside = any(path.startswith(f"{outer}.") for outer in attention)  # there weights are read, not called
        if plain and not inside and not _beyond_peft(module):
            able[path] = module
    for target in targets or ():
        if not any(named_by(target, path) for path in able):
            raise DataError(
                f"No layer of {model.name} that can have an adapter is called {target!r}; "
                f"there are {', '.join(able) or 'none'}."
            )
    if targets is None:
        layers = [path for path, module in able.items() if module.weight.requires_grad]
    else:
        layers = [path for path in able if any(named_by(target, path) for target in targets)]
    if not layers:
        raise DataError(f"No layer of {model.name} can have an adapter: all are frozen already; freeze less.")
    return layers


def _beyond_peft(module: nn.Module) -> bool:
    """Whether a layer is a convolution whose adapter would be another kind of convolution than itself."""
    if not isinstance(module, nn.Conv2d):
        return False
    return module.groups > 1 or module.dilation != (1, 1) or module.padding_mode != "zeros"


def _checked(settings: Mapping[str, Any]) -> tuple[int, int, float, Sequence[str] | None]:
    unknown = sorted(set(settings) - set(_SETTINGS))
    if unknown:
        raise DataError(f"Adapters have no setting {unknown[0]!r}; they have {', '.join(_SETTINGS)}.")
    rank, dropout, targets = settings.get("r", 8), settings.get("dropout", 0.0), settings.get("targets")
    _check("r", rank, isinstance(rank, int) and rank >= 1, "a whole number of at least 1")
    alpha = settings.get("alpha", 2 * rank)
    _check("alpha", alpha, isinstance(alpha, int) and alpha >= 1, "a whole number of at least 1")
    _check("dropout", dropout, isinstance(dropout, int | float) and 0 <= dropout < 1, "a number in [0, 1)")
    named = isinstance(targets, list | tuple) and bool(targets) and all(isinstance(t, str) for t in targets)
    _check("targets", targets, targets is None or named, "a list of names of modules")
    return rank, alpha, dropout, targets


def _check(name: str, value: Any, right: bool, wanted: str) -> None:
    if not right or isinstance(value, bool):
        raise DataError(f"The adapters' setting {name} is {value!r}; give {wanted}.")
