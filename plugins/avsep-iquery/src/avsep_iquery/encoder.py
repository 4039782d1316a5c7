"""iQuery's cue encoder: cropped frames, class and motion of each source.

Source: Chen et al., iQuery: Instruments as Queries for Audio-Visual Sound Separation, CVPR 2023, section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from avsep_zoo.blocks.class_table import ClassTable
from avsep_zoo.blocks.frame_encoder import FrameEncoder
from avsep_zoo.blocks.recognition import class_loss
from avsep_zoo.class_names import class_position, labelled_class
from avsep_zoo.contracts import CueBatch, Embedding, EncoderPlan
from avsep_zoo.cue import Cue
from avsep_zoo.errors import CueError

if TYPE_CHECKING:
    from avsep_zoo.media import VideoSource

__all__ = ["IQueryEncoder"]


class IQueryEncoder(FrameEncoder):
    """ResNet-18 on frames cropped to the object, class id, motion features.

    Gives ``vector`` (what the object looks like, in (0, 1)), ``index`` (which query, by class name) and, with
    ``motion``, ``tokens``. Where modalities are ``optional`` (not so in the published method) every class has a
    learned vector instead: a source with a label takes that of its class, and a source without one is recognised
    from its frames and takes the mean of the vectors, weighted by the probability of each class.

    The rows of the learned tables (of the conditioner's queries, too) are those of the original classes, then the
    spare ones, the last of which stands for no class, then those of classes that were ``added`` later. Frames are
    given to the group (the original classes, or those of one expansion) of the most probable class, and within it
    only its own classes are weighed: what is not taken for an added class is described as if there were none,
    bit for bit. An added class that has not learned to recognise anything is never recognised.

    Args:
        classes: class names, the added ones last.
        spare_queries: rows after those of the original classes.
        added: sizes of the groups of classes that were added later, in the order of the expansions.
        width: channels of the first ResNet stage.
        stride: 16 (dilated last stage, the official net) or 32.
        object_features: width of ``vector``.
        pooling: over frames and pixels.
        frames: number of frames K around the centre of the segment.
        frame_rate: frames per second they are taken at.
        image_size: pixels of the square input.
        motion: width of the motion features, 0 for none.
        motion_padding: what padded motion steps do to the attention scores: ``added`` adds 1 (the published
            code, where a sample's answer depends on the longest one of its batch), ``masked`` removes them.
        frozen: train no ResNet parameter (its batch-norm statistics still move, as published).
        optional: modalities a cue may lack.
    """

    def __init__(
        self,
        *,
        classes: Sequence[str],
        spare_queries: int = 1,
        added: Sequence[int] = (),
        width: int = 64,
        stride: Literal[16, 32] = 16,
        object_features: int = 32,
        pooling: Literal["max", "average"] = "max",
        frames: int = 3,
        frame_rate: float = 1.0,
        image_size: int = 224,
        motion: int = 0,
        motion_padding: Literal["added", "masked"] = "masked",
        frozen: bool = True,
        optional: Sequence[str] = (),
    ) -> None:
        super().__init__(
            width=width,
            stride=stride,
            object_features=object_features,
            pooling=pooling,
            frames=frames,
            frame_rate=frame_rate,
            image_size=image_size,
            frozen=frozen,
        )
        plan = self.plan(
            classes=classes,
            spare_queries=spare_queries,
            added=added,
            object_features=object_features,
            motion=motion,
            optional=optional,
        )
        self.reads, self.optional, self.gives = plan.reads, plan.optional, plan.gives
        self.classes, self.spare_queries, self.added = tuple(classes), spare_queries, tuple(added)
        self.motion, self.motion_padding = motion, motion_padding
        self.class_vectors = ClassTable(self.gives["index"], object_features) if self.optional else None
        self.recogniser = nn.Linear(object_features, self.originals) if self.optional else None
        self.added_recogniser: ClassTable | None = None  # a row of weights and bias per added class
        if self.optional and self.added:
            self.added_recogniser = ClassTable(sum(self.added), object_features + 1)
            nn.init.zeros_(self.added_recogniser.weight)

    @classmethod
    def plan(
        cls,
        *,
        classes: Sequence[str] = (),
        spare_queries: int = 1,
        added: Sequence[int] = (),
        object_features: int = 32,
        motion: int = 0,
        optional: Sequence[str] = (),
        **_: Any,
    ) -> EncoderPlan:
        """Frames and label, with motion where ``motion`` is not 0."""
        reads = {"frames", "label"} | ({"motion"} if motion else set())
        gives = {"vector": object_features, "index": len(classes) + spare_queries}
        if motion:
            gives["tokens"] = motion
        if added and (min(added) < 1 or sum(added) >= len(classes)):
            raise ValueError(f"added is {list(added)} with {len(classes)} classes in all; give sizes of real groups.")
        unknown = set(optional) - {"frames", "label"}
        if unknown:
            raise ValueError(f"optional names {sorted(unknown)}; iQuery can do without frames or label, not more.")
        return EncoderPlan(frozenset(reads), gives, frozenset(optional))

    @property
    def originals(self) -> int:
        """Number of classes that were not added later."""
        return len(self.classes) - sum(self.added)

    def forward(self, cues: CueBatch) -> Embedding:
        """Encode cues with the modalities frames (B, N, 3, K, H, W), label (B, N), motion (B, N, D, S).

        ``label`` is the position in ``classes``, the index of the embedding the row of the class; both are -1
        where no class is known.

        ``motion_mask`` (B, N, S) is 0 at real steps, 1 at padded ones and infinite at steps that only exist
        because another source of the batch is longer.
        """
        label, motion = cues.get("label"), cues.get("motion")
        index = None
        if label is not None:
            index = torch.where(cues.has("label").to(label.device), label, -1)
            index = torch.where(index < self.originals, index, index + self.spare_queries)
        if self.class_vectors is None:
            vector = torch.sigmoid(self.looks(cues))
        else:
            vector, index = self._by_class(cues, index)
        if motion is None:
            return Embedding(vector=vector, index=index)
        bias = None
        if (mask := cues.get("motion_mask")) is not None:
            removed = torch.isinf(mask) if self.motion_padding == "added" else mask > 0
            bias = torch.where(removed, -torch.inf, mask)
        return Embedding(vector=vector, index=index, tokens=rearrange(motion, "b n d s -> b n s d"), tokens_bias=bias)

    def _by_class(self, cues: CueBatch, index: Tensor | None) -> tuple[Tensor, Tensor]:
        """Vectors (B, N, D) and rows (B, N) of classes that are named or recognised; row -1 for neither."""
        assert self.class_vectors is not None
        table = self.class_vectors.rows()
        if index is None:
            index = torch.full(cues.shape, -1)
        index = index.to(table.device)
        vector = self.class_vectors(torch.where(index < 0, self.originals + self.spare_queries - 1, index))
        seen = (index < 0) & cues.has("frames").to(table.device)
        if not seen.any():
            return vector, index
        guess, row = self._recognised(self._class_logits(self.looks(cues)), table)
        return torch.where(seen[..., None], guess, vector), torch.where(seen, row, index)

    def _class_logits(self, looks: Tensor) -> list[Tensor]:
        """Scores of the classes (B, N, classes of the group), group by group, of what frames show (B, N, D)."""
        assert self.recogniser is not None
        logits = [self.recogniser(looks).float()]
        if self.added_recogniser is not None:
            for rows in self.added_recogniser.rows().split(self.added):
                logits.append(F.linear(looks, rows[:, :-1], rows[:, -1]).float())
        return logits

    def _recognised(self, groups: Sequence[Tensor], table: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (B, N, D) and rows (B, N) of what frames show, from the scores of each group."""
        chances = torch.softmax(groups[0], dim=-1)
        vector, row, best = chances @ table[: self.originals], chances.argmax(dim=-1), groups[0].amax(dim=-1)
        first = self.originals + self.spare_queries
        for size, logits, learned in zip(self.added, groups[1:], self._learned(), strict=True):
            if learned.any():
                logits = torch.where(learned, logits, -torch.inf)
                chances, better = torch.softmax(logits, dim=-1), logits.amax(dim=-1) > best
                vector = torch.where(better[..., None], chances @ table[first : first + size], vector)
                row = torch.where(better, first + chances.argmax(dim=-1), row)
                best = torch.maximum(best, logits.amax(dim=-1))
            first += size
        return vector, row

    def _learned(self) -> Sequence[Tensor]:
        """Which classes of each added group have learned to be recognised (classes of the group,)."""
        if self.added_recogniser is None:
            return ()
        return self.added_recogniser.weight.detach().any(dim=1).split(self.added)

    def recognition_loss(self, cues: CueBatch) -> Tensor:
        """Cross-entropy of the classes recognised from frames, over the sources that have frames and a label."""
        if self.recogniser is None or cues.get("frames") is None or cues.get("label") is None:
            return torch.zeros((), device=self.fc.weight.device)
        label = cues.get("label")
        both = (cues.has("label") & cues.has("frames")).to(label.device)
        target = torch.where(both, label, -1)
        return class_loss(torch.cat(self._class_logits(self.looks(cues)), dim=-1), target)

    def prepare(
        self,
        cues: Sequence[Cue],
        *,
        video: VideoSource | None,
        time: float,
        rng: np.random.Generator | None = None,
    ) -> CueBatch:
        values: dict[str, Tensor] = {}
        present: dict[str, Tensor] = {}
        labels = [self._label(cue) for cue in cues]
        values["label"] = torch.tensor([labels])
        present["label"] = values["label"] >= 0
        pictures = [self._frames(cue, video, time, alone=len(cues) == 1) for cue in cues]
        if any(p is not None for p in pictures):
            blank = np.zeros((3, self.frames, self.image_size, self.image_size), dtype=np.float32)
            stack = np.stack([blank if p is None else p for p in pictures])
            values["frames"] = torch.from_numpy(stack)[None]  # (1, N, 3, K, H, W)
            present["frames"] = torch.tensor([[p is not None for p in pictures]])
        if self.motion:
            values["motion"], values["motion_mask"] = self._motion(cues)
        for n, (label, picture) in enumerate(zip(labels, pictures, strict=True)):
            if label < 0 and picture is None:
                raise CueError(f"Cue {n + 1} ({cues[n].title}) has neither a label nor frames; give one of them.")
        return CueBatch(values, present)

    def label_index(self, label: str) -> int:
        """Return the position of a class name in ``classes``; case, spaces and hyphens don't matter.

        Raises:
            CueError: the class is unknown.
        """
        return class_position(label, self.classes)

    def _label(self, cue: Cue) -> int:
        if cue.label is None and "label" in self.optional:
            return -1
        return labelled_class(cue, self.classes)

    def _frames(self, cue: Cue, video: VideoSource | None, time: float, *, alone: bool) -> np.ndarray | None:
        if self.recogniser is not None and cue.label is not None and not self.training:
            return None  # nothing to recognise; in training the label teaches what the frames show
        shown = cue.frames is not None or (video is not None and (alone or cue.box_at(time) is not None))
        if "frames" in self.optional and not shown:
            return None
        return self.pictures(cue, video, time)

    def _motion(self, cues: Sequence[Cue]) -> tuple[Tensor, Tensor]:
        tokens = [torch.from_numpy(self._motion_tokens(cue)) for cue in cues]
        longest = max(t.shape[1] for t in tokens)
        motion = torch.zeros(1, len(tokens), self.motion, longest)
        mask = torch.full((1, len(tokens), longest), torch.inf)
        for n, t in enumerate(tokens):
            motion[0, n, :, : t.shape[1]] = t
            mask[0, n, : t.shape[1]] = 0
        return motion, mask

    def _motion_tokens(self, cue: Cue) -> np.ndarray:
        if cue.motion is None:
            raise CueError(
                f"The cue {cue.title!r} has no motion features and this model needs them; give Cue(motion=...)."
            )
        try:
            raw = np.load(cue.motion, allow_pickle=False) if isinstance(cue.motion, str | Path) else cue.motion
            tokens = np.asarray(raw, dtype=np.float32)
        except (OSError, EOFError, ValueError) as error:
            raise CueError(
                f"The motion features of {cue.title!r} cannot be read ({error}); give a .npy file."
            ) from error
        if tokens.ndim == 4:
            tokens = tokens.max(axis=(2, 3))
        if tokens.ndim != 2 or tokens.shape[0] != self.motion or tokens.shape[1] == 0:
            raise CueError(
                f"The motion features of {cue.title!r} have shape {tokens.shape}; give ({self.motion}, steps[, h, w])."
            )
        return tokens
