"""The objective: what adds up to a loss, whom its gradient reaches, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avsep_bimodal_sep.losses import alignment_loss, signal_ratio
from avsep_bimodal_sep.objective import BiModalObjective, Told, summed
from avsep_zoo import SeparationModel, compose
from avsep_zoo.compose import build_part
from avsep_zoo.contracts import CueBatch, Embedding
from avsep_zoo.errors import CompositionError, WeightsError
from avsep_zoo.recipe import PartConfig

LENGTH = 2047  # 32 frames
SOUND_TOWER = {
    "patch_embeds_hidden_size": 4, "depths": [1, 1], "num_attention_heads": [1, 2], "projection_dim": 8,
}  # fmt: skip
TEXT_TOWER = {
    "vocab_size": 40, "hidden_size": 12, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "max_position_embeddings": 20, "projection_dim": 8,
}  # fmt: skip
WORDS = {
    "name": "bimodal_sep.words", "naming": list("abcdefgh"), "other": list("stuv"), "width": 8, "length": 6,
    "heads": 2, "rate": 8000, "ear": 2, "forgotten": 0.0,
}  # fmt: skip
JUDGE: dict[str, Any] = {"rate": 8000, "tower": SOUND_TOWER, "clap_weights": None}


def model_of(**encoder: Any) -> SeparationModel:
    """A model of real parts whose cues count; what its batch norms know is as uneven as after training."""
    model = compose(
        encoder={**WORDS, **encoder} if encoder.get("name", WORDS["name"]) == WORDS["name"] else encoder,
        conditioner={"name": "bimodal_sep.attention", "heads": 2},
        separator={"name": "bimodal_sep.unet", "width": 2, "levels": 5, "mask_features": 3},
        front_end={
            "name": "stft", "rate": 8000, "length": LENGTH, "n_fft": 126, "hop_length": 64, "warp_rows": 32,
            "pad_mode": "reflect",
        },
        name="bimodal_sep.tiny",
    )  # fmt: skip
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_(0.0, 0.1)
                module.running_var.uniform_(0.5, 2.0)
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(100.0 if name == "conditioner.heads.head.fc.weight" else 2.0)
    return model


def published(model_seed: int = 0) -> SeparationModel:
    """With CLAP's small text tower."""
    torch.manual_seed(model_seed)
    model = model_of(name="bimodal_sep.clap_text", tower=TEXT_TOWER, length=5)
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def cues(batch: int, sources: int, length: int = 4, name: str = "words") -> CueBatch:
    generator = torch.Generator().manual_seed(sources + length)
    return CueBatch({name: torch.randint(2, 12, (batch, sources, length), generator=generator)})


def batch_of(batch: int = 2, sources: int = 2, sounds: int = 2, name: str = "words") -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    waves = 0.3 * torch.randn(batch, sources, LENGTH, generator=generator)
    told: dict[str, Any] = {"sources": waves, "cues": cues(batch, sources * sounds, name=name)}
    if sounds > 1:
        told["captions"] = cues(batch, sources, 5, name=name)
        told["shares"] = torch.tensor([1.0, 1.0, 0.5, 0.25] * sources)[: sources * sounds].expand(batch, -1)
    return told


def gradients(module: nn.Module) -> list[str]:
    """Names of parameters with a gradient that is not zero."""
    return [name for name, p in module.named_parameters() if p.grad is not None and bool(p.grad.any())]


def masks_by_hand(model: SeparationModel, mixture: Tensor, told: CueBatch) -> Tensor:
    """(B, N, F', T'), text by text."""
    spectrum = model.front_end.analyse(mixture)
    values = told.values["words"]
    one_by_one = [model.estimate(spectrum, CueBatch({"words": values[:, n : n + 1]})) for n in range(values.shape[1])]
    return torch.cat([estimate.values for estimate in one_by_one], dim=1)


