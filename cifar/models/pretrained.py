"""Any classification network of torchvision with its pre-trained weights and a new last layer.

The network itself resizes and normalises the images as its weights require.
"""

import re
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from cifar import UserError
from cifar.dataset import Shape
from cifar.model import NetworkOptions

USES = ("backbone", "freeze")
# Two networks with additional outputs in training and their own normalisation.
GOOGLE = ("googlenet", "inception_v3")
# Names in DenseNet's weights that torch no longer allows.
DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d\.)")


class Pretrained(nn.Module):
    """Replaces the pipeline's normalisation by that of the weights, resizes, runs the backbone."""

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
        self.name = name
        self.backbone = backbone
        self.head = head
        self.resized_to = size
        self.freeze = freeze
        self.register_buffer("old", old, persistent=False)
        self.register_buffer("new", new, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        old = self.get_buffer("old")
        new = self.get_buffer("new")
        x = x * old[1] + old[0]
        x = F.interpolate(
            x, size=(self.resized_to, self.resized_to), mode="bilinear", antialias=True
        )
        return self.backbone((x - new[0]) / new[1])

    def train(self, mode: bool = True) -> "Pretrained":
        """Set the mode; a frozen backbone keeps the running statistics of its own training."""
        super().train(mode)
        if self.freeze:
            self.backbone.eval()
        return self


def build(shape: Shape, options: NetworkOptions) -> nn.Module:
    """Build the network: (N, 1 or 3, H, W) float to (N, num_classes) logits.

    `prepare` loads the weights.

    Options:
        backbone: a name of torchvision.models.list_models(module=torchvision.models).
        freeze: whether to train only the new last layer.

    Raises:
        UserError: the backbone does not exist.
    """
    backbone = options.backbone
    known = torchvision.models.list_models(module=torchvision.models)
    if backbone is None or backbone not in known:
        raise UserError(
            f"backbone {backbone!r} not found (params.yaml, train.backbone): "
            f"choose one of {', '.join(known)}"
        )
    transforms = torchvision.models.get_model_weights(backbone).DEFAULT.transforms()
    size = transforms.crop_size[0]
    net = architecture(backbone, size)
    for parameter in net.parameters():
        parameter.requires_grad = not options.freeze
    head = replace_head(net, shape.num_classes)
    old = torch.tensor([shape.mean, shape.std]).reshape(2, shape.channels, 1, 1)
    new = torch.tensor([transforms.mean, transforms.std]).reshape(2, 3, 1, 1)
    return Pretrained(backbone, net, head, size, old, new, options.freeze)


def architecture(name: str, size: int, auxiliary: bool = False) -> nn.Module:
    """The network as torchvision defines it, without weights.

    Args:
        size: height and width of its images, which a vision transformer fixes.
        auxiliary: whether to include the additional outputs that two networks have in training, as
            their files of weights do.
    """
    if name.startswith("vit_"):
        return torchvision.models.get_model(name, weights=None, image_size=size)
    if name in GOOGLE and not auxiliary:
        return torchvision.models.get_model(
            name, weights=None, aux_logits=False, transform_input=True, init_weights=False
        )
    return torchvision.models.get_model(name, weights=None)


def prepare(net: Pretrained, images: Tensor) -> None:
    """Load the pre-trained weights of all layers but the last, downloaded once to torch's cache.

    Raises:
        UserError: the download fails (the message says where to put the file), or the file is
            damaged.
    """
    weights = torchvision.models.get_model_weights(net.name).DEFAULT
    path = Path(torch.hub.get_dir(), "checkpoints", Path(weights.url).name)
    try:
        state = weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
        for key in list(state):
            state[DENSENET.sub(r"\1\2", key)] = state.pop(key)
        # Loading into a whole network adds what older files lack.
        full = architecture(net.name, net.resized_to, auxiliary=True)
        full.load_state_dict(state)
    except OSError as error:
        raise UserError(
            f"cannot download {weights.url} ({error}): get the file elsewhere and save it as {path}"
        ) from None
    except Exception as error:  # noqa: BLE001  a damaged file raises almost anything
        problem = " ".join(str(error).split())[:100]
        raise UserError(
            f"cannot load the weights of {net.name}, {problem} ({path}): "
            "delete this file and run again"
        ) from None
    state = net.backbone.state_dict()
    loaded = full.state_dict()
    body = [key for key in state if not key.startswith(f"{net.head}.")]
    net.backbone.load_state_dict(state | {key: loaded[key] for key in body})


def replace_head(net: nn.Module, num_classes: int) -> str:
    """Replace the last linear layer (or 1x1 convolution) by one with `num_classes` outputs.

    Returns:
        The name of the layer.
    """
    layers = net.named_modules()
    candidates = [(name, x) for name, x in layers if isinstance(x, nn.Linear | nn.Conv2d)]
    name, last = candidates[-1]
    if isinstance(last, nn.Linear):
        head: nn.Module = nn.Linear(last.in_features, num_classes)
    else:
        head = nn.Conv2d(last.in_channels, num_classes, 1)
    parent, _, attribute = name.rpartition(".")
    setattr(net.get_submodule(parent), attribute, head)
    return name
