"""An image file of any common kind → the pixels that a model of ImageNet would have been shown."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from experiments.core.errors import ProvisionError

MAX_PIXELS = 50_000_000
"""Larger images are refused before they are decoded: a few kilobytes can unpack to gigabytes."""

_MODES = {1: "L", 3: "RGB"}
_SIXTEEN_BIT = 65535


def read_pixels(path: Path, height: int, width: int, channels: int = 3) -> npt.NDArray[np.uint8]:
    """The first frame of an image, upright, resized (bilinear): uint8 of shape (height, width, channels).

    Transparent parts show white, and 16-bit greys are scaled to 8 bits.

    Raises:
        ProvisionError: the file is missing, damaged, truncated, too large, or of a kind that cannot be shown.
    """
    if channels not in _MODES:
        raise ProvisionError(
            f"{path}: the model takes {channels} channels, not 1 or 3; write its bodies as .json files."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the size is checked here, and metadata may be as odd as it likes
            with Image.open(path) as image:
                _refuse_huge(path, image)
                upright = ImageOps.exif_transpose(image)
            # Keras resizes by nearest neighbour unless told otherwise; this loses less of the photo.
            resized = _eight_bit(upright).convert(_MODES[channels]).resize((width, height), Image.Resampling.BILINEAR)
    except ProvisionError:
        raise
    except FileNotFoundError as error:
        raise ProvisionError(f"{path}: no such image; check the path.") from error
    except PermissionError as error:
        raise ProvisionError(f"{path}: cannot be read: {error.strerror}; change its permissions.") from error
    except IsADirectoryError as error:
        raise ProvisionError(f"{path}: is a folder; must be an image; name the images in it.") from error
    except UnidentifiedImageError as error:
        what = "is empty" if not path.stat().st_size else "is no image of any kind that is known here"
        raise ProvisionError(f"{path}: {what}; replace it or leave it out.") from error
    except Image.DecompressionBombError as error:
        raise ProvisionError(_too_large(path)) from error
    except Exception as error:  # a decoder may raise anything; whatever it is, this image cannot be used
        reason = " ".join(str(error).replace(str(path), "it").split()) or type(error).__name__
        raise ProvisionError(f"{path}: cannot be read as an image: {reason}; replace it or leave it out.") from error
    return np.asarray(resized, dtype=np.uint8).reshape(height, width, channels)


def _refuse_huge(path: Path, image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise ProvisionError(_too_large(path))


def _too_large(path: Path) -> str:
    return f"{path}: has more than {MAX_PIXELS // 1_000_000} million pixels; make it smaller first."


def _eight_bit(image: Image.Image) -> Image.Image:
    """The image in a mode that converts to RGB without surprises."""
    if image.mode.startswith("I"):
        return _from_sixteen_bit(image)
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range")
    if "transparency" in image.info or image.mode in {"RGBA", "LA", "PA", "RGBa", "La"}:
        shown = image.convert("RGBA")
        white = Image.new("RGBA", shown.size, "white")
        return Image.alpha_composite(white, shown)
    return image


def _from_sixteen_bit(image: Image.Image) -> Image.Image:
    values: npt.NDArray[Any] = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > _SIXTEEN_BIT:
        raise ValueError("its greys do not fit 16 bits")
    return Image.fromarray(np.rint(values / (_SIXTEEN_BIT / 255)).astype(np.uint8))
