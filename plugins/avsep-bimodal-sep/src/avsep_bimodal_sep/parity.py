"""Parity adapters of networks: golden cases of the official code, run through this plugin's modules.

Each adapter is a function of a case (configuration, official state dicts, inputs) and returns named outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from avsep_bimodal_sep.conditioner import TextAttention
from avsep_bimodal_sep.convert import convert_official
from avsep_bimodal_sep.separator import ConditionalUNet, ResidualBlock
from avsep_zoo.contracts import Bound, Embedding, Site, expand_sources
from avsep_zoo.errors import DataError

if TYPE_CHECKING:
    from avsep_zoo.parity.case import Case

__all__ = [
    "activate",
    "attention_settings",
    "bind",
    "conditioning_block",
    "load",
    "mask_head",
    "only",
    "resblock",
    "separator_settings",
    "tensor",
    "unet",
]

Outputs = dict[str, Any]
Module = TypeVar("Module", bound=nn.Module)
_BLOCK = "net_sound.unet_block." + "submodule." * 4  # the level of a condition layer: the fifth, and here the last
_RESBLOCK = "net_sound.unet_block.downresblock."
_PUBLISHED = {"cond_activation": "sigmoid", "sound_activation": "no"}


@torch.no_grad()
def unet(case: Case) -> Outputs:
    """The separator up to its head, with the conditioner at the deep levels."""
    config, condition = case.config, tensor(case, "cond")
    settings = separator_settings(config, config["out_dim"])
    plan = ConditionalUNet.plan(**settings)
    sites = {name: site for name, site in plan.sites.items() if site.kind == "bottleneck"}
    embedding, views = _condition(condition, config)
    with torch.device("meta"):
        conditioner = TextAttention(views=views, sites=sites, **attention_settings(config, config["num_head"]))
        separator = ConditionalUNet(widths={**conditioner.widths(), "head": 1}, **settings)
    parts = nn.ModuleDict({"conditioner": conditioner, "separator": separator})
    load(parts, case, official="net_sound.")
    return {"feat_sound": separator.mask_features_of(tensor(case, "x"), conditioner.bind(embedding))}


@torch.no_grad()
def conditioning_block(case: Case) -> Outputs:
    """One condition layer."""
    config, x = case.config, tensor(case, "x")
    embedding, views = _condition(tensor(case, "cond"), config)
    settings = attention_settings({"num_cond_blocks": 1, **config}, config["num_heads"])
    with torch.device("meta"):
        conditioner = TextAttention(views=views, sites={"bottleneck": Site("bottleneck", config["dim"])}, **settings)
    load(conditioner, case, official=f"{_BLOCK}ca_blocks.0.", ours="conditioner.")
    return {"y": conditioner.bind(embedding)("bottleneck", x)}


@torch.no_grad()
def resblock(case: Case) -> Outputs:
    """One residual block."""
    config = case.config
    only(config, output_nc=config["input_nc"])
    block = ResidualBlock(config["input_nc"], config["num_res_layers"])
    load(block, case, official=_RESBLOCK, ours="separator.down.0.residual.")
    return {"y": block(tensor(case, "x"))}


@torch.no_grad()
def mask_head(case: Case) -> Outputs:
    """What the conditioner makes of mask features, with a layer before it that changes nothing."""
    config, logits, features = case.config, tensor(case, "cond_logits"), tensor(case, "feat_sound")
    width = config["fc_dim"]
    conditioner = TextAttention(views={"vector": width}, sites={"head": Site("head", width)})
    same = {"weight": torch.eye(width), "bias": torch.zeros(width)}
    load(conditioner, case, official="net_synthesizer.", ours="conditioner.", known={"heads.head.fc": same})
    logit = bind(conditioner, Embedding(vector=logits[:, None]), config)("head", features)
    mask = activate(logit, config["output_activation"])
    return {"logit": logit, "mask": mask, "est_mag": tensor(case, "mag") * mask}


def separator_settings(config: Mapping[str, Any], features: int) -> dict[str, Any]:
    """Settings of the separator; the official code never builds fewer than five levels."""
    only(config, in_dim=1)
    levels = max(5, config["num_downs"])
    return {
        "width": config["ngf"], "levels": levels, "mask_features": features, "res_layers": config["num_res_layers"],
    }  # fmt: skip


def attention_settings(config: Mapping[str, Any], heads: int) -> dict[str, Any]:
    """Settings of the conditioner.

    Raises:
        DataError: the official code has no such layer, or cannot build it.
    """
    layer, blocks = config["cond_layer"], config["num_cond_blocks"]
    if layer not in ("sa", "ca", "sca", "cat", "identity"):
        raise DataError(f"The case has the condition layer {layer!r}; give sa, ca, sca, cat or identity.")
    if layer == "identity" or blocks == 0:
        return {"layer": "identity"}
    return {"layer": layer, "blocks": blocks, "heads": heads}


def bind(conditioner: TextAttention, embedding: Embedding, config: Mapping[str, Any]) -> Bound:
    """Bind the conditioner; its head has the activations of the case."""
    if all(config[name] == value for name, value in _PUBLISHED.items()):
        return conditioner.bind(embedding)
    return _Activated(conditioner, embedding, config)


def activate(x: Tensor, kind: str) -> Tensor:
    """An activation by its official name; softmax is over the second axis.

    Raises:
        DataError: there is no such activation.
    """
    match kind:
        case "sigmoid":
            return x.sigmoid()
        case "softmax":
            return x.softmax(dim=1)
        case "relu":
            return x.relu()
        case "tanh":
            return x.tanh()
        case "no":
            return x
    raise DataError(f"The case has the activation {kind!r}; give sigmoid, softmax, relu, tanh or no.")


def load(
    module: Module,
    case: Case,
    *,
    official: str = "",
    ours: str = "",
    known: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> Module:
    """Give a module the official entries of the case, and its mode.

    Args:
        module: in place.
        case: holds one state dict.
        official: what the case leaves out at the beginning of its entries' names.
        ours: of the names of the module's entries in a model, what comes before.
        known: entries of submodules that the case does not have.

    Raises:
        DataError: entries of the case and the module are not the same.
    """
    given = {official + key: value for state in case.state_dicts.values() for key, value in state.items()}
    state, _ = convert_official(given)
    entries = {name.removeprefix(ours): value.clone() for name, value in state.items() if name.startswith(ours)}
    for place, values in (known or {}).items():
        entries |= {f"{place}.{name}": value for name, value in values.items()}
    wanted = module.state_dict()
    if odd := sorted(wanted.keys() ^ entries.keys()) or [k for k, v in wanted.items() if v.shape != entries[k].shape]:
        raise DataError(f"The case and the module do not both have {odd[0]} in one shape; correct the case.")
    module.load_state_dict(entries, assign=True)
    return module.train(case.mode == "train")


def only(config: Mapping[str, Any], **known: Any) -> None:
    """Refuse settings that the method cannot have.

    Raises:
        DataError: one has another value.
    """
    for name, value in known.items():
        if config.get(name, value) != value:
            raise DataError(f"The case has {name} {config[name]!r}; the method knows {value!r} only.")


def tensor(case: Case, name: str) -> Tensor:
    """An input of the case."""
    return torch.as_tensor(case.inputs[name])


class _Activated(Bound):
    """A bound conditioner whose head has other activations than the published ones."""

    def __init__(self, conditioner: TextAttention, embedding: Embedding, config: Mapping[str, Any]) -> None:
        assert embedding.vector is not None
        self.inner, self.config = conditioner.bind(embedding), config
        self.head: Any = conditioner.heads["head"]
        self.vector, self.batch, self.sources = embedding.vector, len(embedding.vector), embedding.sources

    def __call__(self, site: str, features: Tensor) -> Tensor:
        if site != "head":
            return self.inner(site, features)
        weights = activate(self.head.fc(self.vector.flatten(0, 1)), self.config["cond_activation"])
        features = activate(expand_sources(features, self.batch, self.sources), self.config["sound_activation"])
        logits: Tensor = self.head.weigh(features, weights)
        return logits


def _condition(condition: Tensor, config: Mapping[str, Any]) -> tuple[Embedding, dict[str, int]]:
    """A condition, one vector (B, D) or tokens (B, M, D), as the cue of one source; and the widths of its views.

    Raises:
        DataError: it is of another width, or of several tokens where one vector is needed.
    """
    only({"cond_dim": condition.shape[-1]}, cond_dim=config["cond_dim"])
    width = config["cond_dim"]
    if condition.ndim == 2:
        return Embedding(vector=condition[:, None]), {"vector": width}
    if config["cond_layer"] == "cat":
        raise DataError(f"The case has a condition of the shape {tuple(condition.shape)}; cat takes one vector only.")
    return Embedding(vector=condition[:, :1], tokens=condition[:, None]), {"vector": width, "tokens": width}
