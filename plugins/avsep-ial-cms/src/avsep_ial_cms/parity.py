"""Parity adapters of networks and the front end: golden cases of the official code, run through this plugin's modules.

Each adapter is a function of a case (configuration, official state dicts, inputs) and returns named outputs. Official
code goes on with the objects that a mask calls valid; N is their number, and their rows are those of (B, K) in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from avsep_ial_cms.conditioner import CrossModal, CrossModalAttention
from avsep_ial_cms.convert import convert_official
from avsep_ial_cms.deeplab import DeepLab
from avsep_ial_cms.separator import ResidualUNet
from avsep_zoo.contracts import Bound, Embedding, Estimate, Site, Spectrum, expand_sources
from avsep_zoo.errors import DataError
from avsep_zoo.front_end import StftFrontEnd

if TYPE_CHECKING:
    from avsep_zoo.parity.case import Case

__all__ = [
    "ValidObjects",
    "attended",
    "attention_settings",
    "av_module",
    "front_end",
    "load",
    "network_settings",
    "only",
    "organise",
    "scores",
    "separated",
    "separator_settings",
    "stft",
    "tensor",
    "unet",
    "unused",
    "visual_net",
]

Outputs = dict[str, Any]
Module = TypeVar("Module", bound=nn.Module)
_UNUSED = {"spatial": ("slope", "offset"), "channel": ("gate.",)}  # entries of the attention, by what uses them


@torch.no_grad()
def front_end(case: Case) -> Outputs:
    """The transform, the warp, and both back."""
    config = case.config
    mixture, sources = tensor(case, "mixture"), tensor(case, "sources")
    length = mixture.shape[-1]
    front = stft(config, length)
    spectrum = front.analyse(mixture)
    assert spectrum.phase is not None
    masks = Estimate(tensor(case, "mel_masks"))
    transformed = front.stft(mixture)
    separated = front.istft(front.linear_magnitude(masks, spectrum) * spectrum.phase, length)
    warped = front.warp(front.stft(sources).abs())
    mixed = front.warp(front.stft(sources.sum(dim=1, keepdim=True)).abs())
    return {
        "stft_complex": torch.view_as_real(transformed),
        "mag": spectrum.magnitude[:, 0],
        "mel_mag": spectrum.warped[:, 0],
        "unwarped_masks": front.mask(masks, spectrum),
        "separated_wav": separated,
        "separated_wav_tail": separated[..., -config["tail"] :],
        "roundtrip_wav": front.istft(spectrum.magnitude * spectrum.phase, length),
        "gt_mel_mask": (warped / (mixed + config["gt_eps"])).clamp(*config["gt_mask_range"]),
        "gt_weight": torch.log1p(mixed).clamp(*config["gt_weight_range"]),
    }


@torch.no_grad()
def visual_net(case: Case) -> Outputs:
    """The cue encoder, stage by stage."""
    with torch.device("meta"):
        network = DeepLab(**network_settings(case.config))
    load(network, "encoder.network.", case)
    names = {f"features.layer{number}": f"backbone_conv{number + 1}" for number in (1, 2, 3, 4)}
    names |= {"merge": "aspp", "details": "reduced_shallow", "decoder": "decoder"}
    outputs = tap(network, names)
    outputs["fv_common"] = network(tensor(case, "imgs"))
    return outputs


@torch.no_grad()
def av_module(case: Case) -> Outputs:
    """The conditioner at the bottleneck."""
    features, valid = tensor(case, "fa_mix"), tensor(case, "valid_nums").bool()
    sites = {"bottleneck": Site("bottleneck", features.shape[1])}
    with torch.device("meta"):
        attention = CrossModalAttention(views={"map": 512}, sites=sites, **attention_settings(case.config))
    load(attention, "conditioner.", case, unused=unused(attention))
    maps = tensor(case, "fv_common_valid")
    bound = ValidObjects(attention, maps, valid)
    left = bound("bottleneck", features)[valid.flatten()]
    return attended(bound) | {
        "contrast_fa_mix": features.mean(dim=(2, 3))[:, None].expand(-1, valid.shape[1], -1),
        "sp_att_fv_com_valid": bound.inner.seen[:, 0],
        "visual_related_srcs_att_fa_valid": left[:, maps.shape[1] :],
        "av_context_feature": bound.inner.context,
        "y": left,
    }


@torch.no_grad()
def unet(case: Case) -> Outputs:
    """The separator with the conditioner at its sites."""
    settings, valid = case.config["separate_net"], tensor(case, "valid_nums").bool()
    mixture = tensor(case, "mixture")
    with torch.device("meta"):
        attention = CrossModalAttention(
            views={"map": 512}, sites=ResidualUNet.plan().sites, **attention_settings(case.config["av_module"])
        )
        separator = ResidualUNet(widths=attention.widths(), **separator_settings(settings))
    parts = nn.ModuleDict({"conditioner": attention, "separator": separator})
    load(parts, "", case, unused=tuple(f"conditioner.{name}" for name in unused(attention)))
    levels = separator.levels
    names = {"stem": "enc0"} | {f"down.{level - 1}": f"enc{level}" for level in range(1, levels)}
    outputs = tap(separator, names | {f"up.{levels - 1 - level}": f"up{level}" for level in range(1, levels)})
    bound = ValidObjects(attention, tensor(case, "fv_valid"), valid)
    front = stft(settings, mixture.shape[-1])
    spectrum = front.analyse(mixture)
    outputs |= separated(front, spectrum, scores(separator, spectrum, bound), mixture.shape[-1])
    there = valid.flatten()
    for level in range(1, levels):
        skip = expand_sources(outputs[f"enc{level - 1}"], *valid.shape)[there]
        outputs[f"block{level}"] = torch.cat((skip, bound.left[f"decoder{level + 1}"]), dim=1)
    last = outputs["est_score_map"].flatten(0, 1)[there, None]
    outputs["up0"] = (last - separator.mask_offset - separator.bias) / separator.scale
    return attended(bound) | outputs | {"av_context_feature": bound.inner.context}


class ValidObjects(Bound):
    """Cross-modal attention for those of B mixtures' K objects that are valid; the others are zeros when it is done.

    Networks that stand between two sites get the rows of valid objects alone (:meth:`watch`), so that those that are
    not there change no statistics.

    Args:
        attention: of the model.
        maps: of the valid objects (N, D, h, w).
        valid: bool (B, K).
    """

    def __init__(self, attention: CrossModalAttention, maps: Tensor, valid: Tensor) -> None:
        self.inner: CrossModal = attention.bind(Embedding(map=maps[:, None]))
        self.maps, self.valid, self.there = maps, valid, valid.flatten()
        self.batch, self.sources = valid.shape
        self.left: dict[str, Tensor] = {}

    def __call__(self, site: str, features: Tensor) -> Tensor:
        if len(features) != len(self.maps) or site == "bottleneck":
            features = expand_sources(features, self.batch, self.sources)[self.there]
        self.left[site] = self.inner(site, features)
        return organise(self.left[site], self.valid).flatten(0, 1)

    def watch(self, separator: ResidualUNet) -> None:
        """Take the rows of objects that are not there out of what the decoder gets."""
        for stage in separator.up:
            stage.register_forward_pre_hook(lambda _, features: (features[0][self.there],))


def scores(separator: ResidualUNet, spectrum: Spectrum, bound: ValidObjects) -> Tensor:
    """Masks before the ReLU (B, K, F', T); those of objects that are not there are what scale and bias make of 0."""
    bound.watch(separator)
    found = separator.scores(spectrum.features, bound)
    return torch.where(bound.valid[:, :, None, None], found, separator.bias + separator.mask_offset)


def separated(front: StftFrontEnd, spectrum: Spectrum, found: Tensor, length: int) -> Outputs:
    """Scores (B, K, F', T) and what becomes of them: masks, magnitudes and waveforms."""
    assert spectrum.phase is not None
    estimate = Estimate(found.relu())
    return {
        "est_score_map": found,
        "est_mel_mask": estimate.values,
        "est_mel_mag": front.warped_mask(estimate, spectrum) * spectrum.warped,
        "est_components": front.istft(front.linear_magnitude(estimate, spectrum) * spectrum.phase, length),
    }


def attended(bound: ValidObjects) -> Outputs:
    """What the attention of a bound conditioner was, zeros where an object is not there."""
    inner, valid = bound.inner, bound.valid
    places = bound.maps.new_zeros(len(bound.maps), *bound.maps.shape[2:])
    gated = bound.left["bottleneck"][:, bound.maps.shape[1] :]
    gates = torch.zeros_like(gated[:, :, 0, 0]) if inner.gates is None else inner.gates[:, 0]
    rows = {
        "visual_related_srcs_fa": inner.separated,
        "visual_related_srcs_fa_com": inner.heard[:, 0],
        "sp_att_fv_com": inner.seen[:, 0],
        "cos_map": places if inner.cosines is None else inner.cosines[:, 0],
        "sound_localization": places if inner.localisation is None else inner.localisation[:, 0],
        "visual_related_srcs_att_fa": gated,
        "visual_related_srcs_att_fa_pooled": gated.mean(dim=(2, 3)),
        "consistent_feature": inner.context,
    }
    organised: Outputs = {name: organise(values, valid) for name, values in rows.items()}
    return organised | {"channel_attention_weight": organise(gates, valid).squeeze()}


def organise(rows: Tensor, valid: Tensor) -> Tensor:
    """(N, ...) -> (B, K, ...), with zeros at the places that are not valid."""
    filled = rows.new_zeros(*valid.shape, *rows.shape[1:])
    filled[valid] = rows
    return filled


def stft(config: Mapping[str, Any], length: int, kind: type[StftFrontEnd] = StftFrontEnd) -> StftFrontEnd:
    """The front end of a case."""
    return kind(
        rate=config["sr"],
        length=length,
        n_fft=config["n_fft"],
        hop_length=config["hop_length"],
        warp_rows=config["mel_dim"],
        pad_mode="reflect",
        align_corners=True,
        log_offset=1e-8,
    )


def network_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the cue encoder that no shape tells."""
    deeplab = config["deeplab"]
    only(deeplab["shallow"], layer=3)
    only(deeplab["decoder"], num=1)
    only(config["common_space_mlp"], hidden_layer=1)
    only(config, dropout=0)
    return {"dilations": deeplab["aspp"]["dilations"]}


def attention_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the conditioner that no shape tells."""
    only(config, max_source=1, sigmoid="params", multi_scale_avc=False, disentanglement=False)
    only(config["a_common_mlp"], hidden_layer=1)
    return {
        "spatial": config["spatial_attention"] in (True, "yes"),
        "channel": config["channel_attention"] in (True, "yes"),
    }


def separator_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the separator that no shape tells."""
    only(config, mask="IRM", use_av_module=True, dense_visual_guidance="AdaIN", multi_scale_avc=False)
    return {"mask_offset": 0.5 if config["IRM_bias"] in (True, "yes") else 0.0}


def only(config: Mapping[str, Any], **known: Any) -> None:
    """Refuse settings that the method cannot have.

    Raises:
        DataError: one has another value.
    """
    for name, value in known.items():
        if config.get(name, value) != value:
            raise DataError(f"The case has {name} {config[name]!r}; the method knows {value!r} only.")


def unused(attention: CrossModalAttention) -> tuple[str, ...]:
    """What the names of entries begin with that an attention without some of its parts has no use for."""
    return tuple(start for part, starts in _UNUSED.items() if not getattr(attention, part) for start in starts)


def load(module: Module, prefix: str, case: Case, *, unused: tuple[str, ...] = ()) -> Module:
    """Give a module the official entries of the case, and its mode.

    Layers take the sizes of their entries; official settings set each of them, and some have one size here.

    Args:
        module: in place.
        prefix: of the names of its entries in a model.
        case: holds one state dict.
        unused: what the names of entries begin with that may be there or not.

    Raises:
        DataError: entries of the case and the module are not the same.
    """
    start = case.config.get("checkpoint_prefix", "")
    official = {start + key: value for state in case.state_dicts.values() for key, value in state.items()}
    state = convert_official({"checkpoint": official})[0]
    entries = {name.removeprefix(prefix): v for name, v in state.items() if name.startswith(prefix)}
    wanted = module.state_dict().keys()
    if odd := sorted(name for name in wanted ^ entries.keys() if not name.startswith((*unused, "objective."))):
        raise DataError(f"The case and the module do not both have {odd[0]}; correct the case.")
    for name in wanted & entries.keys():
        place, _, entry = name.rpartition(".")
        layer, value = module.get_submodule(place), entries[name].clone()
        held = getattr(layer, entry)
        setattr(layer, entry, nn.Parameter(value, held.requires_grad) if isinstance(held, nn.Parameter) else value)
    return module.train(case.mode == "train")


def tap(module: nn.Module, names: Mapping[str, str]) -> Outputs:
    """Outputs of submodules by another name; they are there once the module has run."""
    outputs: Outputs = {}
    for place, name in names.items():
        module.get_submodule(place).register_forward_hook(
            lambda _, given, output, name=name: outputs.__setitem__(name, output)
        )
    return outputs


def tensor(case: Case, name: str) -> Tensor:
    """An input of the case."""
    return torch.as_tensor(case.inputs[name])
