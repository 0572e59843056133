"""Pictures that are broken, or of which the model sees less than they hold."""

import logging
import os

import datasets
import numpy as np
import pytest
from PIL import Image

from atom_hf.data import pictures
from atom_hf.data.load import load_data
from atom_hf.errors import AtomError
from atom_hf.finetune.inputs import prepare_inputs
from helpers.error_messages import error_message
from helpers.tables import write, write_images
from helpers.task_data import TINY_VIT

pytestmark = [
    pytest.mark.usefixtures("own_cache"),
    pytest.mark.promise(
        "A picture that is broken, has more than 8 bits, or is not seen in full is scaled, counted or rejected by name.",
        "cut, empty, foreign and linked files, 16-bit and float pictures, colour, transparency, several frames",
    ),
]


def folder_of(folder, images, suffix=".png"):
    """A folder of images of two classes, in turn."""
    for number, image in enumerate(images):
        (folder / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        image.save(folder / "ab"[number % 2] / f"{number}{suffix}")
    return folder


def prepare(folder, channels=1):
    data = load_data(str(folder), eval_fraction=0.25)
    return data, prepare_inputs(
        data, model=None, model_type="vit", config_overrides={**TINY_VIT, "num_channels": channels}
    )


def noise(dtype, top, count=8, shape=(8, 8)):
    rng = np.random.default_rng(0)
    return [Image.fromarray((rng.random(shape) * top).astype(dtype)) for _ in range(count)]


def said(caplog):
    return [record.message for record in caplog.records if record.name == pictures.__name__]


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def foreign(path):
    path.write_text("no picture at all")


def linked(path):
    path.unlink()
    path.symlink_to(path.parent / "nowhere.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".gif", ".bmp"])
@pytest.mark.parametrize("spoil", [truncate, empty, foreign])
def test_a_broken_picture_is_rejected_by_name(tmp_path, spoil, suffix):
    folder = folder_of(tmp_path / "p", noise(np.uint8, 255, shape=(32, 32)), suffix)
    spoil(folder / "b" / f"5{suffix}")
    message = error_message(
        lambda: prepare(folder), "--dataset: picture", f"b/5{suffix}", "cannot be read", "repair or remove it"
    )
    assert "\n" not in message


def test_a_link_to_nowhere_is_left_out_and_said(tmp_path, caplog):
    folder = folder_of(tmp_path / "p", noise(np.uint8, 255))
    linked(folder / "b" / "5.png")
    data, _ = prepare(folder)
    assert len(data.train) + len(data.eval) == 7
    assert "1 links lead nowhere and are left out, such as 5.png" in caplog.text


def test_a_broken_picture_of_a_table_is_rejected_by_row(tmp_path):
    write_images(tmp_path, {"a": 4})
    encoded = [{"bytes": (tmp_path / "a" / f"test_{i}.png").read_bytes(), "path": None} for i in range(4)]
    encoded[2]["bytes"] = encoded[2]["bytes"][:40]
    path = write(tmp_path / "p.parquet", {"image": encoded, "label": [0, 1, 0, 1]})
    data = load_data(path, eval_dataset=path)
    with pytest.raises(AtomError, match="the picture of row 2 cannot be read"):
        prepare_inputs(data, model=None, model_type="vit", config_overrides=TINY_VIT)


def test_a_broken_picture_beyond_those_looked_through_is_rejected_when_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "LOOKED_THROUGH", 2)
    folder = folder_of(tmp_path / "p", noise(np.uint8, 255, 12, (32, 32)))
    truncate(folder / "a" / "4.png")
    _, task = prepare(folder)
    rows = [task.train, task.eval]
    error_message(lambda: [part[i] for part in rows for i in range(len(part))], "a/4.png", "cannot be read")


@pytest.mark.parametrize(
    ("dtype", "top", "suffix", "white"),
    [
        (np.uint16, 65535, ".png", 65535),
        (np.float32, 1, ".tif", 1),
        (np.int32, 65535, ".tif", 65535),
        (np.float32, 255, ".tif", 255),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_deep_pictures_are_scaled_and_said(tmp_path, dtype, top, suffix, white, channels, caplog):
    images = noise(dtype, top)
    with caplog.at_level(logging.INFO, "atom_hf"):
        data, task = prepare(folder_of(tmp_path / "p", images, suffix), channels)
    assert f"8 of 8 pictures have more than 8 bits: 0 to {white} is scaled to 0 to 255" in caplog.text
    name = os.path.basename(data.train.cast_column("image", datasets.Image(decode=False))[0]["image"]["path"])
    values = np.asarray(images[int(name.split(".")[0])], dtype=np.float64) / white * 255
    for pixels in task.train[0]["pixel_values"].numpy():
        np.testing.assert_allclose(pixels, np.rint(values) / 127.5 - 1, atol=1e-5)
    assert np.abs(np.asarray(data.train[0]["image"], dtype=float) - values).max() <= 0.5  # as pages and measures see it


def test_deep_pictures_of_no_common_scale(tmp_path):
    images = [*noise(np.float32, 1, 4), *noise(np.float32, 255, 4)]
    error_message(
        lambda: prepare(folder_of(tmp_path / "a", images, ".tif")), "on different scales (white is 1 and 255)"
    )
    dark = noise(np.uint16, 200)
    error_message(lambda: prepare(folder_of(tmp_path / "b", dark)), "16 bits and no value above", "which is black")
    error_message(
        lambda: prepare(folder_of(tmp_path / "c", noise(np.float32, 1e7), ".tif")),
        ".tif",
        "the picture's values run from",
    )


def test_deep_pictures_that_are_dark_are_said(tmp_path, caplog):
    prepare(folder_of(tmp_path / "p", noise(np.uint16, 4095)))
    assert "so that all are dark" in caplog.text


def test_colour_that_a_grey_model_does_not_see_is_said(tmp_path, caplog):
    grey = [image.convert("RGB") for image in noise(np.uint8, 255, 6)]
    colour = [Image.new("RGB", (8, 8), (200, 10, 10)), Image.new("P", (8, 8), 1)]
    colour[1].putpalette([0, 0, 0, 10, 200, 10])
    prepare(folder_of(tmp_path / "p", [*grey, *colour]))
    assert "2 of 8 pictures have colour, which is left out: the model takes grey ones" in caplog.text
    caplog.clear()
    prepare(folder_of(tmp_path / "p", [*grey, *colour]), channels=3)
    assert not said(caplog)


def test_transparency_and_frames_that_no_model_sees_are_said(tmp_path, caplog):
    images = [Image.new("RGBA", (8, 8), (0, 0, 0, 40 * i)) for i in range(4)]
    prepare(folder_of(tmp_path / "a", images), channels=3)
    assert "4 of 4 pictures have transparent parts" in caplog.text
    for number in range(4):
        (tmp_path / "b" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        first, *more = noise(np.uint8, 255, 3)
        first.save(tmp_path / "b" / "ab"[number % 2] / f"{number}.tif", save_all=True, append_images=more)
    prepare(tmp_path / "b")
    assert "4 of 4 pictures have several frames or pages; the first is read" in caplog.text


def test_plain_pictures_need_no_word(tmp_path, caplog):
    for channels, images in ((1, noise(np.uint8, 255)), (3, [Image.new("RGB", (8, 8), (9, 99, 9))] * 8)):
        prepare(folder_of(tmp_path / str(channels), images), channels)
    assert not said(caplog)


def test_an_error_of_a_worker_is_the_line_alone():
    from torch._utils import ExceptionWrapper

    def reraised():
        try:
            raise AtomError("--dataset: picture 'a.png' cannot be read")
        except AtomError:
            ExceptionWrapper(where="in DataLoader worker process 0").reraise()

    assert error_message(reraised) == "--dataset: picture 'a.png' cannot be read"
