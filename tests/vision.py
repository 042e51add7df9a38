"""Tiny random image classifiers of many families, and images for them."""

from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import DINOv3ViTConfig, DINOv3ViTModel, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput

from prune.feeder import Images
from prune.network import Network

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 4,
}
TOWERS = {"text_config": {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2}, "vision_config": SIZES}


class DINOv3Classifier(PreTrainedModel):
    """The backbone with a head on its class token, as transformers has none."""

    config_class = DINOv3ViTConfig
    base_model_prefix = "backbone"
    main_input_name = "pixel_values"

    def __init__(self, config: DINOv3ViTConfig) -> None:
        super().__init__(config)
        self.backbone, self.head = DINOv3ViTModel(config), nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, pixel_values: Tensor) -> ImageClassifierOutput:
        return ImageClassifierOutput(logits=self.head(self.backbone(pixel_values).last_hidden_state[:, 0]))


FAMILIES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "vit": (transformers.ViTForImageClassification, transformers.ViTConfig, SIZES),
    "deit": (transformers.DeiTForImageClassification, transformers.DeiTConfig, SIZES),
    "deit_teacher": (transformers.DeiTForImageClassificationWithTeacher, transformers.DeiTConfig, SIZES),
    "dinov2": (transformers.Dinov2ForImageClassification, transformers.Dinov2Config, SIZES),
    "siglip": (transformers.SiglipForImageClassification, transformers.SiglipConfig, TOWERS),
    "clip": (transformers.CLIPForImageClassification, transformers.CLIPConfig, TOWERS),
    "dinov3": (DINOv3Classifier, DINOv3ViTConfig, SIZES | {"num_register_tokens": 2}),
}


def classifier(family: str = "vit", batch: int = 4, **changes) -> Network:
    """A random model of this family for ten classes, the same on every call; biases and norms are random too."""
    kind, config, sizes = FAMILIES[family]
    generator = torch.Generator().manual_seed(0)
    model = kind(config(**(sizes | changes), num_labels=10))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * (0.2 if parameter.dim() > 1 else 0.5))
    return Network(model, batch=batch)


def images(count: int = 6, seed: int = 0, size: int = 16) -> Images:
    """Random pixels and classes."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(count, 3, size, size, generator=generator)
    return Images(pixels, torch.randint(0, 10, (count,), generator=generator))