@pytest.mark.parametrize("loss", ["l1", "l2"])
@pytest.mark.parametrize("weighting", ["log", "none"])
def test_reconstructions_by_hand(loss: Any, weighting: Any) -> None:
    """Captions are compared with weights of the mixture, sums of phrases with weights of the recording itself."""
    model, batch = model_of(), batch_of()
    objective = BiModalObjective(loss=loss, weighting=weighting, contrastive=0.0, reconstruction=3.0, consistency=0.5)
    values = objective.loss(model, batch)
    recordings = batch["sources"] / 2
    mixture = recordings.sum(dim=1)
    front: Any = model.front_end
    whole, mixed = front.warp(front.stft(recordings).abs()), front.warp(front.stft(mixture)[:, None].abs())
    phrases = masks_by_hand(model, mixture, batch["cues"])
    separation = consistency = 0.0
    for n in range(2):
        caption = masks_by_hand(model, mixture, batch["captions"])[:, n] * mixed[:, 0]
        added = sum(batch["shares"][0, k] * phrases[:, k] * mixed[:, 0] for k in (2 * n, 2 * n + 1))
        power = 1 if loss == "l1" else 2
        weights = [torch.log1p(x).clamp(1e-3, 10) if weighting == "log" else 1.0 for x in (mixed[:, 0], whole[:, n])]
        separation += (weights[0] * (caption - whole[:, n]).abs() ** power).mean().item()
        consistency += (weights[1] * (added - whole[:, n]).abs() ** power).mean().item()
    assert values["separation"].item() == pytest.approx(separation, rel=1e-4)
    assert values["consistency"].item() == pytest.approx(consistency, rel=1e-4)
    assert values["loss"].item() == pytest.approx(3.0 * separation + 1.5 * consistency, rel=1e-4)
    assert set(values) == {"loss", "separation", "consistency"}


