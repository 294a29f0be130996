"""The pictures: drawn for few and many classes, grey and colour; what they say is in them, and their bytes repeat."""

import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from cifar.evaluation import calibration, charts, tiles
from stages import plot


@pytest.fixture(autouse=True)
def closed():
    yield
    charts.plt.close("all")


def names(count):
    return [f"a class with number {i}" if i % 10 == 9 else f"class {i}" for i in range(count)]


def pictures(count, channels, side=8):
    return np.random.default_rng(0).integers(
        256, size=(count, side, side, channels), dtype=np.uint8
    )


def history(epochs, seed=0):
    values = np.random.default_rng(seed).random((epochs, 4))
    frame = pd.DataFrame(
        values, columns=["train_loss", "val_loss", "train_accuracy", "val_accuracy"]
    )
    return frame.assign(epoch=range(1, epochs + 1))


def figures(classes, channels):
    """Every picture of a data set with so many classes and channels."""
    labels = np.arange(3 * classes) % classes
    matrix = np.random.default_rng(0).integers(50, size=(classes, classes))
    shares = np.random.default_rng(0).random(classes)
    short = [charts.shorten(name) for name in names(classes)]
    captions = [f"{name}, seen as\nsomething (99%)" for name in short[:7]]
    return {
        "curves": charts.curves([history(classes), history(classes, 1)], [1, classes]),
        "confusion": charts.confusion(matrix, names(classes), "Test accuracy 50.00%"),
        "classes": charts.classes(
            names(classes), shares, np.stack([shares - 0.1, shares + 0.1], 1), 0.5
        ),
        "calibration": charts.calibration(calibration.bins(shares, shares > 0.5), 0.123),
        "samples": tiles.samples(pictures(len(labels), channels), labels, short, 2),
        "mistakes": tiles.mistakes(pictures(7, channels), captions, "Mistakes"),
        "pixels": tiles.sensitivity(pictures(6, channels), pictures(6, 1)[..., 0], captions),
        "filters": tiles.filters(np.random.default_rng(0).normal(size=(classes, channels, 3, 3))),
    }


def png(figure):
    handle = io.BytesIO()
    charts.save(figure, handle, dpi=50)
    return handle.getvalue()


@pytest.mark.parametrize(("classes", "channels"), [(2, 1), (100, 3)])
def test_pictures_repeat_their_bytes(classes, channels):
    """Each picture is a PNG without date or version, with the same bytes when it is drawn twice, and not blank."""
    first, second = figures(classes, channels), figures(classes, channels)
    for name, figure in first.items():
        assert isinstance(figure, Figure)
        content = png(figure)
        assert content == png(second[name]), name
        image = Image.open(io.BytesIO(content))
        assert image.format == "PNG"
        assert image.info.keys() <= {"dpi"}
        assert len(np.unique(np.asarray(image.convert("L")))) > 20, name


@pytest.mark.parametrize(("classes", "channels"), [(2, 3), (10, 1), (100, 3)])
def test_nothing_is_cut_off(classes, channels):
    """Everything that is drawn lies within its picture, to a hundredth of an inch."""
    for name, figure in figures(classes, channels).items():
        figure.canvas.draw()
        (left, bottom), (right, top) = figure.get_tightbbox().get_points()
        width, height = figure.get_size_inches()
        assert min(left, bottom, width - right, height - top) > -0.01, name


def test_save_closes_the_figure():
    """A saved figure is given back: many pictures do not pile up in memory."""
    before = charts.plt.get_fignums()
    png(tiles.mistakes(pictures(1, 1), ["x"], "title"))
    assert charts.plt.get_fignums() == before


