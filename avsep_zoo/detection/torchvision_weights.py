"""Weights of torchvision models: a file of tensors, and the architecture that has exactly these tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from avsep_zoo.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["build_fitting", "torchvision"]

_COUNTERS = "num_batches_tracked"  # frozen batch norms and old files have none; evaluation reads none


def torchvision() -> Any:
    """Return the package.

    Raises:
        WeightsError: it is not installed.
    """
    try:
        import torchvision
    except ImportError as error:
        raise WeightsError("This detector needs torchvision; install it: pip install torchvision.") from error
    return torchvision


def build_fitting(
    names: Sequence[str], tensors: Mapping[str, Tensor], build: Callable[[str], nn.Module], title: str
) -> tuple[str, nn.Module]:
    """Build the first of ``names`` whose tensors have the names and shapes of ``tensors``, and load these.

    Returns:
        Its name, and the model in eval mode.

    Raises:
        WeightsError: they fit none.
    """
    import torch

    wanted = {name: value.shape for name, value in tensors.items() if not name.endswith(_COUNTERS)}
    for name in names:
        with torch.device("meta"):
            shapes = {k: v.shape for k, v in build(name).state_dict().items() if not k.endswith(_COUNTERS)}
        if shapes == wanted:
            model = build(name)
            model.load_state_dict(dict(tensors), strict=False)
            return name, model.eval()
    raise WeightsError(
        f"The {title} have {len(wanted)} tensors that fit none of {', '.join(names)}; give the state_dict of one of "
        "these."
    )
