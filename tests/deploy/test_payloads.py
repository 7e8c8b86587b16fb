import json
import struct
import subprocess
import sys
import zlib

import msgspec
import numpy as np
import pytest
from PIL import Image

from deploy.images import MAX_PIXELS, read_pixels
from deploy.model_info import RESNET, ModelInfo, Preprocessing
from deploy.payloads import payload_for_image, write_payloads
from experiments.core import reading
from experiments.core.errors import ProvisionError
from experiments.core.stack import read_payloads

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def quarters():
    """Red above green on the left, blue above white on the right."""
    image = Image.new("RGB", (64, 64))
    for box, colour in (((0, 0), RED), ((0, 32), GREEN), ((32, 0), BLUE), ((32, 32), WHITE)):
        image.paste(colour, (*box, box[0] + 32, box[1] + 32))
    return image


def corners(pixels):
    return [tuple(int(value) for value in pixels[row, column]) for row in (0, -1) for column in (0, -1)]


def near(pixels, expected, by=12):
    return np.abs(np.array(corners(pixels), int) - np.array(expected)).max() <= by


UPRIGHT = [RED, BLUE, GREEN, WHITE]


def test_a_photo_lying_on_its_side_is_turned_as_its_exif_says(tmp_path):
    turned = quarters().transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # EXIF 2.32, tag 274: the first row is the right side, the first column the top
    turned.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    assert near(read_pixels(tmp_path / "turned.jpg", 16, 16), UPRIGHT)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK"])
def test_colours_survive_every_mode(tmp_path, mode):
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    quarters().convert(mode).save(path)
    assert near(read_pixels(path, 16, 16), UPRIGHT)


def test_cmyk_jpeg(tmp_path):
    quarters().convert("CMYK").save(tmp_path / "image.jpg", quality=95)
    assert near(read_pixels(tmp_path / "image.jpg", 16, 16), UPRIGHT, by=20)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_shows_white(tmp_path, mode):
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    if mode == "P":
        flat = Image.new("P", (8, 8), 0)
        flat.putpalette([0, 0, 0])
        flat.save(tmp_path / "clear.png", transparency=0)
    else:
        clear.convert(mode).save(tmp_path / "clear.png")
    assert (read_pixels(tmp_path / "clear.png", 4, 4) == 255).all()


def test_sixteen_bit_greys_keep_their_brightness(tmp_path):
    greys = np.repeat(np.array([[0, 257 * 100, 65535]], np.uint16), 3, axis=0)
    Image.fromarray(greys).save(tmp_path / "grey.png")
    assert read_pixels(tmp_path / "grey.png", 3, 3)[0, :, 0].tolist() == [0, 100, 255]


def test_grey_becomes_three_channels_or_stays_one(tmp_path):
    Image.new("L", (5, 5), 77).save(tmp_path / "grey.png")
    assert set(read_pixels(tmp_path / "grey.png", 2, 2).ravel().tolist()) == {77}
    assert read_pixels(tmp_path / "grey.png", 2, 3, 1).shape == (2, 3, 1)


def test_of_an_animation_the_first_frame_is_taken(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert tuple(read_pixels(tmp_path / "moving.gif", 4, 4)[0, 0]) == RED


def bomb(path):
    """A PNG of a few bytes that claims to be 60,000 pixels square."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    packed = zlib.compress(b"\0")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b""))


def refusal(path):
    with pytest.raises(ProvisionError) as refused:
        payload_for_image(path)
    text = str(refused.value)
    assert str(path) in text
    assert "\n" not in text
    return text


def test_bad_images_are_refused_in_one_line(tmp_path):
    whole = tmp_path / "whole.jpg"
    quarters().resize((500, 500)).save(whole)
    (tmp_path / "half.jpg").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (tmp_path / "text.jpg").write_text("no image at all")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    bomb(tmp_path / "bomb.png")
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "float.tif")
    assert "truncated" in refusal(tmp_path / "half.jpg")
    assert "is no image of any kind" in refusal(tmp_path / "text.jpg")
    assert "is empty" in refusal(tmp_path / "empty.png")
    assert "is a folder" in refusal(tmp_path / "folder.png")
    assert "no such image" in refusal(tmp_path / "missing.png")
    assert "million pixels" in refusal(tmp_path / "bomb.png")
    assert "floating-point" in refusal(tmp_path / "float.tif")


def test_an_image_just_too_large_is_refused_before_it_is_decoded(tmp_path):
    Image.new("1", (10_000, MAX_PIXELS // 10_000 + 1)).save(tmp_path / "large.png")
    assert "million pixels" in refusal(tmp_path / "large.png")


def noise(path):
    values = np.random.default_rng(1).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    Image.fromarray(values).save(path)
    return values


def test_the_body_holds_every_pixel_exactly(tmp_path):
    """ResNet's recipe, written out a second time: BGR less the means."""
    values = noise(tmp_path / "noise.png")
    body = json.loads(payload_for_image(tmp_path / "noise.png", RESNET))
    expected = values[..., ::-1].astype(np.float32) - np.array([103.939, 116.779, 123.68], np.float32)
    assert set(body) == {"instances"}
    assert np.array_equal(np.array(body["instances"], np.float32), expected[None])


@pytest.mark.slow
def test_bodies_equal_those_of_keras_in_all_modes(tmp_path):
    """Against keras.applications.imagenet_utils.preprocess_input, in a process of its own."""
    noise(tmp_path / "noise.png")
    program = (
        "import sys, numpy as np; from PIL import Image; from keras.applications import imagenet_utils\n"
        "pixels = np.asarray(Image.open(sys.argv[1]), np.float32)\n"
        "for mode in ('caffe', 'tf', 'torch'):\n"
        "    np.save(f'{sys.argv[2]}/{mode}.npy', imagenet_utils.preprocess_input(pixels.copy(), mode=mode))\n"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path / "noise.png", tmp_path], check=True)
    for mode in ("caffe", "tf", "torch"):
        body = json.loads(payload_for_image(tmp_path / "noise.png", Preprocessing(mode, 224, 224)))
        gap = np.abs(np.array(body["instances"][0]) - np.load(tmp_path / f"{mode}.npy")).max()
        assert gap <= 1e-6 * (255 if mode == "caffe" else 1)


