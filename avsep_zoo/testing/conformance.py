"""The checks of every contract, as a pytest class to derive from.

::

    from avsep_zoo.testing import ConformanceChecks


    class TestMine(ConformanceChecks):
        recipe = "mine.tiny"

Each check is also a function of a :class:`~avsep_zoo.testing.subject.Subject` that raises AssertionError, or
:class:`~avsep_zoo.testing.verdict.NotApplicable` where there is nothing to check. pytest is needed by the class alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from avsep_zoo.testing.conformance_behaviour import (
    check_batch_independence,
    check_determinism,
    check_inputs_kept,
    check_missing_cues,
    check_source_order,
)
from avsep_zoo.testing.conformance_network import check_compile, check_cuda, check_export
from avsep_zoo.testing.conformance_recordings import check_any_length, check_consistency
from avsep_zoo.testing.conformance_stages import (
    check_analyse,
    check_encode,
    check_estimate,
    check_masks,
    check_plans,
    check_synthesise,
)
from avsep_zoo.testing.conformance_training import check_gradients, check_mixed_precision
from avsep_zoo.testing.conformance_weights import check_card, check_half_weights, check_state_dict
from avsep_zoo.testing.subject import Subject, subject_of
from avsep_zoo.testing.verdict import NotApplicable

__all__ = [
    "ConformanceChecks",
    "check_analyse",
    "check_any_length",
    "check_batch_independence",
    "check_card",
    "check_compile",
    "check_consistency",
    "check_cuda",
    "check_determinism",
    "check_encode",
    "check_estimate",
    "check_export",
    "check_gradients",
    "check_half_weights",
    "check_inputs_kept",
    "check_masks",
    "check_missing_cues",
    "check_mixed_precision",
    "check_plans",
    "check_source_order",
    "check_state_dict",
    "check_synthesise",
]


class ConformanceChecks:
    """Derive from this class, name a recipe, and pytest runs every check on it.

    Attributes:
        recipe: a registered method or ``method.variant``, built of its parts' ``small`` settings; or a mapping slot ->
            part as :func:`avsep_zoo.compose` takes them, perhaps with ``objective``, built as they are.
        settings: slot -> settings on top of the small ones, for a recipe by name.
        exempt: check, by its name without ``test_`` -> why it cannot hold for this method; it is skipped.
        largest_mask: largest value of a mask; ``float("inf")`` where there is no upper end.
        unreached: pattern (``"encoder.tower.*"``) of parameters that get no gradient on purpose -> why.
    """

    recipe: ClassVar[str | Mapping[str, Any]]
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    exempt: ClassVar[Mapping[str, str]] = {}
    largest_mask: ClassVar[float] = 1.0
    unreached: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def subject(cls) -> Subject:
        """The method, built once per class."""
        if "_subject" not in cls.__dict__:
            built = subject_of(
                cls.recipe, settings=cls.settings, largest_mask=cls.largest_mask, unreached=cls.unreached
            )
            cls._subject = built  # type: ignore[attr-defined]
        found: Subject = cls.__dict__["_subject"]
        return found

    def test_exemptions(self) -> None:
        """Every exemption is of a check that there is, and says why: one with a typing error exempts nothing."""
        checks = {name.removeprefix("test_") for name in dir(self) if name.startswith("test_")}
        wrong = [name for name, why in self.exempt.items() if name not in checks or not why.strip()]
        assert not wrong, f"exempt has {', '.join(wrong)}; name checks, {', '.join(sorted(checks))}, and give reasons."

    def test_analyse(self) -> None:
        """The front end gives a Spectrum that any separator can read: shapes, types, finite numbers."""
        self._run(check_analyse)

    def test_encode(self) -> None:
        """Cues become the views that `gives` promises, in their widths: conditioners are built for them."""
        self._run(check_encode)

    def test_estimate(self) -> None:
        """The separator answers on the axes of the features, one estimate per source, in float32."""
        self._run(check_estimate)

    def test_synthesise(self) -> None:
        """The front end brings estimates back to the linear axis and to waveforms of the length that is asked for."""
        self._run(check_synthesise)

    def test_masks(self) -> None:
        """Estimates keep their range, for silence and for loud mixtures, too."""
        self._run(check_masks)

    def test_plans(self) -> None:
        """Plans say what is built, and declared sites are visited in order: parts are composed from plans alone."""
        self._run(check_plans)

    def test_batch_independence(self) -> None:
        """A mixture comes out the same alone and among others: how many are batched is the user's choice."""
        self._run(check_batch_independence)

    def test_source_order(self) -> None:
        """Exchanged cues give exchanged estimates: nothing hangs on the place in the list."""
        self._run(check_source_order)

    def test_determinism(self) -> None:
        """The same input and seed give the same estimate, weights and loss: runs are resumed and repeated."""
        self._run(check_determinism)

    def test_inputs_kept(self) -> None:
        """No stage writes into what it is given: others use it again."""
        self._run(check_inputs_kept)

    def test_missing_cues(self) -> None:
        """What a cue lacks is done without, where it is optional, or asked for by name."""
        self._run(check_missing_cues)

    def test_gradients(self) -> None:
        """Every parameter that is not frozen is trained: a gradient reaches it, and an optimiser has it."""
        self._run(check_gradients)

    def test_mixed_precision(self) -> None:
        """bfloat16 autocast stays finite: the trainer offers it."""
        self._run(check_mixed_precision)

    def test_state_dict(self, tmp_path: Path) -> None:
        """A card that is written and loaded gives the same numbers: nothing lives outside settings and weights."""
        self._run(check_state_dict, tmp_path)

    def test_half_weights(self, tmp_path: Path) -> None:
        """Weights survive float16: small models are published in it."""
        self._run(check_half_weights, tmp_path)

    def test_card(self, tmp_path: Path) -> None:
        """The card that is written is valid: it can be published."""
        self._run(check_card, tmp_path)

    def test_any_length(self) -> None:
        """Recordings of any length come apart into stems of their length, silence included."""
        self._run(check_any_length)

    def test_consistency(self) -> None:
        """Masks that add up to 1 give sounds that add up to the mixture: stems and residual share it out."""
        self._run(check_consistency)

    def test_compile(self) -> None:
        """torch.compile takes the network, with the same numbers."""
        self._run(check_compile)

    def test_export(self) -> None:
        """torch.export takes the network, with the same numbers."""
        self._run(check_export)

    def test_cuda(self) -> None:
        """CUDA gives what the CPU gives, where there is CUDA."""
        self._run(check_cuda)

    def _run(self, check: Callable[..., None], *arguments: Any) -> None:
        import pytest

        name = check.__name__.removeprefix("check_")
        if name in self.exempt:
            pytest.skip(self.exempt[name])
        try:
            check(self.subject(), *arguments)
        except NotApplicable as reason:
            pytest.skip(str(reason))
