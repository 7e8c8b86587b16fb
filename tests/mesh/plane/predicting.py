"""A gRPC server and its client, real HTTP/2 on both sides: `Predict` of TensorFlow Serving, whose messages stay bytes.

`serve HOST PORT WHO` answers every call with who it is; `call TARGET COUNT` prints how often each answer came, as JSON.
What is under test is the way between the two, which reads a call's path and headers and never its messages.
"""

import json
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import grpc

PREDICT = "/tensorflow.serving.PredictionService/Predict"
_PATIENCE_S = 5.0


class _Answering(grpc.GenericRpcHandler):
    def __init__(self, who: bytes) -> None:
        self._who = who

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """The handler of a call; None answers UNIMPLEMENTED."""
        if call.method != PREDICT:
            return None
        return grpc.unary_unary_rpc_method_handler(lambda _request, _context: self._who)


def serve(host: str, port: str, who: str) -> None:
    """Serve until killed."""
    server = grpc.server(ThreadPoolExecutor(4), handlers=[_Answering(who.encode())])
    server.add_insecure_port(f"{host}:{port}")
    server.start()
    server.wait_for_termination()


def call(target: str, count: str) -> None:
    """Make calls over one channel; print `[status, who, route header, times]` for each kind of answer."""
    seen: Counter[tuple[str, str, str]] = Counter()
    with grpc.insecure_channel(target) as channel:
        predict = channel.unary_unary(PREDICT)
        for _ in range(int(count)):
            seen[_one(predict)] += 1
    print(json.dumps([[*kind, times] for kind, times in seen.items()]))  # noqa: T201 - for whoever started it


def _one(predict: grpc.UnaryUnaryMultiCallable) -> tuple[str, str, str]:
    try:
        answer, state = predict.with_call(b"", timeout=_PATIENCE_S)
    except grpc.RpcError as error:
        return error.code().name, "", ""
    headers = {str(key): str(value) for key, value in state.initial_metadata()}
    return "OK", answer.decode(), headers.get("x-splitproof-route", "")


if __name__ == "__main__":
    {"serve": serve, "call": call}[sys.argv[1]](*sys.argv[2:])
