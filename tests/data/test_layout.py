"""The part and class of each picture, in the layouts of published data sets."""

import pytest

from cifar import UserError
from cifar.data import layout

HOSTILE = pytest.mark.hostile  # one marked case per input; unmarked cases are variants


def tree(*folders: str, files: tuple[str, ...] = ("1.jpg",)) -> list[str]:
    """Files in each of the folders; a,b stands for two folders."""
    names = [""]
    result = []
    for folder in folders:
        names = [""]
        for part in folder.split("/"):
            names = [f"{name}{choice}/" for name in names for choice in part.split(",")]
        result += [name + file for name in names for file in files]
    return result


def places(*files: str) -> set[str]:
    return set(layout.recognize(files, "x").sources)


PUBLISHED = {  # data set: (its files, those that are used, those that are left out)
    "flower_photos": (
        [*tree("flower_photos/daisy,rose"), "flower_photos/LICENSE.txt"],
        tree("train/daisy,rose"),
        ["flower_photos/LICENSE.txt"],
    ),
    "fast.ai's cifar10": (
        [*tree("cifar10/train,test/cat,dog"), "cifar10/labels.txt"],
        tree("train,test/cat,dog"),
        ["cifar10/labels.txt"],
    ),
    "Imagenette": (
        [*tree("imagenette2/train,val/n01,n02"), "imagenette2/noisy_imagenette.csv"],
        tree("train,val/n01,n02"),
        ["imagenette2/noisy_imagenette.csv"],
    ),
    "a brain tumour set": (tree("Training,Testing/glioma,no"), tree("train,test/glioma,no"), []),
    "Roboflow's export": (
        [*tree("train,valid,test/cat,dog"), "README.roboflow.txt"],
        tree("train,val,test/cat,dog"),
        ["README.roboflow.txt"],
    ),
    "a GitHub zip": (
        [*tree("pets-main/data/train,test/cat,dog"), "pets-main/README.md", "pets-main/src/a.py"],
        tree("train,test/cat,dog"),
        ["pets-main/README.md", "pets-main/src/a.py"],
    ),
    "Intel's scenes": (
        [*tree("seg_train/seg_train/sea,street", "seg_test/seg_test/sea,street"), "seg_pred/9.jpg"],
        tree("train,test/sea,street"),
        ["seg_pred/9.jpg"],
    ),
    "Kaggle's cats and dogs": (
        tree("training_set/training_set/cats,dogs", "test_set/test_set/cats,dogs"),
        tree("train,test/cats,dogs"),
        [],
    ),
    "chest X-rays, twice in their zip": (
        tree("chest_xray/train,val,test/a,b", "chest_xray/chest_xray/train,val,test/a,b"),
        tree("train,val,test/a,b"),
        tree("chest_xray/chest_xray/train,val,test/a,b"),
    ),
    "tiny-imagenet": (
        [
            *tree("tiny/train/n01,n02/images", files=("1.JPEG", "2.JPEG")),
            *("tiny/train/n01/n01_boxes.txt", "tiny/val/images/v.JPEG", "tiny/test/images/t.JPEG"),
            *("tiny/val/val_annotations.txt", "tiny/wnids.txt"),
        ],
        tree("train/n01,n02", files=("1.JPEG", "2.JPEG")),
        [
            *("tiny/train/n01/n01_boxes.txt", "tiny/val/images/v.JPEG", "tiny/test/images/t.JPEG"),
            *("tiny/val/val_annotations.txt", "tiny/wnids.txt"),
        ],
    ),
    "Food-101": (
        [*tree("food-101/images/pie,soup"), "food-101/meta/train.txt", "food-101/README.txt"],
        tree("train/pie,soup"),
        ["food-101/meta/train.txt", "food-101/README.txt"],
    ),
    "Food-11": (
        tree("training,validation,evaluation/Bread,Soup"),
        tree("train,val,test/Bread,Soup"),
        [],
    ),
    "Caltech-256": (
        [*tree("256_ObjectCategories/056.dog,198.spider"), "256_ObjectCategories/056.dog/x/2.jpg"],
        tree("train/056.dog,198.spider"),
        ["256_ObjectCategories/056.dog/x/2.jpg"],
    ),
    "CUB-200": (
        [*tree("CUB_200_2011/images/001.A,002.B"), "CUB_200_2011/parts/parts.txt"],
        tree("train/001.A,002.B"),
        ["CUB_200_2011/parts/parts.txt"],
    ),
    "EuroSAT": (tree("EuroSAT/2750/Forest,River"), tree("train/Forest,River"), []),
    "GTSRB": (
        [*tree("Train/0,1", files=("1.png", "2.png")), "Test/00000.png", "Test.csv", "Meta/0.png"],
        tree("train/0,1", files=("1.png", "2.png")),
        ["Test/00000.png", "Test.csv", "Meta/0.png"],
    ),
    "EuroSAT, by Kaggle": (
        [*tree("EuroSAT/Forest,River"), "EuroSAT/train.csv", "EuroSAT/label_map.json"],
        tree("train/Forest,River"),
        ["EuroSAT/train.csv", "EuroSAT/label_map.json"],
    ),
    "CINIC-10": (
        [*tree("train,valid,test/cat,dog"), "README.md", "imagenet-contributors.csv"],
        tree("train,val,test/cat,dog"),
        ["README.md", "imagenet-contributors.csv"],
    ),
    "Caltech-101": (
        [
            *tree("caltech-101/101_ObjectCategories/BACKGROUND_Google,ant"),
            *tree("caltech-101/Annotations/ant", files=("annotation_0001.mat",)),
        ],
        tree("train/BACKGROUND_Google,ant"),
        ["caltech-101/Annotations/ant/annotation_0001.mat"],
    ),
    "Stanford dogs": (
        tree("Images/n02085620-Chihuahua,n02105855-Shetland_sheepdog"),
        tree("train/n02085620-Chihuahua,n02105855-Shetland_sheepdog"),
        [],
    ),
    "Microsoft's cats and dogs": (
        [*tree("PetImages/Cat,Dog"), "PetImages/Cat/Thumbs.db", "MSR-LA - 3467.docx"],
        tree("train/Cat,Dog"),
        ["MSR-LA - 3467.docx"],
    ),
    "Places365": (tree("places365/train,val/airfield,alley"), tree("train,val/airfield,alley"), []),
    "ImageNet": (
        [
            *tree("ILSVRC/Data/CLS-LOC/train/n01,n02", files=("1.JPEG", "2.JPEG")),
            *("ILSVRC/Data/CLS-LOC/val/v.JPEG", "ILSVRC/Data/CLS-LOC/test/t.JPEG"),
            *("ILSVRC/Annotations/CLS-LOC/train/n01/1.xml", "LOC_val_solution.csv"),
        ],
        tree("train/n01,n02", files=("1.JPEG", "2.JPEG")),
        [
            *("ILSVRC/Data/CLS-LOC/val/v.JPEG", "ILSVRC/Data/CLS-LOC/test/t.JPEG"),
            *("ILSVRC/Annotations/CLS-LOC/train/n01/1.xml", "LOC_val_solution.csv"),
        ],
    ),
    "UC Merced": (
        [*tree("UCMerced/Images/forest,river", files=("1.tif",)), "UCMerced/readme.txt"],
        tree("train/forest,river", files=("1.tif",)),
        ["UCMerced/readme.txt"],
    ),
    "DTD": (
        [*tree("dtd/images/banded,dotted"), "dtd/labels/train1.txt", "dtd/imdb/imdb.mat"],
        tree("train/banded,dotted"),
        ["dtd/labels/train1.txt", "dtd/imdb/imdb.mat"],
    ),
    "an iPhone's folders": (
        [*tree("cat,dog", files=("IMG_1.HEIC",)), "cat/IMG_1.MOV", "cat/IMG_1.AAE"],
        tree("train/cat,dog", files=("IMG_1.HEIC",)),
        ["cat/IMG_1.MOV", "cat/IMG_1.AAE"],
    ),
    "COVID-19 radiographs": (
        [*tree("Radiography/COVID,Normal/images,masks"), "Radiography/COVID.metadata.xlsx"],
        tree("train/COVID,Normal"),
        [*tree("Radiography/COVID,Normal/masks"), "Radiography/COVID.metadata.xlsx"],
    ),
    "MNIST as PNGs": (tree("mnist_png/training,testing/0,1"), tree("train,test/0,1"), []),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_layouts_are_read(name):
    """Pictures of published data sets get the part and class that their authors intended."""
    files, used, left_out = PUBLISHED[name]
    found = layout.recognize(files, "x")
    assert sorted(found.sources) == sorted(used)
    assert found.left_out == sorted(left_out)
    assert set(found.sources.values()).isdisjoint(left_out)
    assert found.classes == sorted({place.split("/")[1] for place in used})


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (tree("train/cat,dog"), tree("train/cat,dog")),
        (tree("cat,dog"), tree("train/cat,dog")),
        (tree("a/b/c/d/cat,dog"), tree("train/cat,dog")),
        (tree("train/train/cat,dog"), tree("train/cat,dog")),
        (tree("train,plane"), tree("train/train,plane")),
        (tree("train/cat,dog", "test/cat"), [*tree("train/cat,dog"), "test/cat/1.jpg"]),
        pytest.param(
            tree("Katzen/ä ö,犬"), tree("train/ä ö,犬"), marks=HOSTILE, id="other scripts"
        ),
        (tree("$5_$10,10^$20,<b>"), tree("train/$5_$10,10^$20,<b>")),
    ],
)
def test_the_layouts_that_are_read(files, expected):
    """Parts with classes and classes alone are read, inside other folders or not, in any script."""
    assert places(*files) == set(expected)


