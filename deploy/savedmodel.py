"""Load and call a SavedModel the way TensorFlow Serving does: in a session, by its signatures.

`tf.saved_model.load` was made for TF2 models only: it fails on some that TensorFlow Serving runs, and takes twice as
long. The session's callable skips Python's check of shapes, so that errors are the graph's own, as in Serving.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import config_pb2

from deploy.embedded.signatures import Model, ServingError, Signature, TensorSpec
from experiments.core.errors import ProvisionError

_IN_THE_CALLING_THREAD = -1
_STATUS_NAMES = {code: name for name, code in vars(tf.errors).items() if name.isupper() and isinstance(code, int)}

Arrays = Mapping[str, npt.NDArray[Any]]


def load(version_dir: Path, intra_op_threads: int = 1) -> Model:
    """The model of a version directory, ready to be called from many threads.

    Each call runs in its caller's thread, so that the caller's pool bounds the parallelism.

    Raises:
        ProvisionError: there is no SavedModel that can be loaded.
    """
    graph = tf.Graph()
    config = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=intra_op_threads, inter_op_parallelism_threads=1, use_per_session_threads=True
    )
    tf.get_logger().setLevel("ERROR")
    try:
        with graph.as_default():
            session = tf.compat.v1.Session(graph=graph, config=config)
            meta = tf.compat.v1.saved_model.load(session, [tf.saved_model.SERVING], str(version_dir))
    except (OSError, RuntimeError, ValueError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ProvisionError(f"{version_dir}: cannot be loaded as a SavedModel: {reason}; export it anew.") from error
    known = {
        name: _signature(definition)
        for name, definition in meta.signature_def.items()
        if not name.startswith("__saved")
    }
    return Model(known, {name: _caller(session, signature) for name, signature in known.items()})


def _signature(definition: Any) -> Signature:
    return Signature(
        definition.method_name,
        {alias: _spec(info) for alias, info in sorted(definition.inputs.items())},
        {alias: _spec(info) for alias, info in sorted(definition.outputs.items())},
    )


def _spec(info: Any) -> TensorSpec:
    shape = None if info.tensor_shape.unknown_rank else tuple(int(dim.size) for dim in info.tensor_shape.dim)
    enum = types_pb2.DataType.Name(info.dtype)
    kind = np.dtype(tf.dtypes.as_dtype(info.dtype).as_numpy_dtype)
    return TensorSpec(info.name, enum.removeprefix("DT_").lower(), enum, kind, shape)


def _caller(session: Any, signature: Signature) -> Callable[[Arrays], dict[str, npt.NDArray[Any]]]:
    options = config_pb2.CallableOptions()
    options.feed.extend(spec.name for spec in signature.inputs.values())
    options.fetch.extend(spec.name for spec in signature.outputs.values())
    options.run_options.inter_op_thread_pool = _IN_THE_CALLING_THREAD
    made: list[Any] = []

    def call(inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        try:
            if not made:  # a signature that nobody calls costs nothing
                made.append(session._make_callable_from_options(options))  # noqa: SLF001 - the public one checks shapes
            results = made[0](*(inputs[alias] for alias in signature.inputs))
        except tf.errors.OpError as error:
            raise ServingError(_STATUS_NAMES.get(error.error_code, "UNKNOWN"), str(error.message)) from error
        return dict(zip(signature.outputs, map(np.asarray, results), strict=True))

    return call
