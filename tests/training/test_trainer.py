"""The training loop: equal to one written by hand; what it keeps, when it stops, and resuming."""

import copy
import math

import pytest
import torch
from torch import nn

from cifar import UserError
from cifar.training import checkpoint, optim, trainer
from cifar.training.trainer import Trainer

torch.set_num_threads(1)
X = torch.randn(11, 1, 4, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(11) % 3
LOSS = nn.CrossEntropyLoss()
OFF = {
    "processes": 1,
    "all_reduce": lambda sums: sums,
    "ema": 0.0,
    "clip_norm": 0.0,
    "monitor": "accuracy",
    "keep": "last",
    "patience": 0,
}


def make_net(seed=0):
    """A network with filters, buffers, dropout and matrices."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(16, 3),
    )


def make_trainer(net=None, *, optimizer="sgd", schedule="constant", lr=0.05, epochs=4, **changes):
    """A trainer for batches of four, four and three images."""
    net = net or make_net()
    options = {"momentum": 0.9, "nesterov": False, "weight_decay": 0.01, "batch_size": 4}
    made = optim.make_optimizer(net, optimizer=optimizer, lr=lr, **options)
    plan = {"epochs": epochs, "steps": 3, "warmup": 0, "drop": 0.5, "drop_epochs": 1}
    rates = optim.make_schedule(made, schedule=schedule, **plan)
    return Trainer(net, net, made, rates, LOSS, **OFF | changes)


def run(training, numbers=None, after_step=lambda *_: None):
    """Run one epoch with its own order and dropout; `numbers` replace the results of validation."""
    epoch = len(training.history) + 1
    torch.manual_seed(epoch)
    order = torch.randperm(11, generator=torch.Generator().manual_seed(epoch))
    batches = trainer.split_order(order, 4)

    def validate(net):
        with torch.inference_mode():
            logits = net.eval()(X)
        return numbers or (LOSS(logits, Y).item(), (logits.argmax(1) == Y).double().mean().item())

    return training.epoch(((X[i], Y[i], len(i)) for i in batches), validate, after_step)


def same(one, other):
    """Whether two state dicts hold the same bits."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("clip_norm", [0.0, 0.1])
def test_an_epoch_is_that_of_a_loop_written_by_hand(clip_norm):
    """Weights and buffers after two epochs are those of a plain loop, bit for bit."""
    training, net = make_trainer(schedule="onecycle", clip_norm=clip_norm), make_net()
    optimizer = torch.optim.SGD(
        [
            {"params": [net[0].weight, net[5].weight], "weight_decay": 0.01},
            {"params": [net[0].bias, *net[1].parameters(), net[5].bias]},
        ],
        lr=0.05,
        momentum=0.9,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.05, total_steps=13, cycle_momentum=False
    )
    for epoch in (1, 2):
        torch.manual_seed(epoch)
        net.train()
        order = torch.randperm(11, generator=torch.Generator().manual_seed(epoch))
        for i in (order[:4], order[4:8], order[8:]):
            optimizer.zero_grad()
            LOSS(net(X[i]), Y[i]).backward()
            if clip_norm:
                torch.nn.utils.clip_grad_norm_(net.parameters(), clip_norm)
            optimizer.step()
            schedule.step()
        rate = optimizer.param_groups[0]["lr"]
        assert run(training).lr != rate == training.optimizer.param_groups[0]["lr"]
    assert same(training.net.state_dict(), net.state_dict())


def test_no_steps_move_nothing():
    """Making a trainer and reading its state do not change the network."""
    training = make_trainer(ema=0.5)
    training.state()
    assert same(training.net.state_dict(), make_net().state_dict())


def test_clipping_limits_the_gradient():
    """With a limit of c, a step of plain SGD is lr * c long if the gradient is longer than c, else
    unchanged."""
    for limit, clipped in ((0.01, True), (1e6, False)):
        net = make_net()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
        schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
        training = Trainer(net, net, optimizer, schedule, LOSS, **OFF | {"clip_norm": limit})
        training.steps([(X[:4], Y[:4], 4)], lambda *_: None)
        moves = [p - q for p, q in zip(net.parameters(), make_net().parameters(), strict=True)]
        length = math.sqrt(sum(move.square().sum().item() for move in moves))
        assert math.isclose(length, 0.5 * 0.01, rel_tol=1e-3) == clipped


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_running_numbers_are_those_computed_afterwards(smoothing):
    """The loss, without smoothing, and the accuracy are means over images, not over batches, in the
    progress bar too."""
    net, seen = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), []
    training = make_trainer(net, lr=0.0)
    training.loss = nn.CrossEntropyLoss(label_smoothing=smoothing)
    row = run(
        training,
        after_step=lambda count, *sums: seen.append((count, *(value.item() for value in sums))),
    )
    logits = net(X)
    assert row.train_loss == pytest.approx(LOSS(logits, Y).item())
    right = (logits.argmax(1) == Y).sum().item()
    assert row.train_accuracy == right / 11
    assert [count for count, *_ in seen] == [4, 8, 11]
    assert seen[-1][1:] == pytest.approx((11 * row.train_loss, right))