def test_signal_by_hand() -> None:
    """Of waveforms of the length of the recordings, which no one clips; the mean over all of them."""
    model, batch = model_of(), batch_of()
    values = BiModalObjective(loss="signal", mixture="sum", contrastive=0.0).loss(model, batch)
    mixture = batch["sources"].sum(dim=1)
    front: Any = model.front_end
    spectrum = front.analyse(mixture)
    masks = {"separation": masks_by_hand(model, mixture, batch["captions"])}
    phrases = masks_by_hand(model, mixture, batch["cues"]).unflatten(1, (2, 2))
    masks["consistency"] = (phrases * batch["shares"].unflatten(1, (2, 2))[..., None, None]).sum(dim=2)
    for name, mask in masks.items():
        magnitude = front.unwarp(mask) * spectrum.magnitude
        waves = torch.istft((magnitude * spectrum.phase).flatten(0, 1), 126, 64, window=front.window, length=LENGTH)
        expected = -signal_ratio(waves.unflatten(0, (2, 2)), batch["sources"], most=30.0).mean()
        torch.testing.assert_close(values[name], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("soft", [False, True])
def test_contrastive_by_hand(soft: bool) -> None:
    """Per recording, among its phrases of all mixtures, in the order phrase by phrase."""
    model, batch = model_of(), batch_of(batch=3)
    objective = BiModalObjective(scale=5.0, soft=soft, contrastive=0.25)
    values = objective.loss(model, batch)
    mixture = batch["sources"].mean(dim=1)
    spectrum = model.front_end.analyse(mixture)
    masks = masks_by_hand(model, mixture, batch["cues"])
    waves = objective.waveforms(model, spectrum, masks, LENGTH)
    assert waves.shape == (3, 4, LENGTH)
    encoder: Any = model.encoder
    heard = encoder.hear(waves.flatten(0, 1)).unflatten(0, (3, 4))
    texts = F.normalize(encoder(batch["cues"]).vector, dim=-1)
    total = 0.0
    for n in range(2):
        a, t = (torch.cat([x[:, 2 * n], x[:, 2 * n + 1]]) for x in (heard, texts))
        right = torch.softmax(5 * t @ t.T, dim=1) if soft else torch.eye(6)
        total -= (right * torch.log_softmax(5 * a @ t.T, dim=1)).sum(dim=1).mean().item()
    assert values["contrastive"].item() == pytest.approx(total, rel=1e-3)
    weighted = 5 * (values["separation"] + values["consistency"]) + 0.25 * values["contrastive"]
    torch.testing.assert_close(values["loss"], weighted)


@pytest.mark.parametrize("judge", [None, JUDGE])
def test_the_judge_teaches_masks_alone(judge: Any) -> None:
    """Neither its own weights, nor texts; and what its batch norms know stays, in training, too."""
    model = (model_of() if judge is None else published()).train()
    objective = BiModalObjective(judge=judge).train()
    with torch.no_grad():
        for weight in objective.parameters():  # so that sounds differ
            weight.add_(0.3 * torch.randn_like(weight))
    spectrum = model.front_end.analyse(batch_of()["sources"].mean(dim=1))
    masks, vector = torch.rand(2, 4, 32, 32).requires_grad_(), torch.randn(2, 4, 8).requires_grad_()
    texts = Embedding(vector=vector)
    told = Told(texts, masks[:, :2], texts, masks)
    before = {name: value.clone() for name, value in (*model.named_buffers(), *objective.named_buffers())}
    objective.doubts(*objective.heard(model, spectrum, told, batch_of()["sources"])).sum().backward()
    assert masks.grad is not None and masks.grad.isfinite().all() and masks.grad.flatten(2).any(dim=2).all()
    assert vector.grad is None and gradients(model) == gradients(objective) == []
    after = dict((*model.named_buffers(), *objective.named_buffers()))
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert model.encoder.training


def test_every_part_learns() -> None:
    """But not the ear, from which nothing is taken but its opinion."""
    model = model_of().train()
    BiModalObjective().loss(model, batch_of())["loss"].backward()
    learning = set(gradients(model))
    for part in ("encoder.table", "encoder.fc", "conditioner.layers", "conditioner.heads", "separator.down.0"):
        assert any(name.startswith(part) for name in learning), part
    assert not any(name.startswith("encoder.ear") for name in learning)


def test_alignment_teaches_the_ear_and_texts() -> None:
    """From recordings of one sound, as far as their classes are known."""
    model, batch = model_of().train(), batch_of(sounds=1)
    objective = BiModalObjective(alignment=2.0)
    batch["cues"].values["label"] = torch.tensor([[0, 1], [-1, 0]])
    values = objective.loss(model, batch)
    (values["loss"] - 5 * values["separation"]).backward()
    assert set(values) == {"loss", "separation", "alignment"}
    learning = gradients(model)
    assert any(name.startswith("encoder.ear.convs") for name in learning) and "encoder.table.weight" in learning
    assert not any(name.startswith(("separator", "conditioner")) for name in learning)
    batch["cues"].values["label"] = torch.tensor([[-1, -1], [-1, 3]])
    assert objective.loss(model, batch)["alignment"].item() == 0.0
    assert "alignment" not in BiModalObjective().loss(model, batch)


@pytest.mark.parametrize("settings", [{}, {"consistency": 0.0, "contrastive": 0.0}, {"together": True}])
def test_alignment_of_single_sounds_among_others(settings: dict[str, Any]) -> None:
    """Those whose cues all name one class, with the text of the recording; unknown ones and mixtures do not count."""
    model, batch = model_of(), batch_of(batch=3)
    batch["cues"].values["label"] = torch.tensor([[2, 2, 1, 0], [-1, -1, 4, 4], [0, 1, 2, 2]])
    objective = BiModalObjective(alignment=1.0, **settings)
    values = objective.loss(model, batch)
    encoder: Any = model.encoder
    alone = [(0, 0), (1, 1), (2, 1)]
    heard = encoder.hear(torch.stack([batch["sources"][b, n] / 2 for b, n in alone]))
    texts = encoder(batch["captions"]).vector
    told = F.normalize(torch.stack([texts[b, n] for b, n in alone]), dim=-1)
    expected = alignment_loss(heard, told, torch.tensor([2, 4, 2]), scale=1 / 0.07)
    torch.testing.assert_close(values["alignment"], expected, rtol=1e-4, atol=1e-4)


def test_recordings_of_one_sound_have_no_phrases() -> None:
    """Their cue is all that is asked for."""
    model, batch = model_of(), batch_of(sounds=1)
    values = BiModalObjective().loss(model, batch)
    assert set(values) == {"loss", "separation"}
    torch.testing.assert_close(values["loss"], 5 * values["separation"])


def test_phrases_without_a_weight_are_not_separated() -> None:
    """The network runs for the captions alone."""
    for together, passes in ((False, 2), (True, 1)):
        model, counted = model_of(), list[int]()
        model.separator.register_forward_hook(lambda *_, counted=counted: counted.append(1))
        objective = BiModalObjective(consistency=0.0, contrastive=0.0, together=together)
        assert set(objective.loss(model, batch_of())) == {"loss", "separation"}
        assert len(counted) == passes


def test_together_is_one_by_one() -> None:
    """Texts are as long as they are, and nothing but the statistics of a batch depends on the others."""
    for model in (model_of(), published()):
        name = "words" if "words" in str(type(model.encoder)).lower() else "token_ids"
        batch = batch_of(name=name)
        if name == "token_ids":
            batch |= {entry: cues(2, n, 5, name=name) for entry, n in (("captions", 2), ("cues", 4))}
        judge = JUDGE if name == "token_ids" else None
        torch.manual_seed(0)
        alone = BiModalObjective(judge=judge)
        torch.manual_seed(0)
        together = BiModalObjective(judge=judge, together=True)
        first, second = alone.loss(model, batch), together.loss(model, batch)
        assert len(first) == 4
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("together", "updates"), [(False, 2 + 4), (True, 1)])
def test_statistics_of_batches(together: bool, updates: int) -> None:
    """Are collected once per run of the network."""
    model = model_of().train()
    BiModalObjective(together=together).loss(model, batch_of())
    norm: Any = model.separator.input_norm
    assert norm.num_batches_tracked.item() == updates


