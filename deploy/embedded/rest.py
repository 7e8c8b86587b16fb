"""TensorFlow Serving's REST API over one loaded model: paths, status codes, messages (newer than 2.5.1).

Sources: `model_servers/http_rest_api_handler.cc`, `http_rest_api_util.cc`, `get_model_status_impl.cc`.
"""

import gzip
import re
import zlib
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import orjson

from deploy.embedded.answers import column_answer, row_answer
from deploy.embedded.signatures import DEFAULT_SIGNATURE, Model, ServingError, Signature, TensorSpec
from deploy.embedded.tensors import echo, inputs_to_tensors, instances_to_tensors, invalid
from deploy.embedded.tolerant import parse

_PREDICTION = re.compile(
    r"/v1/models/([^/:]+)(?:(?:/versions/(\d+))|(?:/labels/([^/:]+)))?:(classify|regress|predict)",
    re.IGNORECASE | re.ASCII,
)
_STATUS = re.compile(
    r"/v1/models(?:/([^/:]+))?(?:(?:/versions/(\d+))|(?:/labels/([^/:]+)))?(?:/(metadata))?", re.IGNORECASE | re.ASCII
)
_OURS = re.compile(r"/v1/.*", re.IGNORECASE | re.DOTALL)
_MAX_VERSION = 2**63 - 1
_MAX_INFLATED = 100 * 2**20

HTTP_STATUS = {
    "INVALID_ARGUMENT": 400, "FAILED_PRECONDITION": 400, "OUT_OF_RANGE": 400, "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403, "NOT_FOUND": 404, "ALREADY_EXISTS": 409, "ABORTED": 409, "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499, "UNIMPLEMENTED": 501, "UNAVAILABLE": 503, "DEADLINE_EXCEEDED": 504,
}  # fmt: skip
"""Any other code is 500."""


@dataclass(frozen=True)
class Servable:
    """A model under its name and version."""

    name: str
    version: int
    model: Model


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    body: bytes
    content_type: bytes = b"application/json"


@dataclass(frozen=True)
class Call:
    """A request for a prediction, as its path says."""

    name: str
    version: int | None
    label: str | None
    method: str


_NO_PAGE = Answer(
    404,
    b"<HTML><HEAD>\n<TITLE>404 Not Found</TITLE>\n</HEAD><BODY>\n<H1>Not Found</H1>\n</BODY></HTML>\n",
    b"text/html",
)
_BAD_VERSION = Answer(400, b"")


def error_answer(error: ServingError) -> Answer:
    """The answer that carries an error.

    >>> error_answer(ServingError("NOT_FOUND", "gone")).body.split()
    [b'{', b'"error":', b'"gone"', b'}']
    """
    return Answer(HTTP_STATUS.get(error.code, 500), b'{\n    "error": %s\n}' % orjson.dumps(error.message))


def route(method: str, path: str) -> Call | None:
    """The prediction that a request asks for; None if it asks for something else.

    `path` holds the query string too: Serving matches the whole.
    """
    match = _PREDICTION.fullmatch(path) if method == "POST" else None
    if match is None:
        return None
    name, version, label, verb = match.groups()
    return Call(unquote(name), None if version is None else int(version), label and unquote(label), verb.lower())


def predict(servable: Servable, call: Call, body: bytes) -> Answer:
    """Answer a request for a prediction; errors are answers too."""
    if call.version is not None and call.version > _MAX_VERSION:
        return _BAD_VERSION  # Serving's message for it never gets into the body
    try:
        return Answer(200, _predicted(servable, call, body))
    except ServingError as error:
        return error_answer(error)


def page(servable: Servable, method: str, path: str) -> Answer:
    """Answer everything but predictions: status, metadata, and what is no request of this API."""
    if not _OURS.fullmatch(path):
        return _NO_PAGE
    match = _STATUS.fullmatch(path) if method == "GET" else None
    if match is None:
        return error_answer(invalid(f"Malformed request: {method} {path}"))
    name, version, label, metadata = match.groups()
    if name is None:
        return error_answer(invalid("Missing model name in request."))
    if version is not None and int(version) > _MAX_VERSION:
        return _BAD_VERSION
    call = Call(unquote(name), None if version is None else int(version), label and unquote(label), "")
    try:
        return Answer(200, _metadata(servable, call) if metadata else _status(servable, call))
    except ServingError as error:
        return error_answer(error)


