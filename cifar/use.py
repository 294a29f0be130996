"""A trained model, ready to classify images. `cifar.load_model` is the way here.

This file stands above the wings: it decodes pictures as preprocess does, and predicts as evaluate
does. Nothing in the library imports it.
"""

import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cifar import UserError, hardware, inference, model_file, networks, tensors
from cifar.data import pictures

Picture = str | os.PathLike[str] | Image.Image | np.ndarray


@dataclass(frozen=True)
class Prediction:
    """What the model says of one image.

    Attributes:
        label: the most likely class.
        confidence: its calibrated probability.
        probabilities: of all classes, the most likely first; they add up to 1.
    """

    label: str
    confidence: float
    probabilities: dict[str, float]


class Classifier:
    """The networks of a model file on a device.

    Attributes:
        model: the record in the file: classes, image size, normalisation, and what made it.
    """

    def __init__(self, path: str | os.PathLike[str], device: str = "auto") -> None:
        """Read a model file.

        Args:
            path: such as models/model.safetensors.
            device: auto (CUDA, else MPS, else CPU), cpu, cuda, cuda:1 or mps.

        Raises:
            UserError: no such file, a damaged one, or no such device.
        """
        self.device = hardware.pick(device, "--device")
        self.path = Path(path)
        self.nets, self.model = model_file.load(self.path)
        for net in self.nets:
            networks.to_device(net, self.device)
        dataset = self.model.dataset
        self.normalize = tensors.normalizer(dataset.mean, dataset.std, self.device)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.model.dataset.classes

    @property
    def batch_size(self) -> int:
        """Images that are decoded and classified together."""
        return inference.batch_size(self.nets[0], self.model.dataset.image_size)

    def predict(self, images: Picture | Iterable[Picture]) -> list[Prediction]:
        """Classify images, each prepared as the test images were: upright, scaled, centred.

        Args:
            images: one or several of: a path, a Pillow image, or an array of uint8 with the shape
                (H, W), (H, W, 1) or (H, W, 3). An array (N, H, W, C) is N images.

        Returns:
            One prediction per image, in their order.

        Raises:
            UserError: an image cannot be read.
        """
        predictions: list[Prediction] = []
        rest = listed(images)
        while batch := list(islice(rest, self.batch_size)):
            predictions += self.classify(np.stack([self.decode(image) for image in batch]))
        return predictions

    def classify(self, pixels: np.ndarray) -> Iterator[Prediction]:
        """A prediction for each of (N, H, W, C) uint8 images that have the model's size."""
        for row in self.probabilities(pixels):
            order = np.argsort(-row, kind="stable").tolist()
            ranked = {self.classes[i]: float(row[i]) for i in order}
            label = self.classes[order[0]]
            yield Prediction(label, ranked[label], ranked)

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Calibrated probabilities (N, classes), in the order of the labels.

        Raises:
            UserError: the networks overflow on these images.
        """
        images = torch.from_numpy(pixels)
        logits = [inference.predict(net, images, self.normalize) for net in self.nets]
        average = inference.average(logits)
        inference.check_finite(average / self.model.temperature, self.path)
        return inference.probabilities(average, self.model.temperature).cpu().numpy()

    def decode(self, image: Picture) -> np.ndarray:
        """One image as the pixels (H, W, C) uint8 that the networks take."""
        dataset = self.model.dataset
        try:
            pixels = pictures.decode(content_of(image), dataset.image_size)
        except (ValueError, OSError) as error:
            reason = getattr(error, "strerror", None) or error
            kind = "an array" if isinstance(image, np.ndarray) else "a Pillow image"
            name = kind if isinstance(image, Image.Image | np.ndarray) else os.fspath(image)
            raise UserError(f"{reason} ({name}): fix or omit this image") from None
        return pixels if dataset.channels == 3 else pictures.grey(pixels)


def listed(images: Picture | Iterable[Picture]) -> Iterator[Picture]:
    """One image or several as several."""
    if isinstance(images, np.ndarray):
        return iter(images if images.ndim == 4 else [images])
    if isinstance(images, str | os.PathLike | Image.Image):
        return iter([images])
    return iter(images)


def content_of(image: Picture) -> bytes:
    """The bytes of a picture file, also for pixels in memory: they then pass the same rules.

    But for one: a large JPEG in a file is decoded at a smaller size.

    Raises:
        ValueError: pixels of more than 8 bits, or an array that is no image.
        OSError: the file cannot be read.
    """
    if isinstance(image, np.ndarray):
        image = from_array(image)
    if not isinstance(image, Image.Image):
        return Path(image).read_bytes()
    if image.mode not in pictures.EIGHT_BIT:
        raise ValueError(f"not 8 bits per channel (mode {image.mode})")
    image.load()  # a TIFF is turned upright here
    exif = Image.Exif()
    exif[pictures.ORIENTATION] = pictures.orientation(image)
    buffer = io.BytesIO()
    mode = "RGBA" if image.has_transparency_data else "RGB"
    image.convert(mode).save(buffer, "PNG", compress_level=1, exif=exif)
    return buffer.getvalue()


def from_array(pixels: np.ndarray) -> Image.Image:
    """(H, W), (H, W, 1) or (H, W, 3) uint8 as a Pillow image."""
    fits = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (1, 3))
    if not fits or pixels.dtype != np.uint8 or not pixels.size:
        raise ValueError(f"no uint8 (height, width, 1 or 3): {pixels.dtype} {pixels.shape}")
    return Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)