def test_shares_of_phrases_that_are_there_twice() -> None:
    """Two halves of one sound are that sound."""
    masks = torch.rand(2, 4, 3, 3)
    masks[:, 1] = masks[:, 0]
    shares = torch.tensor([[0.5, 0.5, 1.0, 1.0], [0.5, 0.5, 1.0, 0.25]])
    added = summed(masks, shares, 2)
    torch.testing.assert_close(added[:, 0], masks[:, 0])
    torch.testing.assert_close(added[1, 1], masks[1, 2] + 0.25 * masks[1, 3])
    torch.testing.assert_close(summed(masks, None, 2)[:, 1], masks[:, 2] + masks[:, 3])


def test_targets_divided_in_place() -> None:
    """The mixture is K times the sum of its targets, as published loaders have it; recordings of one sound stay."""
    model, batch = model_of(), batch_of(sounds=2)
    plain, in_place = (BiModalObjective(in_place=is_so, contrastive=0.0) for is_so in (False, True))
    quiet = {**batch, "sources": 0.5 * batch["sources"]}
    mixture = plain.mix(batch["sources"])[0]
    spectrum = model.front_end.analyse(mixture)
    told = plain.separate(model, spectrum, batch)
    expected = plain.reconstructions(model, spectrum, told, plain.mix(quiet["sources"])[1], batch["shares"])
    values = in_place.loss(model, batch)
    torch.testing.assert_close({name: values[name] for name in expected}, expected)
    solos = batch_of(sounds=1)
    torch.testing.assert_close(in_place.loss(model, solos), plain.loss(model, solos))


def test_background_is_under_the_mixture_alone() -> None:
    model, batch = model_of(), batch_of(sounds=1)
    batch["background"] = 0.5 * torch.randn(2, LENGTH)
    objective = BiModalObjective()
    values = objective.loss(model, batch)
    mixture, recordings = batch["sources"].mean(dim=1) + batch["background"], batch["sources"] / 2
    spectrum = model.front_end.analyse(mixture)
    told = objective.separate(model, spectrum, batch)
    expected = objective.reconstructions(model, spectrum, told, recordings)
    torch.testing.assert_close(values["separation"], expected["separation"])


