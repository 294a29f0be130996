"""Any classification network of torchvision with its pre-trained weights and a new last layer.

Images are brought to the size and the normalisation that the weights ask for, inside the network.
"""

import re
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from cifar import UserError

# Two networks with further outputs in training, and a normalisation of their own behind that of their weights.
GOOGLE = ("googlenet", "inception_v3")
GOOGLE_OPTIONS = {"aux_logits": False, "transform_input": True, "init_weights": False}
DENSENET = re.compile(
    r"(denselayer\d+\.(?:norm|conv))\.(\d\.)"
)  # names in its file that torch no longer allows


class Pretrained(nn.Module):
    """Undo the pipeline's normalisation, resize, apply the weights' own normalisation, then the backbone."""

    def __init__(
        self,
        name: str,
        backbone: nn.Module,
        head: str,
        size: int,
        old: Tensor,
        new: Tensor,
        freeze: bool,
    ) -> None:
        super().__init__()
        self.name, self.backbone, self.head, self.size, self.freeze = (
            name,
            backbone,
            head,
            size,
            freeze,
        )
        self.register_buffer("old", old, persistent=False)
        self.register_buffer("new", new, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        old, new = self.get_buffer("old"), self.get_buffer("new")
        x = x * old[1] + old[0]
        x = F.interpolate(x, size=(self.size, self.size), mode="bilinear", antialias=True)
        return self.backbone((x - new[0]) / new[1])

    def train(self, mode: bool = True) -> "Pretrained":
        """A frozen backbone keeps the running statistics that it was trained with."""
        super().train(mode)
        if self.freeze:
            self.backbone.eval()
        return self


def build(
    num_classes: int,
    in_channels: int,
    image_size: int,
    *,
    mean: list[float],
    std: list[float],
    backbone: str,
    freeze: bool,
) -> nn.Module:
    """(N, 1 or 3, H, W) float to (N, num_classes) logits; the weights themselves come with `prepare`.

    Args:
        mean, std: the normalisation of the input, per channel.
        backbone: a name of torchvision.models.list_models(module=torchvision.models).
        freeze: train the new last layer only.

    Raises:
        UserError: no such backbone.
    """
    known = torchvision.models.list_models(module=torchvision.models)
    if backbone not in known:
        raise UserError(
            f"no backbone {backbone!r} (params.yaml, train.backbone): one of {', '.join(known)}"
        )
    transforms = torchvision.models.get_model_weights(backbone).DEFAULT.transforms()
    size = transforms.crop_size[0]
    net = architecture(backbone, size, **(GOOGLE_OPTIONS if backbone in GOOGLE else {}))
    for parameter in net.parameters():
        parameter.requires_grad = not freeze
    head = replace_head(net, num_classes)
    old = torch.tensor([mean, std]).reshape(2, 1, in_channels, 1, 1)
    new = torch.tensor([transforms.mean, transforms.std]).reshape(2, 1, 3, 1, 1)
    return Pretrained(backbone, net, head, size, old, new, freeze)


def architecture(name: str, size: int, **options: bool) -> nn.Module:
    """The network as torchvision has it, without weights; a vision transformer is made for one size of images."""
    sized = {"image_size": size} if name.startswith("vit_") else {}
    return torchvision.models.get_model(name, weights=None, **options, **sized)


def prepare(net: Pretrained, images: Tensor) -> None:
    """Load the pre-trained weights of all layers but the last. They are downloaded once, into torch's cache.

    Raises:
        UserError: they cannot be downloaded; it names the file to place. Or that file holds something else.
    """
    weights = torchvision.models.get_model_weights(net.name).DEFAULT
    place = Path(torch.hub.get_dir(), "checkpoints", Path(weights.url).name)
    try:
        state = weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
        for key in list(state):
            state[DENSENET.sub(r"\1\2", key)] = state.pop(key)
        full = architecture(net.name, net.size)  # it knows the names of older files
        full.load_state_dict(state)
    except OSError as error:
        raise UserError(
            f"no download of {weights.url} ({error}): get this file elsewhere and place it as {place}"
        ) from None
    except Exception as error:  # noqa: BLE001  a damaged file raises almost anything
        problem = " ".join(str(error).split())[:100]
        raise UserError(
            f"no weights of {net.name}, {problem} ({place}): delete this file and run again"
        ) from None
    own, loaded = net.backbone.state_dict(), full.state_dict()
    net.backbone.load_state_dict(
        own | {key: loaded[key] for key in own if not key.startswith(f"{net.head}.")}
    )


def replace_head(net: nn.Module, num_classes: int) -> str:
    """Put a fresh linear layer (or 1x1 convolution) with `num_classes` outputs in the place of the last one.

    Returns its name.
    """
    name, last = [
        (name, layer)
        for name, layer in net.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    ][-1]
    if isinstance(last, nn.Linear):
        fresh: nn.Module = nn.Linear(last.in_features, num_classes)
    else:
        fresh = nn.Conv2d(last.in_channels, num_classes, 1)
    parent, _, attribute = name.rpartition(".")
    setattr(net.get_submodule(parent), attribute, fresh)
    return name
