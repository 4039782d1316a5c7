"""Parity adapters of the whole method: golden cases of the official implementation, run through composed models.

Each adapter is a function of a case (configuration, official state dicts, inputs) and returns named outputs. The graphs
of a case may have any edges; those of a model are always complete, so its graph network is called as it is here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange, repeat
from torch import Tensor

from avsep_avsgs.classifier import SpectrogramClassifier
from avsep_avsgs.conditioner import SceneGraph, Unrolled
from avsep_avsgs.convert import convert_official, target
from avsep_avsgs.encoder import DetectionsEncoder
from avsep_avsgs.objective import CoSeparationObjective, class_losses
from avsep_avsgs.parity import POOLING, graph_numbers, only, reordered, separated, tensor, unroll
from avsep_avsgs.separator import CoSeparationUNet
from avsep_zoo.blocks.mask_loss import loudness_weight
from avsep_zoo.compose import compose
from avsep_zoo.contracts import Embedding, Estimate, Spectrum
from avsep_zoo.front_end import StftFrontEnd
from avsep_zoo.model import SeparationModel

if TYPE_CHECKING:
    from avsep_zoo.parity.case import Case

__all__ = ["composed_model", "method_test", "method_train", "separated_window", "train_step"]

Outputs = dict[str, Any]
_FLOOR = 1e-10
_TEACHES = "objective."
_NORMS = {
    "unet": "grad_norm_net_unet",
    "classifier": "grad_norm_net_classifier",
    "graph_net": "grad_norm_graph_nets",
    "map_net": "grad_norm_map_net",
    "rnn": "grad_norm_rnn",
}
_GRADIENTS = {
    "grad_unet_down1_weight": ("unet", "audionet_convlayer1.0.weight"),
    "grad_gru_weight_hh": ("rnn", "weight_hh_l0"),
    "grad_gat_bias": ("graph_net", "node_conv.bias"),
}
_STATISTICS = {
    "bn_running_mean_unet_down1": ("unet", "audionet_convlayer1.1.running_mean"),
    "bn_running_var_edge": ("graph_net", "edge_conv.nn.0.2.running_var"),
}


@torch.no_grad()
def method_train(case: Case) -> Outputs:
    """Recordings and their mixtures to masks and losses."""
    return _Training(case).outputs()


def train_step(case: Case) -> Outputs:
    """The same with gradients by official part and entry, and running statistics after it.

    The networks run in double precision: batch normalisation over few rows amplifies the rounding of single precision
    to about the tolerances.
    """
    training = _Training(case, torch.float64)
    outputs = training.outputs()
    outputs["total_loss"].backward()
    holders = {"objective.": training.objective, "": training.model}
    gradients = {f"{p}{n}": v.grad for p, m in holders.items() for n, v in m.named_parameters() if v.grad is not None}
    buffers = {f"{p}{n}": v for p, m in holders.items() for n, v in m.named_buffers()}
    for part, official in case.state_dicts.items():
        names = {name for key in official for name in target(part, key)}
        norms = [value.double().norm() for name, value in gradients.items() if name in names]
        outputs[_NORMS[part]] = torch.stack(norms).norm()
    for values, wanted in ((gradients, _GRADIENTS), (buffers, _STATISTICS)):
        for output, (part, key) in wanted.items():
            if key in case.state_dicts[part]:
                outputs[output] = values[target(part, key)[0]]
    return outputs | {"class_loss": outputs["class_loss_reordered"]}


@torch.no_grad()
def method_test(case: Case) -> Outputs:
    """One window of a mixture and the graph of one object to the object's waveform."""
    model, objective = composed_model(case)
    return separated_window(model, case, objective.classifier)


