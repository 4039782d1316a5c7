"""Detection by text labels, with OWLv2 (Minderer et al., 2023) or Grounding DINO (Liu et al., 2023) of transformers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avsep_zoo.detection.contract import Detector
from avsep_zoo.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ZeroShot"]

_BATCH = 4
_OVERLAP = 0.5  # of two boxes of a class that overlap more (intersection over union), the better one stays
_MIN_SCORES = {"owlv2": 0.1, "grounding-dino": 0.25}

Boxes = tuple["Tensor", "Tensor", "Tensor"]  # labels from 0 (n), scores (n), boxes (n, 4) in pixels


class ZeroShot(Detector):
    """OWLv2 or Grounding DINO, as ``config.json`` of the weights says; arguments as
    :class:`~avsep_zoo.detection.Detector`. Underscores of labels are blanks to the model.
    """

    open_vocabulary = True

    def __init__(
        self, weights: Path | None, *, labels: Sequence[str] = (), min_score: float | None = None, device: str = "cpu"
    ) -> None:
        if weights is None:
            raise WeightsError("zero_shot needs --detector-weights: a folder, or org/name@commit.")
        self.labels = tuple(labels)
        self._texts = [" ".join(label.replace("_", " ").split()).lower() for label in self.labels]
        if not self._texts or not all(self._texts):
            raise WeightsError("zero_shot needs --labels: the names of what to find, none of them empty.")
        self._kind = _model_type(weights)
        self.min_score = _MIN_SCORES[self._kind] if min_score is None else min_score
        self._processor, model = _load(weights, self._kind)
        self._model = model.eval().to(device)
        self._device = device
        self._prompts = self._make_prompts() if self._kind == "grounding-dino" else []

    def detect(self, frames: np.ndarray) -> list[np.ndarray]:
        import torch

        found = []
        see = self._owl if self._kind == "owlv2" else self._dino
        for start in range(0, len(frames), _BATCH):
            batch = frames[start : start + _BATCH]
            with torch.inference_mode():
                found += [self._rows(seen, batch.shape[1], batch.shape[2]) for seen in see(list(batch))]
        return found

    def _owl(self, frames: list[np.ndarray]) -> list[Boxes]:
        inputs = self._processor(
            text=[self._texts] * len(frames), images=frames, return_tensors="pt", padding="max_length", truncation=True
        )
        sizes = [frame.shape[:2] for frame in frames]
        seen = self._processor.post_process_grounded_object_detection(
            self._model(**inputs.to(self._device)), threshold=self.min_score, target_sizes=sizes
        )
        return [(s["labels"], s["scores"], s["boxes"]) for s in seen]

    def _dino(self, frames: list[np.ndarray]) -> list[Boxes]:
        import torch

        pictures = self._processor.image_processor(images=frames, return_tensors="pt").to(self._device)
        width, height = frames[0].shape[1], frames[0].shape[0]
        parts: list[list[Boxes]] = [[] for _ in frames]
        for first, text, owner in self._prompts:
            encoded = self._processor.tokenizer([text] * len(frames), return_tensors="pt", return_token_type_ids=True)
            out = self._model(**pictures, **encoded.to(self._device))
            words = out.logits.sigmoid()[..., : len(owner)]  # (K, queries, tokens)
            labels = range(max(owner) + 1)
            of = [[i for i, mine in enumerate(owner) if mine == label] for label in labels]
            scores = torch.stack([words[..., tokens].amax(-1) for tokens in of], dim=-1)  # (K, queries, labels)
            centre, size = out.pred_boxes[..., :2], out.pred_boxes[..., 2:]
            scale = centre.new_tensor([width, height, width, height])
            boxes = torch.cat([centre - size / 2, centre + size / 2], dim=-1) * scale
            best, label = scores.max(-1)
            for part, mine, score, box in zip(parts, label, best, boxes, strict=True):
                keep = score > self.min_score
                part.append((mine[keep] + first, score[keep], box[keep]))
        return [tuple(torch.cat(column) for column in zip(*part, strict=True)) for part in parts]  # type: ignore[misc]

    def _make_prompts(self) -> list[tuple[int, str, list[int]]]:
        """Texts ``"a. b."`` of at most as many tokens as the model reads: number of the first label, text, and for
        every token the label it belongs to, counted from there (-1: none)."""
        longest = self._model.config.max_text_len
        prompts: list[tuple[int, str, list[int]]] = []
        first = 0
        while first < len(self._texts):
            last = len(self._texts)
            while True:
                text, owner = self._prompt(self._texts[first:last])
                if len(owner) <= longest:
                    break
                if last == first + 1:
                    raise WeightsError(f"The label {self._texts[first]!r} is longer than the model reads; shorten it.")
                last -= 1
            if set(owner) != {-1, *range(last - first)}:
                raise WeightsError("A label has no word that the model's vocabulary knows; give other labels.")
            prompts.append((first, text, owner))
            first = last
        return prompts

    def _prompt(self, texts: Sequence[str]) -> tuple[str, list[int]]:
        text, spans = "", []
        for label in texts:
            spans.append((len(text), len(text) + len(label)))
            text += f"{label}. "
        offsets = self._processor.tokenizer(text.strip(), return_offsets_mapping=True)["offset_mapping"]
        owner = [next((i for i, (start, end) in enumerate(spans) if start <= a < b <= end), -1) for a, b in offsets]
        return text.strip(), owner

    def _rows(self, seen: Boxes, height: int, width: int) -> np.ndarray:
        """Rows class, score, box of what has an area inside the picture and no better twin, best first."""
        import torch
        from torchvision.ops import batched_nms, clip_boxes_to_image

        labels, scores, boxes = seen
        boxes = clip_boxes_to_image(boxes, (height, width))
        solid = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        labels, scores, boxes = labels[solid], scores[solid], boxes[solid]
        best = batched_nms(boxes, scores, labels, _OVERLAP)
        rows = torch.cat([labels[best, None].float() + 1, scores[best, None], boxes[best]], dim=1)
        return rows.cpu().numpy().astype(np.float32)


def _model_type(weights: Path) -> str:
    file = weights / "config.json"
    try:
        kind = json.loads(file.read_text(encoding="utf-8-sig"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{str(weights)!r} has no config.json that names a model_type; give a folder as on the Hub."
        ) from error
    if kind not in _MIN_SCORES:
        raise WeightsError(f"{str(weights)!r} holds a model of type {kind!r}; known are {', '.join(_MIN_SCORES)}.")
    return str(kind)


def _load(weights: Path, kind: str) -> tuple[Any, Any]:
    try:
        import torchvision  # noqa: F401
        import transformers
    except ImportError as error:
        raise WeightsError(
            "zero_shot needs transformers and torchvision; install them: pip install transformers torchvision."
        ) from error
    kinds: tuple[Any, Any] = (
        (transformers.Owlv2Processor, transformers.Owlv2ForObjectDetection)
        if kind == "owlv2"
        else (transformers.GroundingDinoProcessor, transformers.GroundingDinoForObjectDetection)
    )
    logs = transformers.utils.logging
    bars = logs.is_progress_bar_enabled()
    logs.disable_progress_bar()
    try:
        loaded, report = kinds[1].from_pretrained(
            weights, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
        reader = kinds[0].from_pretrained(weights, local_files_only=True)
    except Exception as error:
        why = " ".join(str(error).split())[:300].rstrip(". ")
        raise WeightsError(f"The {kind} model in {str(weights)!r} cannot be loaded ({why}); fetch it again.") from error
    finally:
        if bars:
            logs.enable_progress_bar()
    lacking = sorted(report["missing_keys"]) + sorted(str(entry) for entry in report["mismatched_keys"])
    if lacking:
        raise WeightsError(
            f"The {kind} weights in {str(weights)!r} lack {len(lacking)} tensors, the first is {lacking[0]!r}; fetch "
            "them again."
        )
    return reader, loaded
