"""Official frame files in this project's names."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from avsep_davis.clip import ClipEncoder
from avsep_davis.convert_frame import Target, frame_entries, target
from avsep_davis.encoder import ResNetEncoder
from avsep_zoo.errors import WeightsError

TOWER = {
    "hidden_size": 12,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 32,
    "patch_size": 8,
    "projection_dim": 8,
}


def official_tower() -> dict[str, Tensor]:
    """The image tower of a small CLIP, with OpenAI's names."""
    width = TOWER["hidden_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "class_embedding": (width,),
        "positional_embedding": (17, width),
        "proj": (width, TOWER["projection_dim"]),
        "conv1.weight": (width, 3, 8, 8),
    }
    for name in ("ln_pre", "ln_post"):
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    for n in range(TOWER["num_hidden_layers"]):
        block = f"transformer.resblocks.{n}"
        shapes |= {f"{block}.attn.in_proj_weight": (3 * width, width), f"{block}.attn.in_proj_bias": (3 * width,)}
        matrices = {"attn.out_proj": (width, width), "mlp.c_fc": (24, width), "mlp.c_proj": (width, 24)}
        for name, shape in matrices.items():
            shapes |= {f"{block}.{name}.weight": shape, f"{block}.{name}.bias": shape[:1]}
        for name in ("ln_1", "ln_2"):
            shapes |= {f"{block}.{name}.weight": (width,), f"{block}.{name}.bias": (width,)}
    return {f"model.visual.{name}": torch.randn(shape) for name, shape in shapes.items()}


@pytest.fixture
def clip() -> ClipEncoder:
    """A small encoder."""
    return ClipEncoder(tower=TOWER, heads=2, feedforward=16, encoder_layers=1).eval()


def test_a_file_with_clip_fills_the_encoder(clip: ClipEncoder) -> None:
    """Every entry of the encoder comes from the file, and what is left is the text tower."""
    temporal = {f"temporal_{k.removeprefix('temporal.')}": v for k, v in clip.state_dict().items() if "temporal" in k}
    texts = {
        "model.positional_embedding": torch.zeros(77, 8),
        "model.text_projection": torch.zeros(8, 8),
        "model.logit_scale": torch.zeros(()),
        "model.token_embedding.weight": torch.zeros(3, 8),
        "model.transformer.resblocks.0.attn.in_proj_weight": torch.zeros(24, 8),
        "model.ln_final.bias": torch.zeros(8),
    }
    entries, unused = frame_entries({**texts, **official_tower(), **temporal})
    assert unused == list(texts)
    clip.load_state_dict({name.removeprefix("encoder."): value for name, value in entries.items()})


def test_the_tower_by_hand(clip: ClipEncoder) -> None:
    """OpenAI's tower, written down from its description, gives what the converted one gives."""
    official = official_tower()
    entries, _ = frame_entries(official)
    clip.clip.load_state_dict({name.removeprefix("encoder.clip."): value for name, value in entries.items()})
    images = torch.randn(2, 3, 32, 32)
    assert torch.allclose(clip.image_features(images), by_hand(official, images), atol=1e-5)


def by_hand(official: dict[str, Tensor], images: Tensor) -> Tensor:
    w = {name.removeprefix("model.visual."): value for name, value in official.items()}

    def norm(x: Tensor, name: str) -> Tensor:
        return torch.nn.functional.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (3, 4)).transpose(1, 2)

    x = torch.nn.functional.conv2d(images, w["conv1.weight"], stride=8).flatten(2).mT
    x = torch.cat([w["class_embedding"].expand(len(x), 1, -1), x], dim=1) + w["positional_embedding"]
    x = norm(x, "ln_pre")
    for n in range(2):
        block = f"transformer.resblocks.{n}"
        u = norm(x, f"{block}.ln_1")
        qkv = u @ w[f"{block}.attn.in_proj_weight"].T + w[f"{block}.attn.in_proj_bias"]
        q, k, v = map(heads, qkv.chunk(3, dim=-1))
        u = ((q @ k.mT / 2).softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = x + u @ w[f"{block}.attn.out_proj.weight"].T + w[f"{block}.attn.out_proj.bias"]
        u = norm(x, f"{block}.ln_2") @ w[f"{block}.mlp.c_fc.weight"].T + w[f"{block}.mlp.c_fc.bias"]
        u = u * torch.sigmoid(1.702 * u)
        x = x + u @ w[f"{block}.mlp.c_proj.weight"].T + w[f"{block}.mlp.c_proj.bias"]
    return norm(x[:, 0], "ln_post") @ w["proj"]


def test_a_file_with_resnet18_fills_the_encoder() -> None:
    encoder = ResNetEncoder(width=4, heads=2, feedforward=16)
    stages = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
    official = {}
    for name, value in encoder.state_dict().items():
        part, stage, rest = name.split(".", 2)
        official[f"features.{stages[stage]}.{rest}" if part == "features" else f"transformer.{rest}"] = value + 1
    entries, unused = frame_entries(official)
    assert not unused
    assert {f"encoder.{name}" for name in encoder.state_dict()} == entries.keys()
    assert torch.equal(entries["encoder.features.layer4.1.bn2.bias"], torch.ones(32))


def test_where_entries_go() -> None:
    block = "encoder.clip.vision_model.encoder.layers.11"
    names = tuple(f"{block}.self_attn.{part}_proj.bias" for part in "qkv")
    assert target("model.visual.transformer.resblocks.11.attn.in_proj_bias") == Target(names[0], names=names)
    assert target("model.visual.proj") == Target("encoder.clip.visual_projection.weight", transposed=True)
    assert target("model.visual.transformer.resblocks.0.mlp.c_proj.weight") == Target(
        "encoder.clip.vision_model.encoder.layers.0.mlp.fc2.weight"
    )
    assert target("temporal_transformer.decoder.norm.bias") == Target("encoder.temporal.transformer.decoder.norm.bias")
    assert target("model.logit_scale") is None


@pytest.mark.parametrize(
    "key",
    [
        "", "model", "model.visual", "model.visual.ln_3.weight", "model.visual.transformer.resblocks.x.ln_1.weight",
        "model.visual.layer1.0.conv1.weight", "features.2.weight", "features.0", "transformer", "fc.weight",
        "net_unet.init_conv.weight",
    ],
)  # fmt: skip
def test_entries_of_other_layouts(key: str) -> None:
    with pytest.raises(KeyError):
        target(key)


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("model.visual.transformer.resblocks.0.attn.in_proj_weight", (35, 12)),
        ("model.visual.transformer.resblocks.0.attn.in_proj_bias", ()),
        ("model.visual.proj", (12,)),
    ],
)
def test_entries_of_other_shapes(key: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(WeightsError, match="not the published one"):
        frame_entries({key: torch.zeros(shape)})