def inflate(body: bytes, encoding: str) -> bytes:
    """A gzip body unpacked; empty if it cannot be, or is larger than 100 MB, as in Serving."""
    if "gzip" not in encoding:
        return body
    try:
        unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        unpacked = unpacker.decompress(body, _MAX_INFLATED)
    except (zlib.error, gzip.BadGzipFile):
        return b""
    return unpacked if unpacker.eof else b""


def _predicted(servable: Servable, call: Call, body: bytes) -> bytes:
    request, plain = _parsed(body)
    signature_name = _signature_name(request)
    _refuse_unknown(servable, call)
    signature = servable.model.signatures.get(signature_name)
    if signature is None:
        raise invalid(f'Serving signature name: "{signature_name}" not found in signature def')
    if call.method != "predict":
        raise _not_served(call.method, signature)
    rows, given = _given(request)
    to_tensors = instances_to_tensors if rows else inputs_to_tensors
    outputs = servable.model.callers[signature_name](to_tensors(given, signature.inputs, plain=plain))
    return row_answer(outputs) if rows else column_answer(outputs)


def _parsed(body: bytes) -> tuple[dict[str, Any], bool]:
    """The request, and whether it is free of true, false and null."""
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError:
        request = parse(body)
    if not isinstance(request, dict):
        raise invalid(f"JSON Value: {echo(request)} Is not object")
    return request, not any(word in body for word in (b"true", b"false", b"null"))


def _signature_name(request: dict[str, Any]) -> str:
    name = request.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {echo(request)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return name or DEFAULT_SIGNATURE


def _given(request: dict[str, Any]) -> tuple[bool, Any]:
    """Whether the request is in rows, and its values."""
    if "instances" in request and "inputs" in request:
        raise invalid(
            f"JSON Value: {echo(request)} Not formatted correctly expecting only one of 'inputs' or 'instances' keys "
            "to exist "
        )
    if "inputs" in request:
        return False, request["inputs"]
    if "instances" not in request:
        raise invalid("Missing 'inputs' or 'instances' key")
    instances = request["instances"]
    if not isinstance(instances, list):
        raise invalid(f"JSON Value: {echo(request)} Excepting 'instances' to be an list/array")
    if not instances:
        raise invalid(f"JSON Value: {echo(request)} No values in 'instances' array")
    return True, instances


def _not_served(method: str, signature: Signature) -> ServingError:
    """Classify and regress take tf.Example signatures; our exports have none."""
    kind = {"classify": "classification", "regress": "regression"}[method]
    wanted = f"tensorflow/serving/{method}"
    if signature.method != wanted:
        return invalid(f"Expected {kind} signature method_name to be {wanted}. Was: {signature.method}")
    return ServingError("UNIMPLEMENTED", f"This server answers predict only; call :predict instead of :{method}")


def _refuse_unknown(servable: Servable, call: Call) -> None:
    if call.label is not None:
        raise invalid(f"Unrecognized servable version label: {call.label}")
    if call.name != servable.name or call.version not in (None, servable.version):
        version = f"Latest({call.name})" if call.version is None else f"Specific({call.name}, {call.version})"
        raise ServingError("NOT_FOUND", f"Servable not found for request: {version}")


def _status(servable: Servable, call: Call) -> bytes:
    """The state of all versions; a label is ignored, as in Serving."""
    if call.name != servable.name:
        raise ServingError("NOT_FOUND", f"Could not find any versions of model {call.name}")
    if call.version not in (None, servable.version):
        raise ServingError("NOT_FOUND", f"Could not find version {call.version} of model {call.name}")
    state = {
        "version": str(servable.version),
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }
    return _pretty({"model_version_status": [state]})


def _metadata(servable: Servable, call: Call) -> bytes:
    _refuse_unknown(servable, call)
    definitions = {
        name: {
            "inputs": {alias: _tensor_info(spec) for alias, spec in signature.inputs.items()},
            "outputs": {alias: _tensor_info(spec) for alias, spec in signature.outputs.items()},
            "method_name": signature.method,
            "defaults": {},
        }
        for name, signature in servable.model.signatures.items()
    }
    return _pretty(
        {
            "model_spec": {"name": servable.name, "signature_name": "", "version": str(servable.version)},
            "metadata": {"signature_def": {"signature_def": definitions}},
        }
    )


def _tensor_info(spec: TensorSpec) -> dict[str, Any]:
    dimensions = [{"size": str(size), "name": ""} for size in spec.shape or ()]
    shape = {"dim": dimensions, "unknown_rank": spec.shape is None}
    return {"dtype": spec.enum, "tensor_shape": shape, "name": spec.name}


def _pretty(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2)
