"""Writes SavedModels for the tests, in a process of its own: `python saved_models.py FOLDER`."""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import keras
import tensorflow as tf


class Several(tf.Module):
    """One model with a signature for each thing to try; its default is that of TensorFlow Serving's own tests."""

    def __init__(self):
        super().__init__()
        self.half = tf.Variable(0.5)
        self.two = tf.Variable(2.0)

    @tf.function(input_signature=[tf.TensorSpec(None, tf.float32, name="x")])
    def half_plus_two(self, x):
        return {"y": x * self.half + self.two}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def echo(self, text):
        return {"same": tf.identity(text)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def echo_bytes(self, text):
        return {"same_bytes": tf.identity(text)}

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.float32, name="a"), tf.TensorSpec([None, 2], tf.int32, name="b")]
    )
    def named(self, a, b):
        return {"sum": a + tf.cast(tf.reduce_sum(b, axis=1), tf.float32), "twice": b * 2}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.bool, name="x")])
    def negate(self, x):
        return {"y": tf.logical_not(x)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, name="x")])
    def total(self, x):
        return {"y": tf.reduce_sum(x)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def none(self, x):
        return {"y": x[:0]}

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    def product(self, x):
        return {"y": tf.matmul(x, tf.ones([2, 1]))}


def main(folder):
    several = Several()
    functions = {
        "serving_default": several.half_plus_two,
        **{
            name: getattr(several, name)
            for name in ("echo", "echo_bytes", "named", "negate", "total", "none", "product")
        },
    }
    tf.saved_model.save(several, str(folder / "several" / "123"), signatures=functions)
    keras.utils.set_random_seed(1)
    small = keras.Sequential([
        keras.Input((4, 6, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2, name="scores")
    ])  # fmt: skip
    small.save(folder / "small.keras")
    tf.saved_model.save(tf.Module(), str(folder / "silent"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
