"""The charts: drawn for few and many classes, in grey and colour, with the right content."""

import io
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from cifar.evaluation import calibration, charts, tiles

MANY = pytest.param(100, 3, marks=pytest.mark.long)


@pytest.fixture(autouse=True)
def closed():
    yield
    charts.plt.close("all")


def names(count):
    return [f"a class with number {i}" if i % 10 == 9 else f"class {i}" for i in range(count)]


def random_images(count, channels, side=8):
    return np.random.default_rng(0).integers(
        256, size=(count, side, side, channels), dtype=np.uint8
    )


def history(epochs, seed=0):
    values = np.random.default_rng(seed).random((epochs, 4))
    frame = pd.DataFrame(
        values, columns=["train_loss", "val_loss", "train_accuracy", "val_accuracy"]
    )
    return frame.assign(epoch=range(1, epochs + 1))


def table(accuracies, images=10):
    """A table of classes like plots/classes.csv."""
    accuracies = np.asarray(accuracies, float)
    return pd.DataFrame(
        {
            "class": names(len(accuracies)),
            "accuracy": accuracies,
            "images": images,
            "accuracy_low": accuracies - 0.1,
            "accuracy_high": accuracies + 0.1,
        }
    )


def figures(classes, channels):
    """Every chart of a data set with this number of classes and channels."""
    labels = np.arange(3 * classes) % classes
    matrix = np.random.default_rng(0).integers(50, size=(classes, classes))
    fractions = np.random.default_rng(0).random(classes)
    bins = calibration.bins(fractions, fractions > 0.5)
    short = [charts.shorten(name) for name in names(classes)]
    captions = [f"{name}, seen as\nsomething (99%)" for name in short[:7]]
    return {
        "curves": charts.curves([history(classes), history(classes, 1)], [1, classes]),
        "confusion": charts.confusion(matrix, names(classes), "Test accuracy 50.00%"),
        "classes": charts.classes(table(fractions), 0.5),
        "calibration": charts.calibration(bins, bins, 0.123, 0.2),
        "samples": tiles.samples(random_images(len(labels), channels), labels, short, 2),
        "mistakes": tiles.mistakes(random_images(7, channels), captions, "Mistakes"),
        "pixels": tiles.sensitivity(
            random_images(2, channels), random_images(2, 1)[..., 0], captions[:2]
        ),
        "filters": tiles.filters(np.random.default_rng(0).normal(size=(classes, channels, 3, 3))),
    }


def png(figure):
    handle = io.BytesIO()
    charts.save(figure, handle, dpi=50)
    return handle.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize(("classes", "channels"), [(2, 1), MANY])
def test_charts_have_reproducible_bytes(classes, channels):
    """Each chart is a PNG without date or version, with the same bytes each time, and not blank."""
    first, second = figures(classes, channels), figures(classes, channels)
    for name, figure in first.items():
        assert isinstance(figure, Figure)
        content = png(figure)
        assert content == png(second[name]), name
        image = Image.open(io.BytesIO(content))
        assert image.format == "PNG"
        assert image.info.keys() <= {"dpi"}
        assert len(np.unique(np.asarray(image.convert("L")))) > 20, name


@pytest.mark.slow
@pytest.mark.parametrize(("classes", "channels"), [(2, 3), (10, 1), MANY])
def test_nothing_is_cut_off(classes, channels):
    """Everything that is drawn lies within its figure, to a hundredth of an inch."""
    for name, figure in figures(classes, channels).items():
        figure.canvas.draw()
        (left, bottom), (right, top) = figure.get_tightbbox().get_points()
        width, height = figure.get_size_inches()
        assert min(left, bottom, width - right, height - top) > -0.01, name


@pytest.mark.hostile
def test_names_in_chinese_fall_back_to_an_installed_font(caplog):
    """Only installed fonts are searched, after the usual one, which still draws the rest."""
    assert charts.families(["SimHei", "DejaVu Sans", "Noto Sans CJK JP"]) == [
        *("sans-serif", "Noto Sans CJK JP", "SimHei"),
    ]
    before = png(charts.confusion(np.eye(2), ["cat", "Bär"], "Test"))
    with charts.plt.rc_context({"font.family": ["sans-serif", "STIXGeneral"]}):
        assert png(charts.confusion(np.eye(2), ["cat", "Bär"], "Test")) == before
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        png(charts.confusion(np.eye(2), ["猫", "개"], "Test"))
    assert caplog.records == []


def test_save_closes_the_figure():
    """A saved figure is closed, so that many charts do not pile up in memory."""
    before = charts.plt.get_fignums()
    png(tiles.mistakes(random_images(1, 1), ["x"], "title"))
    assert charts.plt.get_fignums() == before


