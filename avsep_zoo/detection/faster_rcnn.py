"""Faster R-CNN of torchvision with the user's weights and class list (Ren et al., 2015; torchvision's variants)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avsep_zoo.detection.contract import Detector
from avsep_zoo.detection.torchvision_weights import build_fitting, torchvision
from avsep_zoo.errors import WeightsError
from avsep_zoo.weights.checkpoints import read_settings, read_tensors

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["FasterRcnn"]

_ARCHITECTURES = (
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
)
_SETTINGS = {"architecture": str, "labels": list, "min_size": int, "max_size": int}
_BACKGROUND = ("__background__", "background")
_BATCH = 8


class FasterRcnn(Detector):
    """torchvision's Faster R-CNN; arguments as :class:`~avsep_zoo.detection.Detector`.

    The architecture is the first whose tensors fit, unless ``config.json`` beside the weights names it
    (``architecture``; also ``labels``, and ``min_size`` and ``max_size`` of pictures in pixels). A label list
    has one name per class, in the order of training, with or without the background in front. The feature of a
    box is what enters the classifier: 1024 numbers in torchvision's variants.
    """

    def __init__(
        self, weights: Path | None, *, labels: Sequence[str] = (), min_score: float | None = None, device: str = "cpu"
    ) -> None:
        if weights is None:
            raise WeightsError("faster_rcnn needs --detector-weights: a folder, a file, or org/name@commit.")
        package = torchvision()
        settings = read_settings(weights, _SETTINGS)
        self.min_score = 0.05 if min_score is None else min_score
        tensors = read_tensors(weights)
        head = tensors.get("roi_heads.box_predictor.cls_score.weight")
        if head is None or head.ndim != 2:
            raise WeightsError(f"The weights {str(weights)!r} have no Faster R-CNN head; give those of torchvision's.")
        self.labels = _fitting_labels([str(name) for name in labels or settings.get("labels", [])], head.shape[0])
        self.feature_width = head.shape[1]
        sizes = {key: settings[key] for key in ("min_size", "max_size") if key in settings}

        def build(name: str) -> nn.Module:
            arguments: dict[str, Any] = {"num_classes": len(self.labels) + 1, "box_score_thresh": self.min_score}
            made: nn.Module = package.models.get_model(name, weights=None, weights_backbone=None, **arguments, **sizes)
            return made

        names = (settings["architecture"],) if "architecture" in settings else _ARCHITECTURES
        if not set(names) <= set(_ARCHITECTURES):
            raise WeightsError(f"There is no architecture {names[0]!r}; known are {', '.join(_ARCHITECTURES)}.")
        self.architecture, model = build_fitting(names, tensors, build, f"weights {weights.name!r}")
        self._model: Any = model.to(device)
        self._device = device

    def detect(self, frames: np.ndarray) -> list[np.ndarray]:
        import torch

        found = []
        for start in range(0, len(frames), _BATCH):
            with torch.inference_mode():
                for seen in self._model(self._pictures(frames[start : start + _BATCH])):
                    rows = torch.cat([seen["labels"][:, None].float(), seen["scores"][:, None], seen["boxes"]], dim=1)
                    found.append(rows.cpu().numpy().astype(np.float32))  # (n, 6), sorted by score
        return found

    def features(self, frames: np.ndarray, boxes: Sequence[np.ndarray]) -> list[np.ndarray]:
        import torch

        found = []
        for start in range(0, len(frames), _BATCH):
            given = [np.asarray(one, np.float32).reshape(-1, 4) for one in boxes[start : start + _BATCH]]
            counts = [len(one) for one in given]
            if not any(counts):
                found += [np.zeros((0, self.feature_width), np.float32) for _ in given]
                continue
            with torch.inference_mode():
                placed = [{"boxes": torch.from_numpy(one).to(self._device)} for one in given]
                images, placed = self._model.transform(self._pictures(frames[start : start + _BATCH]), placed)
                maps = self._model.backbone(images.tensors)
                heads = self._model.roi_heads
                pooled = heads.box_roi_pool(maps, [one["boxes"] for one in placed], images.image_sizes)
                vectors = heads.box_head(pooled).cpu().numpy().astype(np.float32)  # (all boxes, D)
            found += np.split(vectors, np.cumsum(counts)[:-1])
        return found

    def _pictures(self, frames: np.ndarray) -> list[Tensor]:
        """uint8 (K, H, W, 3) -> K of float (3, H, W) in 0..1."""
        import torch

        batch = torch.from_numpy(np.ascontiguousarray(frames)).to(self._device)
        return list(batch.permute(0, 3, 1, 2).float() / 255)


def _fitting_labels(labels: Sequence[str], classes: int) -> tuple[str, ...]:
    """Return the names of classes 1, 2, ... of weights with ``classes`` outputs, the background included."""
    if len(labels) == classes and labels[0].lower() in _BACKGROUND:
        labels = labels[1:]
    if len(labels) != classes - 1:
        raise WeightsError(
            f"The weights have {classes - 1} classes and the background, and {len(labels)} labels are given; "
            "give --labels with one per class, or 'labels' in config.json beside the weights."
        )
    return tuple(labels)
