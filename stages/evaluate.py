"""Stage 4: evaluate the model on the test images, once.

It writes the metrics, the prediction for each image, the accuracy of each class, the pixels that
mattered most in the most confident mistakes, and the model card.
"""

from cifar import stage  # isort: skip  first, to report errors of the imports below

from pathlib import Path

from torch import Tensor

from cifar import (
    UserError,
    files,
    hardware,
    inference,
    model_file,
    networks,
    params,
    tensors,
    waiting,
)
from cifar.dataset import Dataset, labels_fit
from cifar.evaluation import calibration, card, metrics, tables
from cifar.evaluation.predictions import Predictions
from cifar.evaluation.tables import Evaluation, Numbers
from cifar.params.evaluate import Evaluate

TEST = Path("data/processed/test")
WEIGHTS = Path("models/model.safetensors")
MISTAKES = 6  # mistakes for which the pixels that mattered are found


def main() -> None:
    p, _ = params.load(Evaluate)
    device = hardware.pick(device=p.device, key="evaluate.device")
    waiting.watch(device)
    nets, model = model_file.load(WEIGHTS)
    for net in nets:
        networks.to_device(net, device)
    images, labels, names = read_test(model.dataset)
    normalize = tensors.normalizer(model.dataset.mean, model.dataset.std, device)

    def mirror(batch: Tensor) -> Tensor:
        return normalize(batch.flip(2))

    members = [inference.predict(net, images, normalize) for net in nets]
    mirrored = []
    if p.tta == "flip":
        mirrored = [inference.predict(net, images, mirror) for net in nets]
    logits = inference.average(members)
    inference.check_finite(logits / model.temperature, WEIGHTS)
    predictions = Predictions.of(names, logits, labels, model.temperature)

    numbers = Numbers(
        **metrics.summarize(logits, labels),
        **metrics.summarize_calibration(logits, labels, predictions),
        **metrics.summarize_members(members, mirrored, labels),
    )
    results = metrics.per_class(predictions.choices, predictions.labels, model.dataset.classes)
    worst = calibration.confident_mistakes(predictions.confidences, predictions.right, MISTAKES)
    gradients = metrics.sensitivity(nets, images[worst], normalize)
    checksum = files.short_sha256(WEIGHTS.read_bytes())
    description = card.text(model, numbers, results)
    tables.write_result(Path("metrics/test.json"), Evaluation(numbers, checksum))
    rows = predictions.rows(model.dataset.classes)
    files.write_csv("plots/predictions.csv", list(tables.PREDICTIONS), rows)
    files.write_csv("plots/classes.csv", list(tables.CLASSES), results)
    files.write_bytes("models/card.md", description.encode())
    files.write_array("plots/gradients.npy", gradients)
    print(
        f"test accuracy {numbers.accuracy:.2%} (95 % interval {numbers.accuracy_low:.2%} to "
        f"{numbers.accuracy_high:.2%}, n = {len(labels):,}), loss {numbers.loss:.3f}"
    )


def read_test(dataset: Dataset) -> tuple[Tensor, Tensor, list[str]]:
    """The images (N, H, W, C), labels and names of the test part. Images are read when used.

    Args:
        dataset: the data set that the model was trained on.

    Raises:
        UserError: they do not match each other, or the model.
    """
    names = ("images", "labels", "names")
    images, labels, texts = (files.read_array(TEST / f"{name}.npy") for name in names)
    size = dataset.image_size
    if images.shape[1:] != (size, size, dataset.channels):
        trained = f"{size}x{size} pixels, {stage.plural(dataset.channels, 'channel')}"
        raise UserError(
            f"the model is for images of {trained}, unlike those in {TEST} ({WEIGHTS}): "
            "`dvc repro` trains one for them"
        )
    if not labels_fit(images, labels, len(dataset.classes)) or len(texts) != len(labels):
        raise UserError(
            f"images, labels and names do not match ({TEST}): "
            "`dvc repro --force preprocess` makes them again"
        )
    return tensors.from_disk(images), tensors.from_disk(labels), texts.tolist()


if __name__ == "__main__":
    stage.run(main, __doc__)