def test_curves_show_the_numbers():
    """The loss is above the accuracy in per cent, with a mark at each network's kept epoch."""
    one, two = history(5), history(3, 1)
    figure = charts.curves([one, two], [2, 3])
    loss, accuracy = figure.axes
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
    """The axis of epochs has no fractions, not even for one epoch."""
    figure = charts.curves([history(epochs)], [1])
    figure.canvas.draw()
    assert all(tick.is_integer() for tick in figure.axes[1].get_xticks())
    assert figure.axes[1].get_xticks().size


def test_the_cells_are_per_cents_of_the_rows():
    """A cell is a percentage of its row; a class without images has an empty row.

    Beyond 20 classes the cells have no text.
    """
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


def test_classes_keep_their_order_and_scale():
    """Classes are in the order of the labels, on a scale of 0 to 100 %, with interval and number.

    The chart can therefore be compared with another run's. A class without images has no point.
    """
    rows = table([0.9, 0.0, 0.5])
    rows.loc[1, "images"] = 0
    axis = charts.classes(rows, 0.7).axes[0]
    assert axis.get_xlim() == (0, 100) and axis.yaxis_inverted()
    assert [label.get_text() for label in axis.get_yticklabels()] == [
        "class 0",
        "class 1",
        "class 2",
    ]
    (bars,) = axis.collections
    segments = bars.get_segments()
    assert np.allclose([segment[:, 0] for segment in segments], [[80, 100], [40, 60]])
    assert np.allclose([segment[:, 1] for segment in segments], [[0, 0], [2, 2]])
    assert [text.get_text() for text in axis.texts] == ["90.0", "no images", "50.0"]
    assert np.allclose(axis.lines[0].get_xdata(), 70)


def test_calibration_shows_the_bins():
    """The chart shows accuracy over confidence, before and after, and the images of each bin."""
    right = np.array([True, False, True, True])
    calibrated = calibration.bins(np.array([0.62, 0.64, 0.95, 0.95]), right)
    raw = calibration.bins(np.array([0.3, 0.3, 0.3, 0.3]), right)
    figure = charts.calibration(calibrated, raw, 0.09, 0.45)
    axis, below = figure.axes
    before, after = axis.collections
    assert np.allclose(before.get_offsets(), [[30, 75]])
    assert np.allclose(after.get_offsets(), [[63, 50], [95, 100]])
    assert np.allclose([bar.get_height() for bar in below.patches], [100, 50, 50])
    assert np.allclose([bar.get_x() + bar.get_width() / 2 for bar in below.patches], [25, 65, 95])
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[1:] == ["before: error 45.0 points", "calibrated: error 9.0 points"]
    assert axis.get_xlim() == axis.get_ylim() == (0, 100)


@pytest.mark.slow
@pytest.mark.hostile
@pytest.mark.parametrize("name", ["$a_b$", "a$", "$\\frac$", "<b>", "a|b", "\\", "🐈", "猫"])
def test_names_are_text(name):
    """A class name is drawn as it is in every chart, and no warning reaches the terminal."""
    rows = table([0.5, 0.5]).assign(**{"class": [name, "b"]})
    grey = random_images(2, 1)
    drawn = [
        charts.classes(rows, 0.5),
        charts.confusion(np.eye(2), [name, "b"], f"title {name}"),
        tiles.samples(grey, np.array([0, 1]), [name, "b"], 1),
        tiles.mistakes(grey, [f"{name}, seen as\n{name}", "b"], name),
        tiles.sensitivity(grey, grey[..., 0], [name, "b"]),
    ]
    for figure in drawn:
        texts = [text.get_text() for text in figure.findobj(plt.Text)]
        assert any(name in text for text in texts)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            png(figure)


def test_samples_are_the_first_of_each_class():
    """Row k shows the first images of class k from left to right, then white."""
    images, labels = random_images(6, 3, side=6), np.array([1, 0, 1, 1, 0, 1])
    figure = tiles.samples(images, labels, ["zero", "one"], 3)
    axis = figure.axes[0]
    grid = axis.images[0].get_array()
    assert (grid[0] == 255).all() and (grid[:, 0] == 255).all()
    parts = [[grid[row : row + 6, column : column + 6] for column in (1, 8, 15)] for row in (1, 8)]
    assert np.array_equal(parts[0][0], images[1])
    assert np.array_equal(parts[0][1], images[4])
    assert (parts[0][2] == 255).all()
    assert all(np.array_equal(tile, images[i]) for tile, i in zip(parts[1], (0, 2, 3), strict=True))
    assert [label.get_text() for label in axis.get_yticklabels()] == ["zero", "one"]
    assert axis.get_yticks().tolist() == [3.5, 10.5]
    assert not any(line.get_visible() for line in axis.get_ygridlines())


