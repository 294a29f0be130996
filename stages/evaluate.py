"""Stage 4: the model meets the test images, once.

Writes the numbers to compare, the prediction for each image, the accuracy of each class, which pixels mattered
in the most confident mistakes, and the model's card.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from cifar import files, hardware, networks, params, stage, tensors
from cifar.evaluation import calibration, card, metrics
from cifar.params.evaluate import Evaluate

DATA = Path("data/processed")
MISTAKES = 6  # for so many of them the pixels that mattered are found


def main() -> None:
    p, _ = params.load(Evaluate)
    place = hardware.pick(p.device, "evaluate.device")
    nets, model = networks.load(Path("models/model.safetensors"))

    images, labels, names = (
        files.read_array(DATA / "test" / f"{name}.npy") for name in ("images", "labels", "names")
    )
    pixels, targets = tensors.to_device(images, place), tensors.to_device(labels, place)
    normalize = tensors.normalizer(model["mean"], model["std"], place)
    members, mirrored = [], []
    for net in nets:
        net.to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]
        members.append(metrics.predict(net, pixels, normalize, p.batch_size))
        if p.tta == "flip":
            mirrored.append(metrics.predict(net, pixels.flip(2), normalize, p.batch_size))
    logits = metrics.average(members)
    numbers: dict[str, Any] = metrics.summary(logits, targets)
    if p.tta == "flip":
        numbers["tta_accuracy"] = metrics.summary(metrics.average(members + mirrored), targets)[
            "accuracy"
        ]
    if len(nets) > 1:
        alone = [metrics.summary(own, targets)["accuracy"] for own in members]
        numbers["member_accuracy"] = {
            str(number): accuracy for number, accuracy in enumerate(alone)
        }
    wrong = write(numbers, logits, labels, names.tolist(), model)
    files.write_array("plots/gradients.npy", metrics.sensitivity(nets, pixels[wrong], normalize))
    print(
        f"test accuracy {numbers['accuracy']:.2%} (95 % interval {numbers['accuracy_low']:.2%} to "
        f"{numbers['accuracy_high']:.2%}, n = {len(labels)}), loss {numbers['loss']:.3f}"
    )


def write(
    numbers: dict[str, Any],
    logits: torch.Tensor,
    labels: np.ndarray,
    names: list[str],
    model: dict[str, Any],
) -> list[int]:
    """Returns which images are the most confident mistakes, in the order of the rounded confidences in the file."""
    classes = model["classes"]
    confidences, choices = (value.cpu().numpy() for value in logits.softmax(1).max(1))
    rounded = np.array([f"{confidence:.4f}" for confidence in confidences])
    rows = (
        (name, classes[label], classes[choice], confidence)
        for name, label, choice, confidence in zip(names, labels, choices, rounded, strict=True)
    )
    files.write_csv("plots/predictions.csv", ["image", "actual", "predicted", "confidence"], rows)
    counts = metrics.per_class(choices, labels, len(classes))
    shares = [
        (
            name,
            right / max(total, 1),
            total,
            *(metrics.wilson(right / total, total) if total else (0.0, 1.0)),
        )
        for name, (right, total) in zip(classes, counts, strict=True)
    ]
    files.write_csv(
        "plots/classes.csv",
        ["class", "accuracy", "images", "accuracy_low", "accuracy_high"],
        shares,
    )
    files.write_json("metrics/test.json", {"test": numbers})
    sure, right = rounded.astype(float), choices == labels
    error = calibration.expected_error(calibration.bins(sure, right))
    dataset = files.read_json(DATA / "dataset.json")["name"]
    files.write_bytes(
        "models/card.md", card.text(dataset, model, numbers, shares, len(labels), error).encode()
    )
    return calibration.surest_mistakes(sure, right, MISTAKES).tolist()


if __name__ == "__main__":
    stage.run(main)
