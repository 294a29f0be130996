"""Classify images with a trained model. The entry point is `cifar.load_model`.

This module may use any folder of the library: it decodes pictures as preprocess does, and predicts
as evaluate does. Nothing in the library imports it.
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
    """The prediction for one image.

    Attributes:
        label: the most likely class.
        confidence: its calibrated probability.
        probabilities: maps each class to its probability, most likely first; they add up to 1.
    """

    label: str
    confidence: float
    probabilities: dict[str, float]


class Classifier:
    """The networks of a model file on a device.

    Attributes:
        model: the record in the file: classes, image size, normalisation and provenance.
    """

    def __init__(self, path: str | os.PathLike[str], device: str = "auto") -> None:
        """Load a model file.

        Args:
            path: such as models/model.safetensors.
            device: auto (CUDA, else MPS, else CPU), cpu, cuda, cuda:1 or mps.

        Raises:
            UserError: the file is missing or damaged, or the device is not available.
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
        """The number of images that are decoded and classified together."""
        return inference.batch_size(self.nets[0], self.model.dataset.image_size)

    def predict(self, images: Picture | Iterable[Picture]) -> list[Prediction]:
        """Classify images, prepared like the test images: upright, the centre square scaled.

        Args:
            images: one or several paths, Pillow images, or uint8 arrays of shape (H, W), (H, W, 1)
                or (H, W, 3). An array (N, H, W, C) is N images.

        Returns:
            One prediction per image, in the order of the images.

        Raises:
            UserError: an image cannot be read.
        """
        predictions: list[Prediction] = []
        rest = listed(images)
        while batch := list(islice(rest, self.batch_size)):
            predictions += self.classify(np.stack([self.decode(image) for image in batch]))
        return predictions

    def classify(self, pixels: np.ndarray) -> Iterator[Prediction]:
        """Yield a prediction for each of the images (N, H, W, C) uint8 of the model's size."""
        for row in self.probabilities(pixels):
            order = np.argsort(-row, kind="stable").tolist()
            ranked = {self.classes[i]: float(row[i]) for i in order}
            label = self.classes[order[0]]
            yield Prediction(label, ranked[label], ranked)

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Calibrated probabilities (N, classes), in the order of the labels.

        Raises:
            UserError: the networks' outputs for these images are not finite.
        """
        images = torch.from_numpy(pixels)
        logits = [inference.predict(net, images, self.normalize) for net in self.nets]
        average = inference.average(logits)
        inference.check_finite(average / self.model.temperature, self.path)
        return inference.probabilities(average, self.model.temperature).cpu().numpy()

    def decode(self, image: Picture) -> np.ndarray:
        """Decode one image into the pixels (H, W, C) uint8 that the networks need."""
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
    """Iterate over one image or several."""
    if isinstance(images, np.ndarray):
        return iter(images if images.ndim == 4 else [images])
    if isinstance(images, str | os.PathLike | Image.Image):
        return iter([images])
    return iter(images)


def content_of(image: Picture) -> bytes:
    """The bytes of a picture file. Pixels in memory are encoded, so that the same rules apply.

    One rule differs: only a large JPEG file is decoded at a reduced size.

    Raises:
        ValueError: more than 8 bits per channel, or an array that is not an image.
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
    """A Pillow image from pixels (H, W), (H, W, 1) or (H, W, 3) uint8."""
    fits = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (1, 3))
    if not fits or pixels.dtype != np.uint8 or not pixels.size:
        raise ValueError(f"not uint8 (height, width, 1 or 3): {pixels.dtype} {pixels.shape}")
    return Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)
