"""Items to a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from avsep_zoo.contracts import CueBatch
from avsep_zoo.data.reader import Skipped

__all__ = ["collate"]


def collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Stack items to a batch; a modality some items lack is filled and marked absent there.

    Entries of the batch: ``sources`` (B, N, L); ``cues``, a CueBatch of (B, N), or lists of cues where they are not
    prepared; ``background`` (B, L) of training items, and of captioned ones ``captions``, a CueBatch, and ``shares``;
    and ``skipped``: what was left out to make them, in a flat list.
    """
    tensors = [name for name, value in items[0].items() if isinstance(value, torch.Tensor)]
    batch: dict[str, Any] = {name: torch.stack([item[name] for item in items]) for name in tensors}
    for name in ("cues", "captions") if "captions" in items[0] else ("cues",):
        cues = [item[name] for item in items]
        batch[name] = CueBatch.stack(cues) if isinstance(cues[0], CueBatch) else cues
    skipped: list[Skipped] = [entry for item in items for entry in item["skipped"]]
    batch["skipped"] = skipped
    return batch
