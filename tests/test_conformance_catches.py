"""Every conformance check catches a plugin that is broken on purpose, and says what to do; a sound one passes."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import avsep_zoo
from avsep_zoo.blocks.mask_objective import MaskObjective
from avsep_zoo.blocks.unet import MaskUNet
from avsep_zoo.contracts import Bound, CueBatch, CueEncoder, Embedding, EncoderPlan, Estimate, SeparatorPlan, Spectrum
from avsep_zoo.cue import Cue
from avsep_zoo.errors import CueError
from avsep_zoo.front_end import StftFrontEnd
from avsep_zoo.plugins import register_plugin
from avsep_zoo.registry import registry
from avsep_zoo.testing import ConformanceChecks as Checks
from avsep_zoo.testing import NotApplicable, Subject, conformance, subject_of


class Names(CueEncoder):
    """Sound: a learned vector per class."""

    def __init__(self, *, classes: Sequence[str] = ("violin", "flute"), width: int = 4) -> None:
        super().__init__()
        plan = self.plan(width=width)
        self.reads, self.optional, self.gives = plan.reads, plan.optional, plan.gives
        self.classes = tuple(classes)
        self.table = nn.Embedding(len(self.classes), width)

    @classmethod
    def plan(cls, *, width: int = 4, **_: Any) -> EncoderPlan:
        return EncoderPlan(frozenset({"label"}), {"vector": width})

    def prepare(self, cues: Sequence[Cue], **_: Any) -> CueBatch:
        for cue in cues:
            if cue.label is None:
                raise CueError(f"The cue {cue.title!r} has no label; give one of {', '.join(self.classes)}.")
        return CueBatch({"label": torch.tensor([[self.classes.index(str(cue.label)) for cue in cues]])})

    def forward(self, cues: CueBatch) -> Embedding:
        return Embedding(vector=self.table(cues.values["label"]))


class WiderThanPromised(Names):
    def forward(self, cues: CueBatch) -> Embedding:
        vector = self.table(cues.values["label"])
        return Embedding(vector=torch.cat((vector, vector), dim=-1))


class GuessesLabels(Names):
    def prepare(self, cues: Sequence[Cue], **_: Any) -> CueBatch:
        return CueBatch({"label": torch.tensor([[self.classes.index(cue.label or "violin") for cue in cues]])})


class CrashesWithoutLabel(Names):
    def prepare(self, cues: Sequence[Cue], **_: Any) -> CueBatch:
        return CueBatch({"label": torch.tensor([[self.classes.index(cue.label.lower()) for cue in cues]])})  # type: ignore[union-attr]


class SortsItsClasses(Names):
    def __init__(self, *, classes: Sequence[str] = ("violin", "flute"), width: int = 4) -> None:
        super().__init__(classes=sorted(classes), width=width)


class PlansAnotherWidth(Names):
    @classmethod
    def plan(cls, *, width: int = 4, **_: Any) -> EncoderPlan:
        return EncoderPlan(frozenset({"label"}), {"vector": 4})

    def __init__(self, *, classes: Sequence[str] = ("violin", "flute"), width: int = 6) -> None:
        super().__init__(classes=classes, width=width)
        self.gives = {"vector": width}


class RandomTable(Names):
    def __init__(self, *, classes: Sequence[str] = ("violin", "flute"), width: int = 4) -> None:
        super().__init__(classes=classes, width=width)
        self.table.weight.data = torch.from_numpy(np.random.default_rng().standard_normal((2, width))).float()


class SqueezesItsFeatures(StftFrontEnd):
    def analyse(self, waveform: Tensor) -> Spectrum:
        spectrum = super().analyse(waveform)
        spectrum.features = spectrum.features.squeeze(1)
        return spectrum


class ForgetsTheLength(StftFrontEnd):
    def synthesise(self, estimate: Estimate, spectrum: Spectrum, *, length: int | None = None) -> Tensor:
        return super().synthesise(estimate, spectrum)


class NormalisesStems(StftFrontEnd):
    def synthesise(self, estimate: Estimate, spectrum: Spectrum, *, length: int | None = None) -> Tensor:
        stems = super().synthesise(estimate, spectrum, length=length)
        return stems / stems.abs().amax(dim=-1, keepdim=True).clamp_min(1e-6)


class OneRowOff(MaskUNet):
    def forward(self, spectrum: Spectrum, inject: Bound) -> Estimate:
        estimate = super().forward(spectrum, inject)
        return Estimate(estimate.values[:, :, 1:])


class GivesLogits(MaskUNet):
    def forward(self, spectrum: Spectrum, inject: Bound) -> Estimate:
        estimate = super().forward(spectrum, inject)
        return Estimate(torch.logit(estimate.values.clamp(1e-6, 1 - 1e-6)))


class DeclaresOneSiteMore(MaskUNet):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.sites = self.plan(**{k: v for k, v in settings.items() if k != "widths"}).sites

    @classmethod
    def plan(cls, **config: Any) -> SeparatorPlan:
        plan = MaskUNet.plan(**config)
        bottleneck = next(site for site in plan.sites.values() if site.kind == "bottleneck")
        return SeparatorPlan({**plan.sites, "second": bottleneck}, plan.driven)


class OverTheBatch(MaskUNet):
    def forward(self, spectrum: Spectrum, inject: Bound) -> Estimate:
        values = super().forward(spectrum, inject).values
        return Estimate(values / values.amax().clamp_min(1.0) * values.mean(dim=0, keepdim=True))


class MixesUpItsAxes(MaskUNet):
    def forward(self, spectrum: Spectrum, inject: Bound) -> Estimate:
        values = super().forward(spectrum, inject).values
        return Estimate(values.transpose(0, 1).reshape(values.shape))


class FavoursTheFirst(MaskUNet):
    def forward(self, spectrum: Spectrum, inject: Bound) -> Estimate:
        values = super().forward(spectrum, inject).values
        return Estimate(values / (1 + torch.arange(values.shape[1])[:, None, None]))


class DropsOutAlways(MaskUNet):
    def forward(self, spectrum: Spectrum, inject: Bound) -> Estimate:
        return Estimate(F.dropout(super().forward(spectrum, inject).values, 0.1, training=True).clamp_max(1.0))


class CentresInPlace(MaskUNet):
    def forward(self, spectrum: Spectrum, inject: Bound) -> Estimate:
        spectrum.features -= spectrum.features.mean(dim=(2, 3), keepdim=True)
        return super().forward(spectrum, inject)


class Detaches(Names):
    def forward(self, cues: CueBatch) -> Embedding:
        return Embedding(vector=self.table(cues.values["label"]).detach())


class HasASpareLayer(MaskUNet):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.spare = nn.Linear(2, 2)


class AddsTwoTypes(MaskUNet):
    def forward(self, spectrum: Spectrum, inject: Bound) -> Estimate:
        values = super().forward(spectrum, inject).values
        total = torch.zeros(values.shape).index_add(0, torch.arange(len(values)), values)
        return Estimate(total)


class KeepsATensor(MaskUNet):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.scale = torch.rand(())

    def forward(self, spectrum: Spectrum, inject: Bound) -> Estimate:
        return Estimate(super().forward(spectrum, inject).values * self.scale)


class HasLargeWeights(MaskUNet):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.frequency = nn.Parameter(torch.tensor([1e6, 2e6]))

    def forward(self, spectrum: Spectrum, inject: Bound) -> Estimate:
        return Estimate(super().forward(spectrum, inject).values * (self.frequency / 2e6).mean().clamp(0.0, 1.0))


class DividesBySilence(MaskUNet):
    def forward(self, spectrum: Spectrum, inject: Bound) -> Estimate:
        spread = spectrum.magnitude.std(dim=(2, 3), keepdim=True)
        return Estimate(super().forward(spectrum, inject).values * (spread / spread))


class HasAWrongShortcut(MaskUNet):
    def forward(self, spectrum: Spectrum, inject: Bound) -> Estimate:
        values = super().forward(spectrum, inject).values
        return Estimate(values.round() if torch.compiler.is_compiling() else values)


class BranchesOnData(MaskUNet):
    def forward(self, spectrum: Spectrum, inject: Bound) -> Estimate:
        values = super().forward(spectrum, inject).values
        return Estimate(values if spectrum.magnitude.sum() > 0 else values * 0)


class LeavesTheEncoderOut(MaskObjective):
    def optimisers(self, model: Any, *, learning_rate: float | None = None) -> dict[str, list[torch.optim.Optimizer]]:
        return {"model": [torch.optim.Adam(model.separator.parameters(), lr=1e-3)]}


SEPARATOR = {"width": 4, "levels": 4, "mask_features": 2}
SOUND: dict[str, Any] = {
    "encoder": {"name": "broken.names", "classes": ["violin", "flute"]},
    "conditioner": "tiled_concat",
    "separator": {"name": "mask_unet", **SEPARATOR},
    "front_end": {
        "name": "stft", "rate": 8000, "length": 2047, "n_fft": 126, "hop_length": 64, "warp_rows": 32,
        "align_corners": True,
    },
    "objective": {"name": "masks", "mixture": "sum"},
}  # fmt: skip
KINDS = {CueEncoder: "encoder", StftFrontEnd: "front_end", MaskUNet: "separator", MaskObjective: "objective"}
BROKEN: list[tuple[str, type, str]] = [
    ("analyse", SqueezesItsFeatures, r"Spectrum\.features of mixtures \(2, 2047\) is \(2, 32, 32\)\."),
    ("encode", WiderThanPromised, r"The view vector has the width 8 and `gives` says 4\."),
    (
        "estimate",
        OneRowOff,
        r"Estimate\.values is \(2, 2, 31, 32\) for features \(2, 1, 32, 32\), not \(2, 2, 32, 32\)",
    ),
    ("synthesise", ForgetsTheLength, r"With length=2047 and hops of 64 there were 1984 samples\."),
    ("masks", GivesLogits, r"Of silence the mask has values from -"),
    ("masks", DividesBySilence, r"Of silence the estimate has values that are not finite"),
    ("plans", PlansAnotherWidth, r"'broken\.plans_another_width' has the gives \{'vector': 4\}, built \{'vector': 6\}"),
    ("plans", DeclaresOneSiteMore, r"declares the sites bottleneck, .*, second and came to bottleneck"),
    ("batch_independence", OverTheBatch, r"Mixture 0 of 3 is .* away from itself alone"),
    ("batch_independence", MixesUpItsAxes, r"Mixture 0 of 3 is .* away from itself alone"),
    ("source_order", FavoursTheFirst, r"Exchanged cues give estimates that are .* away"),
    ("determinism", DropsOutAlways, r"Two estimates of the same are .* apart"),
    ("determinism", RandomTable, r"Built twice under one seed, the entries encoder\.table\.weight differ"),
    ("inputs_kept", CentresInPlace, r"The separator changed 0\.features\."),
    ("missing_cues", GuessesLabels, r"Cues without label were taken, and it is not optional"),
    ("missing_cues", CrashesWithoutLabel, r"Preparing cues without label raised AttributeError: 'NoneType'"),
    ("gradients", Detaches, r"No gradient, or zeros, came to encoder\.table\.weight\."),
    ("gradients", HasASpareLayer, r"No gradient, or zeros, came to separator\.spare\.bias, separator\.spare\.weight\."),
    ("gradients", LeavesTheEncoderOut, r"No optimiser has encoder\.table\.weight\."),
    ("mixed_precision", AddsTwoTypes, r"Estimating in bfloat16 raised RuntimeError"),
    ("state_dict", KeepsATensor, r"The loaded model estimates .* away from the saved one"),
    ("half_weights", HasLargeWeights, r"Writing the card raised WeightsError: The weight 'separator\.frequency'"),
    ("card", SortsItsClasses, r"The card has 1 problems, the first: avsep\.classes has 2 names and the encoder others"),
    ("any_length", DividesBySilence, r"Separating 0\.3 s of silence raised WeightsError"),
    ("consistency", NormalisesStems, r"Two masks that add up to 1 give sounds that are .* away from the mask 1"),
    ("compile", HasAWrongShortcut, r"The compiled network is .* away from the plain one"),
    ("export", BranchesOnData, r"torch\.export raised "),
]


def _kind(part: type) -> str:
    return next(kind for base, kind in KINDS.items() if issubclass(part, base))


def _name(part: type) -> str:
    return "broken." + "".join(f"_{c.lower()}" if c.isupper() else c for c in part.__name__).strip("_")


class BrokenPlugin:
    """Registers every class above."""

    @avsep_zoo.hookimpl
    def avsep_register(self, register: Any) -> None:
        for part in dict.fromkeys([Names, KeepsATensor, *(part for _, part, _ in BROKEN)]):
            getattr(register, _kind(part))(_name(part), f"{__name__}:{part.__name__}")


@pytest.fixture(autouse=True)
def broken_plugin() -> Iterator[None]:
    """A registry with the broken parts, which is forgotten afterwards."""
    registry.cache_clear()
    registry()
    register_plugin(BrokenPlugin(), "broken")
    yield
    registry.cache_clear()


def _with(part: type) -> Subject:
    """The sound method with one part in place of its own; it keeps the settings."""
    kind = _kind(part)
    return subject_of({**SOUND, kind: {**SOUND[kind], "name": _name(part)}})


def _run(check: str, subject: Subject, folder: Path) -> None:
    function = getattr(conformance, f"check_{check}")
    function(*((subject, folder) if check in ("card", "half_weights", "state_dict") else (subject,)))


@pytest.mark.parametrize(
    ("check", "part", "seen"), BROKEN, ids=[f"{check}-{part.__name__}" for check, part, _ in BROKEN]
)
def test_caught(check: str, part: type, seen: str, tmp_path: Path) -> None:
    """The check fails and says what was seen, what the contract says, and the usual cause."""
    with pytest.raises(AssertionError, match=seen) as failure:
        _run(check, _with(part), tmp_path / "card")
    text = str(failure.value)
    assert " The contract: " in text and " The usual cause: " in text and "\n" not in text


@pytest.mark.parametrize("check", sorted({check for check, _, _ in BROKEN}))
def test_sound_passes(check: str, tmp_path: Path) -> None:
    """The method that the broken ones are made of passes."""
    _run(check, subject_of(SOUND), tmp_path / "card")


def test_every_check_is_tested() -> None:
    """No check is without a broken plugin; the one of CUDA has its own tests."""
    checks = {name.removeprefix("check_") for name in conformance.__all__ if name.startswith("check_")}
    assert checks == {check for check, _, _ in BROKEN} | {"cuda"}
    methods = {name.removeprefix("test_") for name in dir(Checks) if name.startswith("test_")}
    assert methods == checks | {"exemptions"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_caught() -> None:
    """A tensor that stays on the CPU."""
    subject = _with(KeepsATensor)
    subject.model.separator.scale = subject.model.separator.scale[None]  # type: ignore[operator]
    with pytest.raises(AssertionError, match="Estimating on CUDA raised RuntimeError"):
        conformance.check_cuda(subject)


def test_no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without CUDA there is nothing to compare, and the reason says so."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(NotApplicable, match="no CUDA device"):
        conformance.check_cuda(subject_of(SOUND))


def _class(**attributes: Any) -> Checks:
    made: Mapping[str, Any] = {"recipe": SOUND, **attributes}
    instance: Checks = type("TestMade", (Checks,), dict(made))()
    return instance


def test_exempt() -> None:
    """A declared exemption skips the check with its reason; one of no check, or without a reason, is refused."""
    with pytest.raises(pytest.skip.Exception, match="It is meant so"):
        _class(exempt={"masks": "It is meant so."}).test_masks()
    _class(exempt={"masks": "It is meant so."}).test_exemptions()
    with pytest.raises(AssertionError, match="exempt has mask; name checks, analyse, any_length, "):
        _class(exempt={"mask": "It is meant so."}).test_exemptions()
    with pytest.raises(AssertionError, match="exempt has masks"):
        _class(exempt={"masks": " "}).test_exemptions()


def test_declared_range_and_parameters() -> None:
    """What is declared is allowed: masks above 1, and parameters without a gradient."""
    spare = {"separator": {**SOUND["separator"], "name": "broken.has_a_spare_layer"}}
    _class(recipe={**SOUND, **spare}, unreached={"separator.spare.*": "For later."}).test_gradients()
    logits = {"separator": {**SOUND["separator"], "name": "broken.favours_the_first"}}
    with pytest.raises(AssertionError, match="Of silence the mask has values from"):
        _class(recipe={**SOUND, **logits}, largest_mask=0.1).test_masks()


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """A method that needs a package that is not installed is skipped, and the reason is how to install it."""
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(pytest.skip.Exception, match=r"An optional package is missing: .*pip install"):
        _class(recipe="davis.music").test_encode()


def test_objective_is_optional(tmp_path: Path) -> None:
    """Without an objective how it trains is skipped, and the rest is checked."""
    recipe = {slot: part for slot, part in SOUND.items() if slot != "objective"}
    with pytest.raises(pytest.skip.Exception, match="name one in the recipe"):
        _class(recipe=recipe).test_gradients()
    _class(recipe=recipe).test_determinism()
    _class(recipe=recipe).test_card(tmp_path)
