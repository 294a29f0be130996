"""Results as files: never overwritten, distinct, and never on mixed images."""

import pytest

from benchmarks import results
from benchmarks.results import Images, Result
from cifar import UserError

IMAGES = Images(
    name="cifar10",
    archive_sha256="a",
    test_sha256={"images": "b", "labels": "c"},
    train_images=45_000,
    val_images=5_000,
    test_images=10_000,
)
RESULT = Result(
    recipe="gap",
    changes={},
    seed=0,
    accuracy=0.72,
    accuracy_low=0.71,
    accuracy_high=0.73,
    loss=0.8,
    epochs=10,
    epochs_published=10,
    seconds=60.0,
    threads=1,
    device="cpu, AVX2",
    machine="a processor",
    note="",
    versions={"torch": "2.14.1"},
    commit="0" * 40,
    code="1" * 12,
    dataset=IMAGES,
    history=[{"epoch": 1, "val_loss": 0.9, "val_accuracy": 0.7}],
)


def test_a_result_is_read_as_it_was_written(tmp_path):
    """Writing and reading gives the same result, with one line for each epoch."""
    path = results.write(RESULT, tmp_path)
    assert results.read_all(tmp_path) == [RESULT]
    assert '\n    {"epoch": 1, "val_loss": 0.9, "val_accuracy": 0.7}\n' in path.read_text()


def test_a_result_is_never_overwritten(tmp_path):
    """A second result of the same run is refused, and the first one stays."""
    path = results.write(RESULT, tmp_path)
    before = path.read_bytes()
    with pytest.raises(UserError, match="has a result already"):
        results.write(RESULT.model_copy(update={"accuracy": 0.9}), tmp_path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "other",
    [
        {"recipe": "vgg1"},
        {"changes": {"train.epochs": 20}},
        {"seed": 1},
        {"code": "2" * 12},
        {"versions": {"torch": "2.15.0"}},
        {"device": "cpu, AVX512"},
        {"threads": 2},
        {"dataset": IMAGES.model_copy(update={"test_sha256": None})},
    ],
    ids=lambda other: next(iter(other)),
)
def test_what_tells_runs_apart_is_in_the_name(other):
    """Another recipe, change, seed, code, torch, device, thread count or data set has its file."""
    assert RESULT.model_copy(update=other).filename != RESULT.filename


def test_a_damaged_file_is_named(tmp_path):
    """A file that is not a result is refused, and the message names the wrong field."""
    path = results.write(RESULT, tmp_path)
    path.write_text(path.read_text().replace('"seed": 0', '"seed": "zero"'))
    with pytest.raises(UserError, match=rf"not a result: seed \({path}\)"):
        results.read_all(tmp_path)


def test_other_images_of_the_same_name_are_refused():
    """The same test images are accepted from any archive; different ones are refused."""
    results.check_images([RESULT], "vgg1", IMAGES.model_copy(update={"archive_sha256": "z"}))
    other = IMAGES.model_copy(update={"test_sha256": {"images": "x", "labels": "c"}})
    with pytest.raises(
        UserError, match="the test images of cifar10 differ from those of gap-seed0"
    ):
        results.check_images([RESULT], "vgg1", other)


def test_a_recipe_stays_on_its_data_set():
    """A recipe measured on one data set is refused on another; another recipe is not."""
    digits = IMAGES.model_copy(update={"name": "digits", "test_sha256": None})
    results.check_images([RESULT], "vgg1", digits)
    with pytest.raises(UserError, match="gap was measured on cifar10, not on digits"):
        results.check_images([RESULT], "gap", digits)


def test_a_beginning_is_a_recipe_cut_short():
    """A run with fewer epochs than published is one; with more, or with other values, it is not."""
    short = RESULT.model_copy(update={"changes": {"train.epochs": 3}, "epochs": 3})
    assert short.is_beginning and not RESULT.is_beginning
    assert short.model_copy(update={"epochs_published": None}).is_beginning, "not stated"
    assert not short.model_copy(update={"epochs": 20}).is_beginning
    both = {"train.epochs": 3, "train.keep": "best"}
    assert not short.model_copy(update={"changes": both}).is_beginning


def test_published_numbers_belong_to_their_changes():
    """A changed recipe has its own published accuracy and epochs, if it was published."""
    published = results.read_published()
    assert results.published_for(published, "sgd-cnn", {})["accuracy"] == 0.7737
    longer = {"train.epochs": 150}
    assert results.published_for(published, "sgd-cnn", longer)["accuracy"] == 0.7822
    assert results.published_for(published, "sgd-cnn", {"train.lr": 0.1}) == {}
    assert results.published_epochs("sgd-cnn", longer) == 150
    assert results.published_epochs("sgd-cnn", {"train.lr": 0.1}) == 100
    assert results.published_epochs("digits", {}) is None