@torch.no_grad()
def separated_window(model: SeparationModel, case: Case, classifier: SpectrogramClassifier | None = None) -> Outputs:
    """What a model makes of the mixture and the graph of a case of the adapter ``method_test``."""
    front: Any = model.front_end
    numbers = tensor(case, "batch_vec").long()
    pooled, bound = _bound(case, model, numbers, padded=False, mixtures=1)
    spectrum = front.analyse(tensor(case, "mixture")[None])
    estimate, tap = separated(model.separator, spectrum, bound)
    linear = front.linear_magnitude(Estimate(estimate.values), spectrum)
    wave = front.istft(linear * spectrum.phase, length=case.config["audio_window"]).clamp(-1.0, 1.0)
    predicted = rearrange(estimate.values * spectrum.warped, "1 n f t -> n 1 f t")
    outputs = {
        "graph_embedding": pooled,
        "visual_feature": bound.unrolled.flatten(0, 2),
        "decoder1": tap.seen[_first_decoder(model)],
        "mask": rearrange(estimate.values, "1 n f t -> n 1 f t"),
        "pred_spectrogram": predicted,
        "wave": wave[0, 0] if wave.shape[1] == 1 else wave[0],
    }
    if classifier is not None:
        outputs["logits"] = classifier((predicted + _FLOOR).log())
    return outputs