def experiment(folder, payloads):
    path = folder / "trial.yaml"
    path.write_text(
        "arms:\n  a: {keras: ResNet50}\n  b: {keras: ResNet101}\n"
        f"payloads: {json.dumps(payloads)}\nphases: [{{name: split, route: {{a: 50, b: 50}}}}]\n"
    )
    return reading.load(str(path))


def model(arm, preprocessing=RESNET):
    return ModelInfo(arm, None, "random", preprocessing, None, "digest")


def models(*preprocessings):
    return {arm: model(arm, each) for arm, each in zip("ab", preprocessings or (RESNET, RESNET), strict=True)}


def test_bodies_and_index_are_written(tmp_path):
    for folder in ("one", "two", "three"):
        (tmp_path / folder).mkdir()
    quarters().save(tmp_path / "one" / "my photo (1).png")
    quarters().save(tmp_path / "two" / "my photo (1).png")
    (tmp_path / "three" / "index.json").write_text('{"inputs": [1, NaN]}')
    loaded = experiment(tmp_path, ["*/*.png", "three/*", "one/*"])
    index = write_payloads(loaded, models(), tmp_path / "bodies")
    assert list(index.payloads) == ["my-photo-1", "my-photo-1-2", "index-2"]
    bodies = read_payloads(tmp_path / "bodies" / "index.json")
    assert bodies["index-2"] == b'{"inputs": [1, NaN]}'
    assert np.array(msgspec.json.decode(bodies["my-photo-1"])["instances"]).shape == (1, 224, 224, 3)


def test_absolute_globs_work_too(tmp_path):
    quarters().save(tmp_path / "a.png")
    (tmp_path / "elsewhere").mkdir()
    loaded = experiment(tmp_path / "elsewhere", [str(tmp_path / "*.png")])
    assert list(write_payloads(loaded, models(), tmp_path / "bodies").payloads) == ["a"]


@pytest.mark.parametrize("text", ["{", "[1]", "{}", '{"instances": []}', '{"instances": [1], "inputs": 1}', "\x00"])
def test_what_is_no_request_body_is_refused(tmp_path, text):
    (tmp_path / "body.json").write_text(text)
    with pytest.raises(ProvisionError, match=r"body\.json: .*a body is"):
        write_payloads(experiment(tmp_path, ["*.json"]), models(), tmp_path / "bodies")


def test_a_glob_that_matches_nothing_is_refused(tmp_path):
    with pytest.raises(ProvisionError, match=r"'\*\.gif' matches no file"):
        write_payloads(experiment(tmp_path, ["*.gif"]), models(), tmp_path / "bodies")


def test_one_body_cannot_serve_two_preprocessings(tmp_path):
    quarters().save(tmp_path / "a.png")
    loaded = experiment(tmp_path, ["*.png"])
    with pytest.raises(ProvisionError, match="a: caffe 224×224×3; b: torch 224×224×3"):
        write_payloads(loaded, models(RESNET, Preprocessing("torch", 224, 224)), tmp_path / "bodies")
    with pytest.raises(ProvisionError, match="b: its model takes no images"):
        write_payloads(loaded, models(RESNET, None), tmp_path / "bodies")
