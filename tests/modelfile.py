"""Small models for tests: valid records, files of random networks, and files with false records."""

import json
from dataclasses import asdict, replace

import safetensors.torch

from cifar import files, model_file, networks
from cifar.dataset import Dataset
from cifar.model import FORMAT, Model, NetworkOptions, Parameters, Provenance

CLASSES = ("cat", "dog", "ship", "bird")
OPTIONS = NetworkOptions(depth=1, width=4, batch_norm=True)
PROVENANCE = Provenance(
    parameters=Parameters(seed=7, train={"lr": 0.1, "backbone": None}),
    data={"data/x.npy": "abc"},
    network_file="0" * 40,
    device="cpu, AVX512",
    threads=2,
    processes=1,
    versions={"torch": "2.14", "numpy": "2.4"},
)


def record(channels=3, classes=CLASSES, members=1, temperature=1.0, image_size=12):
    """The record of a small VGG."""
    dataset = Dataset(
        name="pets",
        classes=tuple(classes),
        image_size=image_size,
        channels=channels,
        normalize="standardize",
        mean=(0.4, 0.5, 0.6)[:channels],
        std=(0.2, 0.25, 0.3)[:channels],
    )
    net = networks.build("vgg", dataset.shape, OPTIONS, seed=0)
    return Model(
        format=FORMAT,
        network="vgg",
        dataset=dataset,
        options=OPTIONS,
        layers=networks.summarize(net, dataset.shape),
        ensemble=members,
        epochs=(1,) * members,
        temperature=temperature,
        provenance=replace(PROVENANCE, network_file=files.git_name(own_file())),
    )


def own_file():
    return (networks.ROOT / networks.path_of("vgg")).read_bytes()


def build(model):
    """The networks of the model, each from its own seed."""
    shape = model.dataset.shape
    seeds = range(model.ensemble)
    return [networks.build(model.network, shape, model.options, seed) for seed in seeds]


def write(path, model):
    """Write a model file with random weights."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model_file.dump(build(model), model))
    return model


def write_lie(path, model, change=lambda content: None, weights=lambda state: None):
    """Write a model file with a valid checksum, but a changed record or changed weights."""
    state = model_file.join(build(model)).state_dict()
    content = json.loads(json.dumps(asdict(model)))
    change(content)
    weights(state)
    checksum = model_file.checksum(state, content)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        safetensors.torch.save(state, {"model": json.dumps({"model": content, "sha256": checksum})})
    )