def test_averaged_weights_follow_the_formula():
    """Averaged weights and buffers start at those of the first step, then decay by `ema` per
    step."""
    training, steps = make_trainer(ema=0.75), []
    run(training, after_step=lambda *_: steps.append(copy.deepcopy(training.net.state_dict())))
    average = training.current.state_dict()
    assert same(training.net.state_dict(), steps[-1])
    for key, value in average.items():
        if value.is_floating_point():
            first, second, third = (step[key] for step in steps)
            assert torch.allclose(
                value, 0.75 * (0.75 * first + 0.25 * second) + 0.25 * third, atol=1e-7
            ), key
    assert not torch.equal(average["1.running_mean"], steps[-1]["1.running_mean"])
    training.finish()
    assert same(training.net.state_dict(), average)


@pytest.mark.parametrize(
    ("monitor", "keep", "kept"),
    [("accuracy", "best", 2), ("loss", "best", 4), ("accuracy", "last", 5), ("loss", "last", 5)],
)
@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_the_weights_of_the_right_epoch_are_kept(monitor, keep, kept, ema):
    """`best` keeps the weights of the first epoch with the best monitored metric, `last` those of
    the last epoch."""
    numbers = [(0.9, 0.5), (0.8, 0.7), (0.7, 0.7), (0.5, 0.6), (0.6, 0.6)]  # loss and accuracy
    training, states = make_trainer(monitor=monitor, keep=keep, ema=ema), []
    for row in numbers:
        run(training, row)
        states.append(copy.deepcopy(training.current.state_dict()))
    assert training.finish().epoch == kept
    assert same(training.net.state_dict(), states[kept - 1])
    assert [(row.val_loss, row.val_accuracy) for row in training.history] == numbers


@pytest.mark.parametrize(("patience", "epochs"), [(0, 7), (1, 3), (2, 6), (3, 7)])
def test_patience_counts_epochs_without_a_better_one(patience, epochs):
    """Training stops after `patience` epochs that were not better than the best before them."""
    training = make_trainer(patience=patience, monitor="loss")
    for loss in (0.9, 0.8, 0.8, 0.7, 0.9, 0.8, 0.6):
        if training.stopped():
            break
        run(training, (loss, 0.5))
    assert len(training.history) == epochs
    assert training.stopped() == (epochs < 7)


def test_the_plateau_schedule_looks_at_validation():
    """The rate falls after an epoch without improvement, and each row has the rate of its own
    epoch."""
    training = make_trainer(schedule="plateau", monitor="accuracy")
    rates = [
        run(training, row).lr
        for row in ((0.9, 0.5), (0.8, 0.5), (0.7, 0.6), (0.6, 0.6), (0.5, 0.7))
    ]
    assert rates == [0.05, 0.05, 0.025, 0.025, 0.0125]


