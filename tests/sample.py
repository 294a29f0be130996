"""A valid record and small networks, for tests that need any."""

from dataclasses import replace

from cifar import model_file, networks
from cifar.dataset import Dataset
from cifar.model import FORMAT, Model, NetworkOptions, Parameters, Provenance

DATASET = Dataset(
    name="images",
    classes=("ä", "b", "c"),
    image_size=8,
    channels=1,
    normalize="standardize",
    mean=(0.1 + 0.2,),
    std=(0.2,),
)
OPTIONS = NetworkOptions(depth=1, width=2, batch_norm=True)
PROVENANCE = Provenance(
    parameters=Parameters(seed=0, train={"model": "vgg"}),
    data={"data/processed/train/images.npy": "0" * 64},
    network_file="0" * 40,
    device="cpu, DEFAULT",
    threads=1,
    processes=1,
    versions={"python": "3.11.0"},
)


def make(*seeds, **options):
    """Build a small network from each of these seeds."""
    chosen = replace(OPTIONS, **options)
    return [networks.build("vgg", DATASET.shape, chosen, seed) for seed in seeds]


def record(ensemble=1, **changes):
    """The record of a model file with this many of these networks."""
    fields = {
        "format": FORMAT,
        "network": "vgg",
        "dataset": DATASET,
        "options": OPTIONS,
        "layers": networks.summarize(*make(0), DATASET.shape),
        "ensemble": ensemble,
        "epochs": (1,) * ensemble,
        "temperature": 1.5,
        "provenance": PROVENANCE,
    }
    return Model(**fields | changes)


def write(path, nets, **changes):
    """Write a model file of these networks, with changes in its record."""
    path.write_bytes(model_file.dump(nets, record(len(nets), **changes)))


def network_code(body, header="def build(shape, options):"):
    """The code of a network's file with this body of `build`."""
    return f"import torch\nfrom torch import nn\n{header}\n    {body}\n"