def test_curves_show_the_numbers():
    """Loss is above accuracy in per cent, training and validation of every network, with a mark at the kept epoch."""
    one, two = history(5), history(3, 1)
    figure = charts.curves([one, two], [2, 3])
    loss, accuracy = figure.axes
    assert [line.get_label() for line in loss.lines[:3]] == ["training", "validation", "kept"]
    assert loss.lines[0].get_ydata().tolist() == one["train_loss"].tolist()
    assert accuracy.lines[4].get_ydata().tolist() == (100 * two["val_accuracy"]).tolist()
    assert (loss.lines[2].get_xdata(), loss.lines[2].get_ydata()) == ([2], [one["val_loss"][1]])
    assert (accuracy.lines[5].get_xdata(), accuracy.lines[5].get_ydata()) == (
        [3],
        [100 * two["val_accuracy"][2]],
    )
    assert [text.get_text() for text in loss.get_legend().get_texts()] == [
        "training",
        "validation",
        "kept",
    ]


@pytest.mark.parametrize("epochs", [1, 2, 4, 400])
def test_epochs_are_whole_numbers(epochs):
    """The axis of epochs has no fractions, for one epoch either."""
    figure = charts.curves([history(epochs)], [1])
    figure.canvas.draw()
    assert all(tick.is_integer() for tick in figure.axes[1].get_xticks())
    assert figure.axes[1].get_xticks().size


def test_the_cells_are_per_cents_of_the_rows():
    """A cell is its share of the row; a class without images has an empty row; beyond 20 classes cells have no text."""
    matrix = np.array([[3, 1, 0], [0, 5, 0], [0, 0, 0]])
    figure = charts.confusion(matrix, ["a", "b", "c"], "title")
    axis = figure.axes[0]
    assert axis.images[0].get_array().tolist() == [[75, 25, 0], [0, 100, 0], [0, 0, 0]]
    cells = {(text.get_position()): text.get_text() for text in axis.texts}
    assert cells == {(0, 0): "75", (1, 0): "25", (1, 1): "100"}
    assert axis.get_title(loc="left") == "title"
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b", "c"]
    large = charts.confusion(np.eye(21), names(21), "title")
    assert not large.axes[0].texts


def test_classes_are_sorted_and_carry_their_intervals():
    """The best class is on top, each with the ends of its interval, and a line stands at the accuracy of all."""
    figure = charts.classes(
        ["a", "b"], np.array([0.9, 0.5]), np.array([[0.8, 1.0], [0.2, 0.6]]), 0.7
    )
    axis = figure.axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["b", "a"]
    (bars,) = axis.collections
    assert np.allclose([segment[:, 0] for segment in bars.get_segments()], [[20, 60], [80, 100]])
    assert np.allclose(axis.lines[-1].get_xdata(), 70)


def test_calibration_shows_the_bins():
    """Accuracy stands over confidence in per cent, below it the share of the images, and the error in the title."""
    found = calibration.bins(
        np.array([0.62, 0.64, 0.95, 0.95]), np.array([True, False, True, True])
    )
    figure = charts.calibration(found, 0.09)
    axis, below = figure.axes
    assert np.allclose(axis.lines[1].get_xydata(), [[63, 50], [95, 100]])
    assert np.allclose([bar.get_height() for bar in below.patches], [50, 50])
    assert np.allclose([bar.get_x() + bar.get_width() / 2 for bar in below.patches], [65, 95])
    assert "9.0 points" in axis.get_title(loc="left")


def test_samples_are_the_first_of_each_class():
    """Row k shows the first images of class k from left to right, and stays white where there are no more."""
    images, labels = pictures(6, 3, side=6), np.array([1, 0, 1, 1, 0, 1])
    figure = tiles.samples(images, labels, ["zero", "one"], 3)
    shown = figure.axes[0].images[0].get_array()
    parts = [[shown[row : row + 6, column : column + 6] for column in (0, 7, 14)] for row in (0, 7)]
    assert np.array_equal(parts[0][0], images[1])
    assert np.array_equal(parts[0][1], images[4])
    assert (parts[0][2] == 255).all()
    assert all(np.array_equal(tile, images[i]) for tile, i in zip(parts[1], (0, 2, 3), strict=True))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["zero", "one"]
    assert not any(line.get_visible() for line in figure.axes[0].get_ygridlines())