def test_a_loss_that_is_not_finite_is_an_error():
    """A training or validation loss of NaN or infinity is an error that names epoch and
    parameter."""
    for numbers in ((math.nan, 0.1), (math.inf, 0.1)):
        training = make_trainer()
        run(training)
        with pytest.raises(UserError, match=r"not finite in epoch 2 \(params\.yaml, train\.lr\)"):
            run(training, numbers)
        assert len(training.history) == 1
    with pytest.raises(UserError, match="not finite in epoch 1"):
        run(make_trainer(lr=1e30), (1.0, 0.1))


@pytest.mark.slow
@pytest.mark.parametrize("keep", ["best", "last"])
@pytest.mark.parametrize("ema", [0.0, 0.5])
@pytest.mark.parametrize("schedule", ["constant", "onecycle", "plateau"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "muon"])
def test_a_resumed_training_has_the_same_bits(optimizer, schedule, ema, keep, tmp_path):
    """A training that is saved and restored after every epoch ends with the same weights and
    history."""
    options = {"optimizer": optimizer, "schedule": schedule, "ema": ema, "keep": keep, "lr": 0.01}
    numbers = [(0.9, 0.5), (0.8, 0.7), (0.9, 0.6), (1.0, 0.6)]
    whole, parts = make_trainer(**options), make_trainer(**options)
    for epoch, row in enumerate(numbers):
        run(whole, row)
        run(parts, row)
        (tmp_path / "state").write_bytes(checkpoint.dump(parts.state()))
        parts = make_trainer(make_net(seed=99 + epoch), **options)
        parts.restore(checkpoint.load(tmp_path / "state"))
    assert parts.history == whole.history
    assert parts.finish() == whole.finish()
    assert same(parts.net.state_dict(), whole.net.state_dict())


@pytest.mark.parametrize(
    ("count", "size", "sizes"),
    [
        (10, 4, [4, 4, 2]),
        (9, 4, [4, 5]),
        (8, 4, [4, 4]),
        (5, 4, [5]),
        (3, 4, [3]),
        (1, 4, [1]),
        (3, 1, [1, 1, 1]),
        (3, 2, [3]),
    ],
)
def test_batches_hold_every_image_once(count, size, sizes):
    """Batches have every image once, in the given order, and a last one of one image joins the one
    before it."""
    order = torch.randperm(count)
    batches = list(trainer.split_order(order, size))
    assert [len(batch) for batch in batches] == sizes
    assert len(sizes) == trainer.steps_per_epoch(count, size)
    assert torch.equal(torch.cat(batches), order)


def test_several_processes_have_two_images_each():
    """A last batch with fewer than two images for each process joins the one before it too."""
    assert [len(batch) for batch in trainer.split_order(torch.arange(25), 8, least=4)] == [8, 8, 9]
    assert [len(batch) for batch in trainer.split_order(torch.arange(27), 8, least=4)] == [8, 8, 11]
    assert [len(batch) for batch in trainer.split_order(torch.arange(28), 8, least=4)] == [
        8,
        8,
        8,
        4,
    ]
    assert trainer.steps_per_epoch(27, 8, least=4) == 3


def test_no_batch_of_one():
    """For any number of images and any batch size above one, no batch has one image."""
    for count in range(2, 40):
        for size in range(2, 45):
            lengths = [len(batch) for batch in trainer.split_order(torch.arange(count), size)]
            assert min(lengths) > 1
            assert sum(lengths) == count
            assert len(lengths) == trainer.steps_per_epoch(count, size)


def test_metrics_of_an_ensemble_are_means():
    """Metrics are those of the kept epoch, or their means over several networks, rounded to five
    places."""
    first = trainer.Epoch(3, 0.1, 0.5, 0.25, 1.0, 0.123456789)
    second = trainer.Epoch(4, 0.1, 0.75, 0.5, 1.5, 0.5)
    one, two = trainer.metrics([first]), trainer.metrics([first, second])
    assert one == {
        "epoch": 3,
        "train": {"loss": 0.5, "accuracy": 0.25},
        "val": {"loss": 1.0, "accuracy": 0.12346},
    }
    assert two == {
        "epoch": 3.5,
        "train": {"loss": 0.625, "accuracy": 0.375},
        "val": {"loss": 1.25, "accuracy": 0.31173},
    }
    assert isinstance(one["epoch"], int)