@pytest.mark.parametrize(
    "name",
    [
        *("train", "Train", "TRAINING", "training_set", "Training Set"),
        *("seg_train", "train-images"),
        *("val", "Val", "valid", "VALIDATION", "validation_set", "dev"),
        *("test", "Testing", "test_set", "testset", "seg_test", "evaluation", "eval"),
    ],
)
def test_names_of_parts(name):
    """The folder of a part is recognised under its usual names."""
    expected = {"t": "train", "v": "val", "d": "val", "e": "test"}
    if "test" in name.lower():
        assert layout.part_of(name) == "test"
    else:
        assert layout.part_of(name) == expected[name.lower().replace("seg_", "")[0]]


@pytest.mark.parametrize("name", ["trains", "tested", "cat", "trainer", "test1", "valley", ""])
def test_other_names_are_no_parts(name):
    """A class whose name begins like that of a part is a class."""
    assert layout.part_of(name) is None


@HOSTILE
@pytest.mark.parametrize(
    "leftover",
    [
        *("dog/.DS_Store", "__MACOSX/cat/._1.jpg", "cat/Thumbs.db", "cat/thumbs.DB"),
        *("cat/Icon\r", "cat/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg", "cat/._1.jpg", "$RECYCLE.BIN/1"),
        *(".git/config", "Cat/Desktop.ini", "lost+found/1", "cat/.nfs000123", ".AppleDouble/1.jpg"),
        *(".ipynb_checkpoints/1.jpg", "cat/1.jpg:Zone.Identifier", "System Volume Information/x"),
    ],
)
def test_what_systems_leave_behind_is_skipped(leftover):
    """Leftovers of operating systems are neither pictures nor classes, and are not mentioned."""
    found = layout.recognize([*tree("cat,dog"), leftover], "x")
    assert set(found.sources.values()) == set(tree("cat,dog"))
    assert found.left_out == []