def test_many_classes_stand_in_blocks():
    """A hundred classes are four blocks of twenty-five rows, every class with its name once."""
    figure = tiles.samples(pictures(100, 1), np.arange(100), [str(i) for i in range(100)], 1)
    found = [[label.get_text() for label in axis.get_yticklabels()] for axis in figure.axes]
    assert found == [[str(i) for i in range(start, start + 25)] for start in (0, 25, 50, 75)]
    last = figure.axes[3].images[0].get_array()
    assert np.array_equal(last[24 * 9 : 24 * 9 + 8, :8], pictures(100, 1)[99, ..., 0])


@pytest.mark.parametrize("count", [0, 1, 6, 7])
def test_mistakes_carry_their_captions(count):
    """Each image has its caption, in rows of six; without a mistake the title stands alone."""
    images = pictures(count, 1)
    figure = tiles.mistakes(images, [f"caption {i}" for i in range(count)], "title")
    shown = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title() for axis in shown] == [f"caption {i}" for i in range(count)]
    assert all(
        np.array_equal(axis.images[0].get_array(), image[..., 0])
        for axis, image in zip(shown, images, strict=True)
    )
    assert len(figure.axes) == 6 * max(1, -(-count // 6))


def test_filters_are_scaled_around_grey():
    """Zero is mid-grey and the largest weight of each filter white or black; three channels are colours."""
    weights = np.zeros((2, 3, 1, 2))
    weights[0, 0, 0, 0], weights[0, 1, 0, 1], weights[1, 2, 0, 0] = 4, -2, -0.1
    figure = tiles.filters(weights)
    first = [[1, 0.5, 0.5], [0.5, 0.25, 0.5]]
    second = [[0.5, 0.5, 0], [0.5, 0.5, 0.5]]
    assert figure.axes[0].images[0].get_array().tolist() == [[*first, [1, 1, 1], *second]]
    grey = tiles.filters(np.array([[[[-2.0, 0.0, 1.0]]], [[[0.0, 0.0, 0.0]]]]))
    assert grey.axes[0].images[0].get_array().tolist() == [[0, 0.5, 0.75, 1, 0.5, 0.5, 0.5]]


def test_filters_stand_in_rows_of_sixteen():
    """Twenty filters of 3x3 are two rows with a white pixel between, the last places empty."""
    weights = np.random.default_rng(0).normal(size=(20, 1, 3, 3))
    figure = tiles.filters(weights)
    shown = figure.axes[0].images[0].get_array()
    assert shown.shape == (2 * 4 - 1, 16 * 4 - 1)
    last = weights[19, 0]
    assert np.allclose(shown[4:7, 12:15], 0.5 + 0.5 * last / np.abs(last).max())
    assert (shown[:, 3::4] == 1).all()
    assert (shown[4:, 16:] == 1).all()


def test_a_network_without_convolutions_has_no_filters():
    """No filters give a picture that says so."""
    figure = tiles.filters(np.zeros((0, 1, 1, 1), np.float32))
    assert figure.get_suptitle().startswith("No convolution")
    png(figure)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_one_pixel_are_drawn(channels):
    """The smallest images that the pipeline takes are shown in grey and in colour."""
    png(tiles.mistakes(pictures(2, channels, side=1), ["a", "b"], "title"))
    png(tiles.samples(pictures(2, channels, side=1), np.array([0, 1]), ["a", "b"], 1))


def test_long_names_are_shortened():
    """A name of up to fourteen letters stays, a longer one ends in an ellipsis and is as long."""
    assert charts.shorten("fourteen_chars") == "fourteen_chars"
    assert charts.shorten("fifteen_letters") == "fifteen_lette…"


def test_a_class_without_test_images_is_not_drawn(tmp_path, monkeypatch):
    """Stage plot leaves out of the ranking what was not measured."""
    (tmp_path / "plots").mkdir()
    rows = "class,accuracy,images,accuracy_low,accuracy_high\ncat,0.5,4,0.2,0.8\nnone,0,0,0,1\ndog,0.25,4,0.1,0.7\n"
    (tmp_path / "plots/classes.csv").write_text(rows)
    monkeypatch.chdir(tmp_path)
    (axis,) = plot.classes({"accuracy": 0.375}).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["dog", "cat"]
