"""Parity adapters of the encoders: golden cases of the official implementation, run through this plugin's own modules.

Each adapter is a function of a case (configuration, official state dicts, inputs) and returns named outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from avsep_davis.clip import ClipEncoder
from avsep_davis.convert_frame import frame_entries
from avsep_davis.encoder import FramesEncoder, ResNetEncoder
from avsep_davis.temporal import TemporalTransformer
from avsep_zoo.cue import Cue

if TYPE_CHECKING:
    from avsep_zoo.parity.case import Case

__all__ = ["clip_image", "frames_net", "frames_net_resnet18", "frames_preprocess", "looked", "temporal_transformer"]

Outputs = dict[str, Any]
Module = TypeVar("Module", bound=nn.Module)


@torch.no_grad()
def temporal_transformer(case: Case) -> Outputs:
    """The temporal transformer alone, on embeddings of frames."""
    settings = _temporal(case.config)
    temporal = _loaded(TemporalTransformer(case.config["d_model"], **settings), "encoder.temporal.", case)
    tokens = temporal(_tensor(case.inputs["clip_features"]))
    return {"visual_feat": tokens.mT, "pooled": tokens.mean(dim=1)}


@torch.no_grad()
def clip_image(case: Case) -> Outputs:
    """The image tower alone."""
    encoder = ClipEncoder(tower=_tower(case.config))
    _loaded(encoder.clip, "encoder.clip.", case)
    return {"features": encoder.image_features(_tensor(case.inputs["images"]))}


@torch.no_grad()
def frames_net(case: Case) -> Outputs:
    """The whole encoder with CLIP, from an official frame file."""
    encoder = ClipEncoder(tower=_tower(case.config["clip"]), **_temporal(case.config["temporal_transformer"]))
    return looked(_loaded(encoder, "encoder.", case), case)


@torch.no_grad()
def frames_net_resnet18(case: Case) -> Outputs:
    """The whole encoder with ResNet-18."""
    encoder = ResNetEncoder(**_temporal(case.config["temporal_transformer"]))
    return looked(_loaded(encoder, "encoder.", case), case)


@torch.no_grad()
def looked(encoder: FramesEncoder, case: Case) -> Outputs:
    """What an encoder that has its weights already gives for a case of a whole encoder."""
    return {"visual_feat": encoder.look(_tensor(case.inputs["frames"])).mT}


def frames_preprocess(case: Case) -> Outputs:
    """Pictures as the data sets' test transforms make them."""
    size = case.config["imgSize"]
    encoders = {
        "music": ResNetEncoder(width=8, frames=1, image_size=size),
        "ave": ClipEncoder(
            frames=1,
            statistics="clip",
            tower={"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
            | {"image_size": size, "projection_dim": 8},
        ),
    }
    outputs: Outputs = {}
    for name, picture in case.inputs.items():
        number = name.removeprefix("image_")
        for data_set, encoder in encoders.items():
            batch = encoder.prepare([Cue(frames=picture)], video=None, time=0.0)
            outputs[f"{data_set}_{number}"] = batch.values["frames"][0, 0, :, 0]
    return outputs


def _loaded(module: Module, prefix: str, case: Case) -> Module:
    """Load the official frame entries into one of the encoder's modules, strictly."""
    entries, _ = frame_entries(case.state_dicts["frame"])
    wanted = module.state_dict()
    module.load_state_dict(
        {k: v for k, v in wanted.items() if k.endswith("num_batches_tracked")}
        | {k.removeprefix(prefix): v for k, v in entries.items()}
    )
    return module.eval()


def _temporal(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "heads": config["nhead"],
        "feedforward": config["dim_feedforward"],
        "encoder_layers": config["num_encoder_layers"],
        "decoder_layers": config["num_decoder_layers"],
    }


def _tower(config: Mapping[str, Any]) -> dict[str, int]:
    return {
        "hidden_size": config["vision_width"],
        "intermediate_size": 4 * config["vision_width"],
        "num_hidden_layers": config["vision_layers"],
        "num_attention_heads": config["vision_heads"],
        "image_size": config["image_resolution"],
        "patch_size": config["vision_patch_size"],
        "projection_dim": config["embed_dim"],
    }


def _tensor(value: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(value))
