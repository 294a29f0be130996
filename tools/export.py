"""Write the model as ONNX, for programs without torch.

    python -m tools.export
    python -m tools.export --model models/model.safetensors --out models/model.onnx

The graph takes images as in the pipeline, uint8 (N, H, W, C) from 0 to 255, for any N, and returns
calibrated probabilities (N, classes): the normalisation, the mean of an ensemble and the
temperature are part of it. Its metadata holds the class names and the model's record. The file is
only written if onnxruntime agrees with torch on test images.
"""

from cifar import stage  # isort: skip  first, to report errors of the imports below

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cifar import UserError, files, inference, tensors
from cifar.dataset import Dataset
from cifar.use import Classifier

INPUT = "uint8 images (N, height, width, channels), 0 to 255, of the size in the record"
TOLERANCE = 1e-4  # largest difference of a probability
CHECKED = 500  # test images


class Graph(nn.Module):
    """A network from pixels to calibrated probabilities, like `Classifier.probabilities`."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.nets = nn.ModuleList(model.nets)
        self.temperature = model.model.temperature
        dataset = model.model.dataset
        self.normalize = tensors.normalizer(dataset.mean, dataset.std, torch.device("cpu"))

    def forward(self, images: Tensor) -> Tensor:
        x = self.normalize(images)
        logits = torch.stack([net(x).log_softmax(1) for net in self.nets]).logsumexp(0)
        return inference.probabilities(logits, self.temperature)


def main() -> None:
    options = arguments()
    runtime()
    model = Classifier(options.model, "cpu")
    images = read_images(options.images, model.model.dataset)
    content = export(model, images[:2])
    difference = verify(content, model, images)
    files.write_bytes(options.out, content)
    print(
        f"{options.out}: {len(content):,} bytes; its probabilities differ from torch's by at most "
        f"{difference:.1e}"
    )


def arguments() -> argparse.Namespace:
    parser = stage.parser(__doc__)
    model = Path("models/model.safetensors")
    images = Path("data/processed/test/images.npy")
    parser.add_argument(
        "--model", type=Path, default=model, help="model file (default: %(default)s)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("models/model.onnx"),
        help="file to write (default: %(default)s)",
    )
    parser.add_argument(
        "--images", type=Path, default=images, help="images to check it with (default: %(default)s)"
    )
    return parser.parse_args()


def read_images(path: Path, dataset: Dataset) -> np.ndarray:
    """Read some images to check the graph with, (N, H, W, C) uint8.

    Raises:
        UserError: their shape or type is wrong, or there are fewer than two.
    """
    if not path.exists():
        raise UserError(f"no images to check with ({path}): pass others with --images")
    images = np.array(files.read_array(path)[:CHECKED])
    size = dataset.image_size
    fit = images.shape[1:] == (size, size, dataset.channels) and images.dtype == np.uint8
    if not fit or len(images) < 2:
        raise UserError(
            f"no images of {size}x{size} pixels with {stage.plural(dataset.channels, 'channel')} "
            f"({path}): pass others with --images"
        )
    return images


def export(model: Classifier, example: np.ndarray) -> bytes:
    """The graph with its metadata, as the bytes of an ONNX file; `example` holds two images.

    Raises:
        UserError: ONNX has no operation for a layer of the network.
    """
    try:
        program = torch.onnx.export(
            Graph(model).eval(),
            (torch.from_numpy(example),),
            input_names=["images"],
            output_names=["probabilities"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            dynamo=True,
            verbose=False,
        )
    except torch.onnx.errors.OnnxExporterError as error:
        problem = " ".join(str(error).split())[:160]
        raise UserError(
            f"torch cannot export this network, {problem} (train.model): use another network"
        ) from None
    assert program is not None
    metadata = {"classes": model.classes, "model": asdict(model.model)}
    program.model.metadata_props["input"] = INPUT
    program.model.metadata_props.update(
        {key: json.dumps(value, sort_keys=True) for key, value in metadata.items()}
    )
    return program.model_proto.SerializeToString()


def runtime() -> Any:
    """Import onnxruntime, and check that the packages that torch's exporter needs are installed.

    Raises:
        UserError: a package is missing.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        names = "onnx onnxruntime onnxscript"
        problem = f"{error.name} is not installed"
        raise UserError(f"{problem} (this environment): run `pip install {names}`") from None
    return onnxruntime


def verify(content: bytes, model: Classifier, images: np.ndarray) -> float:
    """The largest difference of a probability between onnxruntime and torch.

    Both run on one image alone, and on all images at once.

    Raises:
        UserError: the difference is too large.
    """
    session = runtime().InferenceSession(content, providers=["CPUExecutionProvider"])
    expected = model.probabilities(images)
    results = [session.run(None, {"images": batch})[0] for batch in (images[:1], images)]
    difference = max(float(np.abs(got - expected[: len(got)]).max()) for got in results)
    if not difference < TOLERANCE:
        raise UserError(
            f"onnxruntime differs from torch by {difference:.1e} (export): "
            "no file is written, please report this"
        )
    return difference


if __name__ == "__main__":
    stage.run(main)
