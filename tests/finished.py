"""Makes, in milliseconds, a folder in which the stages before evaluate have run."""

import modelfile
import numpy as np
from ruamel.yaml import YAML

from cifar import files, networks
from cifar.data.report import Counts, Report
from cifar.evaluation import tables


def set_params(folder, **sections):
    """Write params.yaml with changes to the repository's, such as evaluate={"tta": "flip"}."""
    yaml = YAML()
    values = yaml.load(networks.ROOT / "params.yaml")
    for section, changes in sections.items():
        values[section] |= changes
    yaml.dump(values, folder / "params.yaml")


def make(folder, model):
    """Write the outputs of the earlier stages: images of 12x12 pixels, a model and its history."""
    (folder / "metrics").mkdir(exist_ok=True)
    generator = np.random.default_rng(0)
    for part, count in (("train", 8), ("test", 40)):
        where = folder / "data/processed" / part
        shape = (count, 12, 12, model.dataset.channels)
        classes = len(model.dataset.classes)
        files.write_array(where / "images.npy", generator.integers(0, 256, shape, dtype=np.uint8))
        files.write_array(where / "labels.npy", np.arange(count) % classes)
        files.write_array(where / "names.npy", np.array([f"{i}.png" for i in range(count)]))
    modelfile.write(folder / "models/model.safetensors", model)
    rows = [(number, 1, 0.1, 2.0, 0.5, 2.0, 0.5) for number in range(model.ensemble)]
    files.write_csv(folder / "plots/history.csv", list(tables.HISTORY), rows)
    set_params(folder, evaluate={"device": "cpu"}, plot={"dpi": 50})
    four = (4,) * len(model.dataset.classes)
    report = Report(Counts(four, four, four), in_test_and_training=0, skipped={})
    files.write_record(folder / "data/processed/report.json", report)
    files.write_json(folder / "metrics/train.json", {"val": {"accuracy": 0.5, "loss": 1.0}})