def test_scale_is_the_judges_unless_it_is_set() -> None:
    """An ear has 1 / 0.07, as CLAP has before its weights are loaded."""
    heard, texts = (F.normalize(torch.randn(2, 3, 8), dim=-1) for _ in range(2))
    judged = BiModalObjective(judge=JUDGE)
    ear, set_to_3, set_to_14 = (BiModalObjective(scale=scale) for scale in (None, 3.0, 1 / 0.07))
    assert judged.judge is not None
    torch.testing.assert_close(judged.doubts(heard, texts), ear.doubts(heard, texts))
    torch.testing.assert_close(set_to_14.doubts(heard, texts), ear.doubts(heard, texts))
    judged.judge.logit_scale_a.fill_(torch.tensor(3.0).log())
    torch.testing.assert_close(judged.doubts(heard, texts), set_to_3.doubts(heard, texts))
    assert BiModalObjective(judge=JUDGE, scale=2.0).scale == 2.0


def test_optimiser_of_what_is_trainable() -> None:
    """The judge and the text tower are not, and are not moved."""
    model = published()
    objective = BiModalObjective(judge=JUDGE, learning_rate=1e-3, weight_decay=0.2)
    (optimiser,) = objective.optimisers(model)["model"]
    assert type(optimiser) is torch.optim.Adam
    assert optimiser.defaults["lr"] == 1e-3 and optimiser.defaults["weight_decay"] == 0.2
    trained = {id(p) for group in optimiser.param_groups for p in group["params"]}
    parts = (model.conditioner, model.separator)
    assert trained == {id(p) for part in parts for p in part.parameters()}
    assert objective.optimisers(model, learning_rate=0.5)["model"][0].defaults["lr"] == 0.5
    model.requires_grad_(False)
    assert objective.optimisers(model) == {"model": []}


def test_judges_without_weights() -> None:
    """None where there is nothing to judge; otherwise they have to be named."""
    assert BiModalObjective(judge=JUDGE, contrastive=0.0).judge is None
    BiModalObjective().load_pretrained()
    with pytest.raises(WeightsError, match="name a file or folder of them"):
        BiModalObjective(judge=JUDGE).load_pretrained()


def objective_part(**settings: Any) -> Any:
    return build_part("objective", PartConfig("bimodal_sep.bimodal", settings))


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"mixture": "median"}, "The mixture is 'median'; give mean or sum."),
        ({"loss": "spectral"}, "The loss is 'spectral'; give l1 or l2 or signal."),
        ({"weighting": "loud"}, "The weighting is 'loud'; give log or none."),
        ({"reconstruction": -1}, "The setting reconstruction is -1; give a number of at least 0."),
        ({"contrastive": float("nan")}, "The setting contrastive is nan; give a number of at least 0."),
        ({"alignment": float("inf")}, "The setting alignment is inf"),
        ({"learning_rate": 0.0}, "The setting learning_rate is 0.0; give a number above 0."),
        ({"scale": 0.0}, "The setting scale is 0.0; give a number above 0."),
        ({"most": 0}, "The setting most is 0; give a number above 0."),
        ({"judge": {"rate": 0}}, "rate is 0; give the sample rate in Hz."),
        ({"judge": {"tower": {"width": 3}}}, "The tower has no size 'width'"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(CompositionError) as caught:
        objective_part(**settings)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("model", "settings", "why"),
    [
        (published, {}, "the encoder of bimodal_sep.tiny has no ear; set objective.judge, or objective.contrastive"),
        (model_of, {"judge": {**JUDGE, "rate": 16000}}, "hears at 16000 Hz and bimodal_sep.tiny works at 8000 Hz"),
        (lambda: model_of(rate=11025), {}, "The ear of the encoder hears at 11025 Hz and .* set encoder.rate to 8000"),
        (lambda: model_of(width=16), {"judge": JUDGE}, "gives vectors of 8 numbers and the encoder .* of 16 numbers"),
    ],
)
def test_models_that_have_no_judge(model: Any, settings: dict[str, Any], why: str) -> None:
    """Of their sounds, rate or space."""
    with pytest.raises(CompositionError, match=why):
        objective_part(**settings).optimisers(model())


def test_a_model_without_an_ear_can_do_without() -> None:
    assert objective_part(contrastive=0.0).optimisers(published())["model"]


def test_generative_models_are_refused() -> None:
    model = model_of()
    model.driver = build_part("driver", PartConfig("flow"))
    with pytest.raises(CompositionError, match="take the objective generative"):
        objective_part().optimisers(model)
