"""Stage 3: train a network on the training part, and monitor it on the validation part.

It cannot see the test images, which are not among its dependencies. It writes the model, one row
per epoch, and the metrics of the epoch that was kept. An interrupted run resumes after its last
whole epoch.
"""

from cifar import stage  # isort: skip  first, to report errors of the imports below

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

from cifar import files, model_file, networks, params, pipeline
from cifar.dataset import Dataset
from cifar.model import FORMAT, Model, Parameters
from cifar.params.train import Train
from cifar.training import checkpoint, distributed, provenance
from cifar.training.checkpoint import Checkpoints
from cifar.training.fit import HISTORY, Fitted, fit, network_options
from cifar.training.inspection import inspect
from cifar.training.splits import Arrays

DATA = Path("data/processed")
PARTS = [DATA / part / f"{name}.npy" for part in ("train", "val") for name in ("images", "labels")]


def main() -> Callable[[], None] | None:
    p, seed = params.load(Train)
    dataset = files.read_record(DATA / "dataset.json", Dataset)
    options = network_options(p)
    # Only the first process inspects the network; it also records the layers.
    layers = () if distributed.rank() else inspect(p, dataset.shape, options)
    pipeline.check_imports()  # the network's file may import others
    checkpoint.check_space(pipeline.root(), p.ensemble * sum(layer.parameters for layer in layers))
    world = distributed.start(
        "stages.train",
        device=p.device,
        processes=p.processes,
        threads=p.threads,
        batch_size=p.batch_size,
    )
    if not world:
        return None

    values = Parameters(seed, p.model_dump(exclude={"processes", "threads", "load"}))
    data = [*PARTS, DATA / "dataset.json"]
    file = networks.path_of(network=p.model)
    threads = world.threads * world.size
    origin = provenance.record(values, data, file, world.device, threads, world.size)
    code = provenance.code()
    checkpoints = Checkpoints(pipeline.root() / ".checkpoints", origin, code)
    print(f"{p.model} on {origin.device}, {stage.plural(world.threads, 'CPU thread')}")
    arrays = Arrays(*map(files.read_array, PARTS))
    with nullcontext() if world.rank else checkpoints.exclusive():
        fitted = fit(p, seed, dataset.shape, options, arrays, world, checkpoints)
        if world.rank:
            return None
        model = Model(
            format=FORMAT,
            network=p.model,
            dataset=dataset,
            options=options,
            layers=layers,
            ensemble=p.ensemble,
            epochs=fitted.epochs,
            temperature=fitted.temperature,
            provenance=origin,
        )
        write(fitted, model, code)
    return checkpoints.delete


def write(fitted: Fitted, model: Model, code: dict[str, str]) -> None:
    weights = model_file.dump([member.net for member in fitted.members], model)
    checksum = files.short_sha256(weights)
    provenance.discard_results_of_another(checksum)
    files.write_bytes("models/model.safetensors", weights)
    files.write_json("models/model.json", {"model": asdict(model), "code": code})
    files.write_csv("plots/history.csv", HISTORY, fitted.history())
    files.write_json("metrics/train.json", fitted.metrics() | {"model": checksum})


if __name__ == "__main__":
    stage.run(main, __doc__)
