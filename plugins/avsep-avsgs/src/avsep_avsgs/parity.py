"""Parity adapters of networks and losses: golden cases of the official code, run through this plugin's modules.

Each adapter is a function of a case (configuration, official state dicts, inputs) and returns named outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from einops import rearrange
from torch import Tensor, nn

from avsep_avsgs.classifier import SpectrogramClassifier
from avsep_avsgs.conditioner import SourceUnroll, orthogonality_loss
from avsep_avsgs.convert import convert_official
from avsep_avsgs.encoder import CropsEncoder, DetectionsEncoder
from avsep_avsgs.graph import GraphNet
from avsep_avsgs.objective import class_losses, co_separation_loss, swapped_labels
from avsep_avsgs.separator import CoSeparationUNet
from avsep_zoo.blocks.mask_loss import loudness_weight
from avsep_zoo.blocks.tiled_concat import TiledConcat
from avsep_zoo.contracts import Bound, Embedding, Estimate, Separator, Site, Spectrum
from avsep_zoo.errors import DataError

if TYPE_CHECKING:
    from avsep_zoo.parity.case import Case

__all__ = [
    "POOLING",
    "classifier",
    "graph_net",
    "graph_numbers",
    "gru_unroll",
    "losses",
    "map_net",
    "only",
    "pooled",
    "reordered",
    "separated",
    "tensor",
    "unet",
    "unroll",
    "visual_net",
]

Outputs = dict[str, Any]
Module = TypeVar("Module", bound=nn.Module)
POOLING: Mapping[str, Any] = {"maxpool": "max", "avgpool": "average"}


@torch.no_grad()
def map_net(case: Case) -> Outputs:
    """The map from a detector's features to nodes."""
    config = case.config
    only(case, negative_slope=0.2)
    encoder = DetectionsEncoder(features=config["in"], hidden=config["hidden"], width=config["out"])
    _load(encoder, "encoder.", case)
    return {
        "mapped": encoder.embed_nodes(tensor(case, "nodes")),
        "zero_node": encoder.embed_nodes(torch.zeros(1, config["in"])),
    }