class _Training:
    """A training batch of a case, and the modules it goes through."""

    def __init__(self, case: Case, dtype: torch.dtype = torch.float32) -> None:
        only(case, weighted_loss=True, loss_weight_clamp=[0.001, 10])
        self.case, self.dtype = case, dtype
        model, objective = composed_model(case)
        self.model, self.objective = model.to(dtype), objective.to(dtype)

    def outputs(self) -> Outputs:
        """Everything on the way from the inputs to the losses."""
        case, config, front = self.case, self.case.config, self.model.front_end
        waves, mixtures = tensor(case, "waves").float(), tensor(case, "mixtures").float()
        members = _members(mixtures, config["num_per_mix"])
        assert isinstance(front, StftFrontEnd)
        spectrum = front.analyse(mixtures[::members])
        spectrum.warped = spectrum.warped.to(self.dtype)
        spectrum.features = front.compress(spectrum.warped)
        magnitudes = front.stft(rearrange(waves, "(b n) l -> b n l", n=members)).abs()
        numbers, padded = graph_numbers(case)
        pooled, bound = _bound(case, self.model, numbers, padded=padded, mixtures=len(mixtures) // members)
        estimate, tap = separated(self.model.separator, spectrum, bound)
        labels = tensor(case, "labels").long().reshape(*bound.unrolled.shape[:3])
        there = tensor(case, "loss_ind").reshape(labels.shape) > 0
        sounds = labels.masked_fill(~there, -1)
        logits, values = self._losses(spectrum, magnitudes, estimate, sounds, bound)
        grouped, asked = logits.unflatten(0, (-1, labels.shape[2])), sounds.flatten(0, 1)
        better = reordered(case, grouped, asked)
        co_separation = config.get("coseparation_loss_weight", 1.0) * values["co_separation"]
        orthogonality = config.get("orthogonality_loss_weight", 1.0) * values["orthogonality"]
        class_loss = config["classifier_loss_weight"] * values["class"]

        def rows(points: Tensor, times: int) -> Tensor:
            return repeat(points, "b n f t -> (b n times) 1 f t", times=times)

        mixed = rows(spectrum.warped, sounds.shape[1] * sounds.shape[2])
        target_masks = self.objective.targets(front, spectrum, magnitudes)
        assert estimate.logits is not None
        return {
            "graph_embedding": pooled,
            "source_embeddings": bound.unrolled.flatten(0, 2),
            "decoder1": tap.seen[_first_decoder(self.model)],
            "mask_logits": rows(estimate.logits, 1),
            "mask": rows(estimate.values, 1),
            "gt_mask": rows(target_masks, sounds.shape[2]),
            "mix_mag_warped": mixed,
            "weight": loudness_weight(mixed),
            "pred_spectrogram": rows(estimate.values, 1) * mixed,
            "logits": logits,
            "orthogonality_loss": orthogonality,
            "coseparation_loss": co_separation,
            "class_loss_plain": config["classifier_loss_weight"] * class_losses(grouped, asked).mean(),
            "class_loss_reordered": class_loss,
            "reordered_labels": torch.where(asked < 0, labels.flatten(0, 1), better).flatten(),
            "total_loss": class_loss + co_separation + orthogonality,
        }

    def _losses(
        self, spectrum: Spectrum, magnitudes: Tensor, estimate: Estimate, sounds: Tensor, bound: Unrolled
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits of the classifier, and the losses as training has them: labels are swapped where that is better."""
        classifier, logits = self.objective.classifier, list[Tensor]()
        assert classifier is not None
        hook = classifier.register_forward_hook(lambda _, given, out: logits.append(out))
        self.objective.training = self.case.config.get("num_object_per_video", 2) == 2
        values = self.objective.losses(
            self.model.front_end, spectrum, magnitudes, estimate.values, sounds, bound.unrolled
        )
        hook.remove()
        return logits[0], values


def composed_model(case: Case) -> tuple[SeparationModel, CoSeparationObjective]:
    """The method with the official weights of the case, in its mode, and the objective with its classifier."""
    config, parts = case.config, case.state_dicts
    only(case, stft_window="hann_periodic", mix_eps=1e-10, map_negative_slope=0.2)
    model = compose(
        encoder={
            "name": "avsgs.detections",
            "features": config["feat_dim"],
            "hidden": config["map_hidden"],
            "width": parts["map_net"]["2.bias"].numel(),
            "objects": config.get("num_object_per_video", 2),
        },
        conditioner={
            "name": "avsgs.scene_graph",
            "width": config["rnn_hidden"],
            "hidden": config["nhid"],
            "heads": config["heads"],
            "kind": config["gnet_type"],
            "activation": config["hidden_act"],
        },
        separator={"name": "avsgs.unet", "width": config["ngf"], "levels": config["unet_num_layers"]},
        front_end={
            "name": "stft",
            "rate": config["audio_sampling_rate"],
            "length": config["audio_window"],
            "n_fft": config["stft_frame"],
            "hop_length": config["stft_hop"],
            "warp_rows": config["log_bins"] if config.get("log_freq", True) else 0,
            "pad_mode": config["stft_pad_mode"],
            "log_offset": 0.0,
        },
    )
    objective = CoSeparationObjective(
        loss=config.get("mask_loss_type", "L1").lower(),
        target_limit=config.get("gt_mask_clamp", [0, 5])[1],
        classes=config["number_of_classes"] - 1,
        class_weight=float("classifier" in parts),
        classifier_pooling=POOLING[config.get("classifier_pool", "maxpool")],
    )
    state, _ = convert_official(parts)
    taught = {name: value for name, value in state.items() if name.startswith(_TEACHES)}
    model.load_state_dict({name: value for name, value in state.items() if name not in taught})
    objective.load_state_dict({name.removeprefix(_TEACHES): value for name, value in taught.items()})
    training = case.mode == "train"
    model.train(training)
    objective.train(training)
    return model, objective


def _bound(
    case: Case, model: SeparationModel, numbers: Tensor, *, padded: bool, mixtures: int
) -> tuple[Tensor, Unrolled]:
    """Vectors of the graphs as the network gives them, and the conditioner bound to the recordings of B mixtures."""
    encoder, conditioner = model.encoder, model.conditioner
    assert isinstance(encoder, DetectionsEncoder) and isinstance(conditioner, SceneGraph)
    dtype = next(encoder.parameters()).dtype
    nodes = encoder.embed_nodes(tensor(case, "nodes").to(dtype))
    pooled = conditioner.graph(nodes, tensor(case, "edge_index").long(), numbers, int(numbers.max()) + 1)
    recordings = pooled[1:] if padded else pooled
    sounds = unroll(conditioner, recordings, case.config["unroll_steps"], tensor(case, "rnn_init").to(dtype))
    unrolled = rearrange(sounds, "(b n) s d -> b n s d", b=mixtures)
    tiled = conditioner.tiled.bind(Embedding(vector=unrolled.flatten(1, 2)))
    return pooled, Unrolled(tiled, unrolled, rearrange(recordings, "(b n) d -> b n d", b=mixtures))


def _members(mixtures: Tensor, sources: int) -> int:
    """How many recordings, one after the other, share a mixture: as many as the case says, if they do."""
    if len(mixtures) % sources:
        return 1
    groups = mixtures.unflatten(0, (-1, sources))
    return sources if torch.equal(groups, groups[:, :1].expand_as(groups)) else 1


def _first_decoder(model: SeparationModel) -> str:
    assert isinstance(model.separator, CoSeparationUNet)
    return f"decoder{model.separator.levels}"
