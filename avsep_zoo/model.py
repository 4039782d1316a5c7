"""A method that runs: front end, encoder, conditioner and separator in one module."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from avsep_zoo.blocks.consistency import share_out
from avsep_zoo.contracts import Conditioner, CueBatch, CueEncoder, Embedding, Estimate, FrontEnd, Separator, Spectrum
from avsep_zoo.generative.contract import Draw, DrivenSeparator, Driver
from avsep_zoo.generative.noise import Sampling, noise_at

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from avsep_zoo.cue import Cue
    from avsep_zoo.separation import Separation

__all__ = ["SeparationModel"]


class SeparationModel(nn.Module):
    """What :func:`avsep_zoo.load` and :func:`avsep_zoo.compose` return.

    Args:
        front_end, encoder, conditioner, separator: the parts.
        driver: what calls the network of a driven separator.
        name: e.g. ``iquery.mini``.
        parts: slot -> ``{"name": ..., **settings}``: enough to build the model again.
    """

    def __init__(
        self,
        *,
        front_end: FrontEnd,
        encoder: CueEncoder,
        conditioner: Conditioner,
        separator: Separator,
        driver: Driver | None = None,
        name: str = "composed",
        parts: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        self.front_end, self.encoder, self.conditioner, self.separator = front_end, encoder, conditioner, separator
        self.driver = driver
        self.name = name
        self.parts = dict(parts or {})
        self.frozen: frozenset[str] = frozenset()  # parameters a training run holds still (training.freeze)

    @property
    def rate(self) -> int:
        """Sample rate in Hz the model works at."""
        return self.front_end.rate

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names the model knows; empty for methods without classes."""
        return tuple(getattr(self.encoder, "classes", ()))

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def encode(self, cues: CueBatch | Embedding) -> Embedding:
        """Embed the cues of a batch; what is an embedding already stays as it is."""
        if isinstance(cues, Embedding):
            return cues
        embedding: Embedding = self.encoder(cues)
        return embedding

    def forward(self, batch: Mapping[str, Any]) -> Estimate:
        """Estimate the sources of a batch.

        Args:
            batch: ``mixture`` (B, L) at :attr:`rate`, and ``cues``, a :class:`~avsep_zoo.contracts.CueBatch`.
        """
        return self.estimate(self.front_end.analyse(batch["mixture"]), batch["cues"])

    def estimate(
        self,
        spectrum: Spectrum,
        cues: CueBatch | Embedding,
        *,
        sampling: Sampling | None = None,
        draw: Draw | None = None,
    ) -> Estimate:
        """Estimate the sources of an analysed mixture, from cues or from their embedding.

        Args:
            spectrum: of the mixtures.
            cues: of the batch.
            sampling: how a generative model samples; the same noise for every mixture unless it says otherwise.
            draw: other noise than that of ``sampling``; its items are the sources of the first mixture, the second, ...
        """
        inject = self.conditioner.bind(self.encode(cues))
        if self.driver is None or not isinstance(self.separator, DrivenSeparator):
            estimate: Estimate = self.separator(spectrum, inject)
            estimate.localisation = inject.localisation
            return estimate
        sampling = sampling or Sampling()
        sources = inject.sources
        mixture = repeat(spectrum.features, "b 1 f t -> (b n) 1 f t", n=sources)
        network = self.separator.bind(spectrum, inject)
        draw = draw or _noise_for(self.driver, sampling, mixture, sources)
        values = self.driver.sample(network, mixture, draw, steps=sampling.steps, solver=sampling.solver)
        return Estimate(
            rearrange(values, "(b n) 1 f t -> b n f t", n=sources),
            kind="features",
            loudness=float(sources) if self.driver.full_level else 1.0,
            localisation=inject.localisation,
        )

    def waveforms(
        self,
        batch: Mapping[str, Any],
        *,
        consistency: bool = False,
        sampling: Sampling | None = None,
        length: int | None = None,
    ) -> Tensor:
        """Return the waveforms (B, N, L') of one segment each, at :attr:`rate`; arguments as :meth:`forward`.

        Args:
            batch: as in :meth:`forward`.
            consistency: as in :meth:`separate`; without it this is the published inference.
            sampling: as in :meth:`estimate`.
            length: samples L'; None is a whole number of the front end's hops.
        """
        spectrum = self.front_end.analyse(batch["mixture"])
        estimate = self.estimate(spectrum, batch["cues"], sampling=sampling)
        if consistency:
            front: Any = self.front_end
            estimate = Estimate(share_out(front.warped_mask(estimate, spectrum)))
        return self.front_end.synthesise(estimate, spectrum, length=length)

    def separate(
        self,
        media: str | ArrayLike | Tensor | Any,
        cues: Sequence[Cue | str] | Cue | str,
        *,
        rate: int | None = None,
        consistency: bool = True,
        overlap: float = 0.5,
        batch: int = 4,
        seed: int = 0,
        steps: int | None = None,
        solver: str | None = None,
        progress: Callable[[float, float | None], None] | None = None,
    ) -> Separation:
        """Take a recording apart: one stem per cue, at the recording's own rate, channels and length.

        The masks are computed at the model's rate and applied to the full-band, full-channel mixture.

        Args:
            media: path of any audio or video file FFmpeg reads, or an array or tensor (samples,) or
                (channels, samples) with ``rate``.
            cues: one per source; a string is a label. The stem of a negated cue is the mixture without what the cue
                names, at the recording's own samples.
            rate: sample rate in Hz of an array.
            consistency: share the mixture out between the stems and a ``residual``, so that they add up to it
                (:func:`avsep_zoo.blocks.consistency.share_out`); otherwise the masks stay as they are and
                there is no residual. With negated cues the things that are named share the mixture; the
                residual is the one thing that is left out of all stems, if there is one.
            overlap: share of a segment that is cross-faded with the next one, in [0, 0.75].
            batch: segments that go through the network at once.
            seed: of the noise a generative model starts from: the same seed gives the same stems, with another
                ``batch`` up to rounding. Segments see the same noise where they overlap.
            steps: of a generative model's solver: more take longer; None is the model's own number.
            solver: one of the ``solvers`` of a generative model's driver; None is the model's own.
            progress: called with (seconds done, seconds in all or None).

        Raises:
            MediaError: the media cannot be read.
            CueError: a cue is missing something the model needs, or cannot be told from another.
            CompositionError: the model has no such solver, or cannot take as many steps.

        Warns:
            CueWarning: something of a cue is not used; :attr:`Separation.notes` say so, too.
        """
        from avsep_zoo.inference import separate

        return separate(
            self,
            media,
            cues,
            rate=rate,
            consistency=consistency,
            overlap=overlap,
            batch=batch,
            seed=seed,
            steps=steps,
            solver=solver,
            progress=progress,
        )


def _noise_for(driver: Driver, sampling: Sampling, mixture: Tensor, sources: int) -> Draw:
    """The noise of every source of every mixture (B N, 1, F', T'), at its place in the recording."""
    starts = sampling.starts or [0] * (len(mixture) // sources)

    def draw(number: int) -> Tensor:
        places = [(start, 0 if driver.shared_noise else n) for start in starts for n in range(sources)]
        noise = {
            (start, n): noise_at(start, *mixture.shape[2:], seed=sampling.seed, source=n, draw=number)
            for start, n in dict.fromkeys(places)
        }
        return torch.stack([noise[place] for place in places])[:, None].to(mixture)

    return draw
