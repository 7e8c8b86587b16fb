"""Whether weights can be downloaded here, found out in the background."""

import socket
import threading
import urllib.request
from collections.abc import Callable

WEIGHTS_HOST = "storage.googleapis.com"
"""Where Keras downloads its weights from."""


def unreachable(host: str = WEIGHTS_HOST, patience_s: float = 10.0) -> Callable[[], str | None]:
    """Start to look the weights' host up; the function returned waits for the outcome, and says what is wrong.

    Started before TensorFlow is imported, it takes no time of anybody's: a failing lookup takes seconds.
    """
    if urllib.request.getproxies():
        return lambda: None  # the proxy looks names up
    outcome: list[str | None] = []
    lookup = threading.Thread(target=lambda: outcome.append(_look_up(host)), daemon=True)
    lookup.start()

    def wait() -> str | None:
        lookup.join(patience_s)
        return outcome[0] if outcome else f"{host} could not be looked up within {patience_s:.0f} s"

    return wait


def _look_up(host: str) -> str | None:
    try:
        socket.getaddrinfo(host, 443)
    except OSError as error:
        return f"{host} could not be looked up: {error.strerror or error}"
    return None