def test_many_classes_stand_in_blocks():
    """A hundred classes are four blocks of twenty-five rows, every class with its name once."""
    figure = tiles.samples(random_images(100, 1), np.arange(100), [str(i) for i in range(100)], 1)
    found = [[label.get_text() for label in axis.get_yticklabels()] for axis in figure.axes]
    assert found == [[str(i) for i in range(start, start + 25)] for start in (0, 25, 50, 75)]
    last = figure.axes[3].images[0].get_array()
    assert np.array_equal(last[24 * 9 + 1 : 25 * 9, 1:9], random_images(100, 1)[99, ..., 0])


@pytest.mark.parametrize("count", [0, 1, 6, 7])
def test_mistakes_carry_their_captions(count):
    """Each image has its caption, in rows of six; a sentence replaces a chart without mistakes."""
    images = random_images(count, 1)
    figure = tiles.mistakes(images, [f"caption {i}" for i in range(count)], "title")
    shown = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title() for axis in shown] == [f"caption {i}" for i in range(count)]
    assert all(
        np.array_equal(axis.images[0].get_array(), image[..., 0])
        for axis, image in zip(shown, images, strict=True)
    )
    assert len(figure.axes) == 6 * -(-count // 6)
    assert "title" in [text.get_text() for text in figure.findobj(plt.Text)]


def cells(figure, height, width, gap):
    """The filters in a chart, row by row, with one value for each weight."""
    grid = np.asarray(figure.axes[0].images[0].get_array())
    zoom = tiles.SIDE // width
    step = zoom * height + gap, zoom * width + gap
    tops = range(gap, grid.shape[0], step[0])
    lefts = range(gap, grid.shape[1], step[1])
    return [
        grid[top : top + zoom * height : zoom, left : left + zoom * width : zoom].tolist()
        for top in tops
        for left in lefts
    ]


def test_filters_are_scaled_around_grey():
    """Zero is mid-grey and the largest weight of each filter white or black.

    Three channels are in colour, others in the grey of their mean. The gaps have another grey.
    """
    weights = np.zeros((2, 3, 1, 2))
    weights[0, 0, 0, 0] = 4
    weights[0, 1, 0, 1] = -2
    weights[1, 2, 0, 0] = -0.1
    figure = tiles.filters(weights)
    first, second = cells(figure, 1, 2, gap=4)
    assert first == [[[1, 0.5, 0.5], [0.5, 0.25, 0.5]]]
    assert second == [[[0.5, 0.5, 0], [0.5, 0.5, 0.5]]]
    grid = figure.axes[0].images[0].get_array()
    assert (grid[:4] == tiles.GAP).all() and (grid[:, -4:] == tiles.GAP).all()
    grey = tiles.filters(np.array([[[[-2.0, 0.0, 1.0]]], [[[0.0, 0.0, 0.0]]]]))
    assert cells(grey, 1, 3, gap=4) == [[[0, 0.5, 0.75]], [[0.5, 0.5, 0.5]]]
    assert "units of the filter's largest weight" in grey.axes[0].get_xlabel()


def test_filters_stand_in_rows_of_sixteen():
    """Twenty filters of 3x3 make two rows, and only the first sixty-four of a hundred are shown."""
    weights = np.random.default_rng(0).normal(size=(100, 1, 3, 3))
    figure = tiles.filters(weights[:20])
    shown = cells(figure, 3, 3, gap=4)
    assert len(shown) == 32
    assert np.allclose(shown[19], 0.5 + 0.5 * weights[19, 0] / np.abs(weights[19]).max())
    assert (np.array(shown[20:]) == tiles.GAP).all()
    assert figure.get_suptitle() == "The 20 filters of the first layer"
    assert tiles.filters(weights).get_suptitle() == "The 64 of the 100 filters of the first layer"


def test_a_network_without_filters_has_a_small_sentence():
    """The chart is one line of text, not a blank page."""
    figure = tiles.filters(np.zeros((0, 1, 1, 1), np.float32))
    assert figure.get_figheight() < 1
    assert figure.texts[0].get_text().startswith("The first layer has no filters")
    png(figure)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_one_pixel_are_drawn(channels):
    """The smallest images that the pipeline accepts are shown in grey and in colour."""
    png(tiles.mistakes(random_images(2, channels, side=1), ["a", "b"], "title"))
    png(tiles.samples(random_images(2, channels, side=1), np.array([0, 1]), ["a", "b"], 1))


def test_long_names_are_shortened():
    """A name of more than fourteen letters is cut to fourteen, with an ellipsis at its end."""
    assert charts.shorten("fourteen_chars") == "fourteen_chars"
    assert charts.shorten("fifteen_letters") == "fifteen_lette…"