@HOSTILE
@pytest.mark.parametrize("ending", ["mkv", "MPG", "opus", "lnk", "url", "crdownload", "part"])
def test_what_is_no_picture_is_left_out_and_named(ending):
    """Videos, sound, shortcuts and unfinished downloads are left out, in upper or lower case."""
    found = layout.recognize([*tree("cat,dog"), f"cat/1.jpg.{ending}"], "x")
    assert set(found.sources.values()) == set(tree("cat,dog"))
    assert found.left_out == [f"cat/1.jpg.{ending}"]


@HOSTILE
def test_one_class_under_two_spellings_is_one():
    """Unicode form, surrounding spaces and case do not matter: test/ has the classes of train/."""
    files = tree("train/caf\u00e9,Dog", "test/cafe\u0301,dog ", "val/CAF\u00c9,DOG")
    found = layout.recognize(files, "x")
    assert found.classes == ["Dog", "caf\u00e9"]
    assert set(found.sources) == set(tree("train,test,val/caf\u00e9,Dog"))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        pytest.param([], "no pictures found (my/pictures)", marks=HOSTILE, id="nothing"),
        ([".hidden/cat/1"], "no pictures"),
        pytest.param(["1", "2"], "'1' is not in a class folder", marks=HOSTILE, id="a flat folder"),
        (["jpg/1.jpg", "jpg/2.jpg"], "'jpg/1.jpg' is not in a class folder"),
        (
            [*tree("cat,dog"), "3.jpg", "1.jpg", "2.jpg"],
            "'1.jpg' is not in a class folder",
        ),
        (tree("train/dog/old,new", "train/cat"), "'train/dog/new/1.jpg' is not in a class folder"),
        pytest.param(
            tree("car,bus", "train/steam,electric"),
            "folder 'bus' beside 'train' contains pictures",
            marks=HOSTILE,
            id="a class called train",
        ),
        pytest.param(
            [*tree("cats/tabby,siamese"), *tree("dogs,cows", files=("1.jpg", "2.jpg"))],
            "'cats/siamese/1.jpg' is in a folder inside a class folder (my/pictures): move the",
            marks=HOSTILE,
            id="a class in a class",
        ),
        pytest.param(
            tree("cats/tabby,siamese", "dogs/pug,beagle"),
            "or, if they are classes, move their pictures up one level",
            marks=HOSTILE,
            id="classes in classes",
        ),
        pytest.param(
            tree("test/cat,dog", "a/b/train/cat,dog"),
            "no folder 'train' beside it (my/pictures): move it beside 'a/b/train'",
            marks=HOSTILE,
            id="train lies deeper",
        ),
        (tree("test/cat,dog"), "folder 'test' has no folder 'train' beside it"),
        (tree("cat,dog", "test/cat,dog"), "folder 'test' has no folder 'train' beside it"),
        pytest.param(
            tree("color,grayscale/a,b"),
            "several folders contain class folders, 'color', 'grayscale'",
            marks=HOSTILE,
            id="variants",
        ),
        (
            tree("PlantVillage/a,b", "plantvillage/PlantVillage/a,b"),
            "several folders contain class folders, 'PlantVillage', 'plantvillage'",
        ),
        pytest.param(
            [*tree("train,valid/images"), "train/labels/1.txt", "data.yaml"],
            "'train/images/1.jpg' is not in a class folder",
            marks=HOSTILE,
            id="YOLO",
        ),
        pytest.param(
            ["images/pug_1.jpg", "images/cat_1.jpg", "annotations/trimaps/pug_1.png"],
            "is not in a class folder",
            marks=HOSTILE,
            id="Oxford pets",
        ),
        pytest.param(
            ["train/cat.0.jpg", "train/dog.0.jpg", "test1/1.jpg"],
            "is not in a class folder",
            marks=HOSTILE,
            id="classes in the names",
        ),
        (["train/cat.0.jpg", "train/dog.0.jpg"], "is not in a class folder"),
        pytest.param(
            ["train.csv", "test.csv", "train/1.jpg", "train/2.jpg", "test/3.jpg"],
            "is not in a class folder",
            marks=HOSTILE,
            id="classes in a table",
        ),
        pytest.param(
            tree("Annotation,Images/n01-a,n02-b"),
            "several folders contain class folders, 'Annotation', 'Images'",
            marks=HOSTILE,
            id="Stanford dogs with annotations",
        ),
        (
            tree("SUN397/a/abbey,alley", "SUN397/b/bakery"),
            "several folders contain class folders, 'a', 'b'",
        ),
        (
            ["images/1.jpg", "images/2.jpg", "masks/1.png", "masks/2.png"],
            "is not in a class folder",
        ),
        pytest.param(
            ["train.zip", "test1.zip", "sampleSubmission.csv"],
            "unpack the archive 'test1.zip' in it",
            marks=HOSTILE,
            id="archives in an archive",
        ),
        pytest.param(["cat/1", "cat/2"], "1 class, 'cat'", marks=HOSTILE, id="a single class"),
        (["train/cat/1", "test/cat/1"], "1 class, 'cat'"),
        pytest.param(
            [*tree("train/cat,dog"), "test/cow/1", "test/cat/1"],
            "class 'cow' has no training images",
            marks=HOSTILE,
            id="a class for testing only",
        ),
        (
            tree("train,Train/cat,dog"),
            "two folders of the train part, 'Train' and 'train'",
        ),
        (tree("train,val,valid/cat,dog"), "two folders of the val part, 'val' and 'valid'"),
        pytest.param(
            tree("cat,dog,Cat"),
            "classes 'Cat' and 'cat' have the same name, apart from case",
            marks=HOSTILE,
            id="cat and Cat",
        ),
        (tree("straße,dog,STRASSE"), "classes 'STRASSE' and 'straße' have the same name"),
        pytest.param(
            tree("caf\u00e9,cafe\u0301,dog"),
            r"classes 'cafe\u0301' and 'café' have the same name, apart from",
            marks=HOSTILE,
            id="composed and not",
        ),
        pytest.param(
            tree("cat,cat ,dog"),
            "classes 'cat' and 'cat ' have the same name",
            marks=HOSTILE,
            id="a blank behind",
        ),
        (
            ["cat/\u00e9", "cat/e\u0301", "dog/1"],
            r"'cat/e\u0301' and 'cat/\xe9' have the same name, apart from",
        ),
        pytest.param(
            ["cat/\udcff1", "dog/1"],
            r"the name 'cat/\udcff1' is not UTF-8",
            marks=HOSTILE,
            id="a name that is no text",
        ),
        pytest.param(
            ["cat/\033[2J", "dog/1"],
            r"the name 'cat/\x1b[2J' is not",
            marks=HOSTILE,
            id="a name that clears the screen",
        ),
        (["cat/1\nerror: all is well", "dog/1"], "has control characters"),
        (["cat/1", "d\udce9g/1"], r"invalid class name 'd\udce9g'"),
        pytest.param(
            ["cat/1", "do\u202eg/1"],
            r"invalid class name 'do\u202eg'",
            marks=HOSTILE,
            id="a name that runs backwards",
        ),
        (["cat/1", "\ufeffdog/1"], r"invalid class name '\ufeffdog'"),
        (["cat/1", " /1"], "invalid class name ' '"),
        (["/".join("a" * 17), "b/1"], "folders nested too deeply"),
    ],
)
def test_the_layouts_that_are_refused(files, message):
    """No pictures, none in class folders, ambiguous classes and unprintable names are refused."""
    with pytest.raises(UserError) as caught:
        layout.recognize(files, "my/pictures")
    assert message in str(caught.value)
    assert "my/pictures" in str(caught.value)
    assert "\n" not in str(caught.value)
    str(caught.value).encode()


@pytest.mark.hostile
def test_class_folders_beside_the_parts_are_in_no_part():
    """Class folders in a folder that is not a part are listed apart from other files."""
    extra = tree("holdout/cat,dog", files=("7.jpg",))
    found = layout.recognize(
        [*tree("train,eval,dev/cat,dog"), *extra, "holdout/1.jpg", "val/x/1.csv"], "x"
    )
    assert found.in_no_part == sorted(extra)
    assert found.left_out == sorted([*extra, "holdout/1.jpg", "val/x/1.csv"])


def test_the_order_of_the_files_does_not_matter():
    """Files in any order give the same parts, classes and list of files left out."""
    for name, (files, _, _) in PUBLISHED.items():
        forwards, backwards = (layout.recognize(files[::step], name) for step in (1, -1))
        assert forwards == backwards
        assert list(forwards.sources) == list(backwards.sources)