@torch.no_grad()
def visual_net(case: Case) -> Outputs:
    """The network on crops, part by part."""
    config = case.config
    only(case, pool_type="conv1x1", input_channel=3, with_fc=True)
    reduced = config.get("reduced_channels", 128)
    side = isqrt(config["fc_in"] // reduced)
    encoder = CropsEncoder(image_size=32 * side, reduced=reduced, features=config["fc_out"])
    _load(encoder, "encoder.", case)
    crops = tensor(case, "crops")
    feature_map = encoder.features(crops)
    return {
        "feature_map": feature_map,
        "reduced": encoder.reduce(feature_map),
        "embedding": encoder.embed_nodes(crops)[:, :, None, None],
    }


@torch.no_grad()
def classifier(case: Case) -> Outputs:
    """The network on spectrograms."""
    config = case.config
    only(case, input_channel=1, with_fc=True, fc_in=512)
    network = SpectrogramClassifier(classes=config["fc_out"], pooling=POOLING[config["pool_type"]])
    _load(network, "objective.classifier.", case)
    spectrograms = tensor(case, "spec")
    return {"pooled": network.pool(spectrograms), "logits": network(spectrograms)}


@torch.no_grad()
def graph_net(case: Case) -> Outputs:
    """The network on graphs, layer by layer."""
    config = case.config
    network = GraphNet(
        config["num_features"],
        hidden=config["nhid"],
        heads=config["heads"],
        kind=config["gnet_type"],
        activation=config["hidden_act"],
    )
    _load(network, "conditioner.graph.", case)
    return pooled(network, case)


@torch.no_grad()
def pooled(network: GraphNet, case: Case) -> Outputs:
    """What a network makes of the graphs of a case of the adapter ``graph_net``."""
    nodes, edges = tensor(case, "nodes"), tensor(case, "edge_index").long()
    numbers, _ = graph_numbers(case)
    layers = network.convolve(nodes, edges)
    embedding = network(nodes, edges, numbers, int(numbers.max()) + 1)
    return {"embedding": embedding, **{f"{name}_out": layer for name, layer in layers.items()}}


@torch.no_grad()
def gru_unroll(case: Case) -> Outputs:
    """Embeddings of the sounds of a recording, one after the other."""
    config = case.config
    only(case, num_layers=1)
    conditioner = SourceUnroll(
        views={"vector": config["input_size"]},
        sites={"bottleneck": Site("bottleneck", 1)},
        width=config["hidden_size"],
    )
    _load(conditioner, "conditioner.", case)
    unrolled = unroll(conditioner, tensor(case, "graph_embedding"), config["sources_per_video"], tensor(case, "h0"))
    return {"source_embeddings": unrolled.flatten(0, 1), "orthogonality_loss": orthogonality_loss(unrolled)}


@torch.no_grad()
def unet(case: Case) -> Outputs:
    """The separator with two cues."""
    config = case.config
    only(case, input_nc=1, output_nc=1)
    width, levels = config["ngf"], config["layers"]
    sites = CoSeparationUNet.plan(width=width, levels=levels).sites
    conditioner = TiledConcat(views={"vector": config["visual_dim"]}, sites=sites)
    separator = CoSeparationUNet(width=width, levels=levels, widths=conditioner.widths())
    _load(separator, "separator.", case)

    features = tensor(case, "log_mag")

    def run(visual: str) -> tuple[Estimate, Tap]:
        bound = conditioner.bind(Embedding(vector=tensor(case, visual).flatten(1)[:, None]))
        return separated(separator, Spectrum(features, features, features), bound)

    first, tap = run("visual")
    other, _ = run("visual_other")
    return {
        "bottleneck": tap.seen["bottleneck"],
        "decoder1": tap.seen[f"decoder{levels}"],
        "mask_logits": first.logits,
        "mask": first.values,
        "mask_other_cue": other.values,
    }


@torch.no_grad()
def losses(case: Case) -> Outputs:
    """The losses of co-separation and of classes, and the weight of each point."""
    only(case, loss_weight_clamp=[0.001, 10])
    config, sounds = case.config, case.config["sources_per_video"]
    masks = rearrange(tensor(case, "pred_mask"), "(v s) 1 f t -> v s f t", s=sounds)
    weight, there = tensor(case, "weight")[:, 0], tensor(case, "loss_ind").reshape(-1, sounds).to(masks.dtype)
    target, probability = tensor(case, "gt_mask")[:, 0], tensor(case, "gt_mask_bce")[:, 0]
    logits = rearrange(tensor(case, "logits"), "(v s) c -> v s c", s=sounds)
    labels = tensor(case, "labels").long().reshape(-1, sounds)
    asked = labels.masked_fill(there == 0, -1)
    better, share = reordered(case, logits, asked), config["classifier_loss_weight"]
    return {
        "cosep_L1": co_separation_loss(masks, target, weight, there, "l1"),
        "cosep_L2": co_separation_loss(masks, target, weight, there, "l2"),
        "cosep_BCE": co_separation_loss(masks, probability, weight, there, "bce"),
        "ce_rows": class_losses(logits, labels).flatten(),
        "class_loss_plain": share * class_losses(logits, asked).mean(),
        "class_loss_reordered": share * class_losses(logits, better).mean(),
        "reordered_labels": torch.where(asked < 0, labels, better).flatten(),
        "weight_map": loudness_weight(tensor(case, "mix_mag")),
    }


def separated(separator: Separator, spectrum: Spectrum, bound: Bound) -> tuple[Estimate, Tap]:
    """What the U-Net gives, as it is used, and what its levels give, as they are written down."""
    assert isinstance(separator, CoSeparationUNet)
    tap = Tap(bound)
    if torch.is_grad_enabled():
        return separator(spectrum, tap), tap
    separator.logits(spectrum.features, tap)
    return separator(spectrum, bound), tap


class Tap(Bound):
    """Notes the features that arrive at each site and acts like ``inner``."""

    def __init__(self, inner: Bound) -> None:
        self.inner, self.sources, self.seen = inner, inner.sources, dict[str, Tensor]()

    def __call__(self, site: str, features: Tensor) -> Tensor:
        self.seen[site] = features
        return self.inner(site, features)


def unroll(conditioner: SourceUnroll, pooled: Tensor, steps: int, state: Tensor) -> Tensor:
    """(V, D) -> (V, S, width) from the state (1, V, width); the method itself always starts from zeros."""
    if state.any():
        unrolled: Tensor = conditioner.rnn(pooled[:, None].repeat(1, steps, 1), state)[0]
        return unrolled
    return conditioner.unroll(pooled[:, None], steps)[:, 0]


def reordered(case: Case, logits: Tensor, labels: Tensor) -> Tensor:
    """Labels (V, S) that suit the logits (V, S, C) best; published for two objects per recording only."""
    return swapped_labels(logits, labels) if case.config.get("num_object_per_video", 2) == 2 else labels


def graph_numbers(case: Case) -> tuple[Tensor, bool]:
    """The graph of each node, from 0, and whether graph 0 is that of padded nodes, which is dropped."""
    numbers = tensor(case, "batch_vec").long()
    padded = int(numbers.min()) <= 0
    return numbers if padded else numbers - 1, padded


def tensor(case: Case, name: str) -> Tensor:
    """An input of the case."""
    return torch.as_tensor(case.inputs[name])


def only(case: Case, **known: Any) -> None:
    """Refuse settings that the published method cannot have.

    Raises:
        DataError: one has another value.
    """
    for name, value in known.items():
        if case.config.get(name, value) != value:
            raise DataError(f"The case has {name} {case.config[name]!r}; the published method knows {value!r} only.")


def _load(module: Module, prefix: str, case: Case) -> Module:
    """Load the entries of the case below ``prefix``, in the mode of the case."""
    state: Mapping[str, Tensor] = convert_official(case.state_dicts)[0]
    module.load_state_dict({name.removeprefix(prefix): v for name, v in state.items() if name.startswith(prefix)})
    return module.train(case.mode == "train")
