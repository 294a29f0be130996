"""Write the model as ONNX, for programs without torch.

    python -m tools.export
    python -m tools.export --model models/model.safetensors --out models/model.onnx

The graph takes images as the pipeline has them, uint8 (N, H, W, C) from 0 to 255, any N, and gives the
probabilities (N, classes): the normalisation is inside, and so is the mean of an ensemble. Its metadata holds the
class names and says this. Before the file is written onnxruntime has to agree with torch on test images.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cifar import UserError, files, networks, stage, tensors
from cifar.evaluation import metrics
from cifar.training import provenance

INPUT = "uint8 images (N, height, width, channels), 0 to 255, of the size in description; normalised inside"
TOLERANCE = 1e-4  # largest difference of a probability
CHECKED = 500  # test images


class Whole(nn.Module):
    """From pixels to probabilities, as the evaluate stage goes."""

    def __init__(self, nets: list[nn.Module], description: dict[str, Any]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)
        self.normalize = tensors.normalizer(
            description["mean"], description["std"], torch.device("cpu")
        )

    def forward(self, images: Tensor) -> Tensor:
        x = self.normalize(images)
        return torch.stack([net(x).softmax(1) for net in self.nets]).mean(0)


def main() -> None:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m tools.export", description=__doc__, formatter_class=style
    )
    parser.add_argument(
        "--model", type=Path, default=Path("models/model.safetensors"), help="model file"
    )
    parser.add_argument("--out", type=Path, default=Path("models/model.onnx"), help="file to write")
    parser.add_argument(
        "--images",
        type=Path,
        default=Path("data/processed/test/images.npy"),
        help="to check it with",
    )
    options = parser.parse_args()
    runtime()
    nets, description = networks.load(options.model)
    provenance.check_network(options.model, description)
    images = np.array(files.read_array(options.images)[:CHECKED])
    side, channels = description["image_size"], description["channels"]
    if (
        images.ndim != 4
        or images.shape[1:] != (side, side, channels)
        or images.dtype != np.uint8
        or len(images) < 2
    ):
        raise UserError(
            f"no images of {side}x{side} pixels with {channels} channels ({options.images}): name others"
        )
    content = export(Whole(nets, description), torch.from_numpy(images[:2]), description)
    difference = verify(content, nets, description, images)
    files.write_bytes(options.out, content)
    print(
        f"{options.out}: {len(content):,} bytes; differs from torch by at most {difference:.1e} in a probability"
    )


def export(whole: nn.Module, example: Tensor, description: dict[str, Any]) -> bytes:
    """The graph with its metadata; `example` are two images.

    Raises:
        UserError: ONNX has no operation for a layer of the network.
    """
    try:
        program = torch.onnx.export(
            whole.eval(),
            (example,),
            input_names=["images"],
            output_names=["probabilities"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            dynamo=True,
            verbose=False,
        )
    except torch.onnx.errors.OnnxExporterError as error:
        problem = " ".join(str(error).split())[:160]
        raise UserError(
            f"torch cannot export this network, {problem} (train.model): take another one"
        ) from None
    assert program is not None
    metadata = {"classes": description["classes"], "description": description}
    program.model.metadata_props["input"] = INPUT
    program.model.metadata_props.update(
        {key: json.dumps(value, sort_keys=True) for key, value in metadata.items()}
    )
    return program.model_proto.SerializeToString()


def runtime() -> Any:
    """onnxruntime, where also what the exporter of torch needs is installed.

    Raises:
        UserError: one of them is not.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        names = "onnx onnxruntime onnxscript"
        raise UserError(f"no {error.name} (this environment): `pip install {names}`") from None
    return onnxruntime


def verify(
    content: bytes, nets: list[nn.Module], description: dict[str, Any], images: np.ndarray
) -> float:
    """The largest difference of a probability between onnxruntime and torch, for one image and for all.

    Raises:
        UserError: it is too large.
    """
    session = runtime().InferenceSession(content, providers=["CPUExecutionProvider"])
    normalize = tensors.normalizer(description["mean"], description["std"], torch.device("cpu"))
    pixels = torch.from_numpy(images)
    expected = (
        metrics.average([metrics.predict(net, pixels, normalize, len(pixels)) for net in nets])
        .softmax(1)
        .numpy()
    )
    found = [session.run(None, {"images": batch})[0] for batch in (images[:1], images)]
    difference = max(float(np.abs(own - expected[: len(own)]).max()) for own in found)
    if not difference < TOLERANCE:
        raise UserError(
            f"onnxruntime differs from torch by {difference:.1e} (export): no file is written, report this"
        )
    return difference


if __name__ == "__main__":
    stage.run(main)
