"""The digits recipe: a small classifier, trained on the spot on half of scikit-learn's bundled digits (export only)."""

from typing import Any

import msgspec
import numpy as np

from deploy.payloads import Digits, digits_file
from deploy.tasks import write_whole
from experiments.core.spec import DigitsModel

_SPLIT_SEED = 0
_BRIGHTEST = 16.0


def train(recipe: DigitsModel) -> Any:
    """A Keras model from 64 pixels of 0 to 16 to 10 probabilities; the same recipe gives the same weights."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(recipe.seed)
    tf.config.experimental.enable_op_determinism()
    hidden = [keras.layers.Dense(units, activation="relu") for units in recipe.hidden]
    model = keras.Sequential(
        [
            keras.Input((64,), name="pixels"),
            keras.layers.Rescaling(1 / _BRIGHTEST),
            *hidden,
            keras.layers.Dense(10, activation="softmax", name="probabilities"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.005), "sparse_categorical_crossentropy", jit_compile=False)
    pixels, labels, _, _ = _halves()
    model.fit(pixels.astype(np.float32), labels, batch_size=32, epochs=recipe.epochs, verbose=0)
    return model


def write_digits() -> None:
    """Leave the held-out half where payloads are made from it."""
    path = digits_file()
    if path.exists():
        return
    _, _, pixels, labels = _halves()
    held_out = Digits(pixels.astype(int).tolist(), labels.tolist())
    write_whole(path, msgspec.json.encode(held_out))


def _halves() -> tuple[Any, Any, Any, Any]:
    """Pixels and labels to train on, then those that are held out; the same halves for every recipe."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    seen, held_out, seen_labels, held_out_labels = train_test_split(
        pixels, labels, test_size=0.5, random_state=_SPLIT_SEED, stratify=labels
    )
    return seen, seen_labels, held_out, held_out_labels
