"""How a gateway is spoken to beyond its URL: the name asked for, whom we trust, who we are, and secrets in headers.

A header's value may hold `${NAME}`: a variable of the environment of whoever sends. It stands unexpanded in everything
that is written (experiment, run directory, journal, report, arguments), and is put in when a request is made.
"""

import contextlib
import os
import re
import socket
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from experiments.core.errors import StackError
from experiments.core.spec import Experiment

VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")

_OTHER_NAME = 62
"""OpenSSL's code for a certificate of another name."""
_SHAKEN_WITHIN_S = 5.0
_ATTEMPTS = 3
_SILENCE_S = 0.5
"""A server that says nothing for so long after the handshake has taken us."""


class Access(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a client of a gateway says and trusts; files are absolute paths of this machine.

    `host` goes into the Host header; `sni` is the name asked for, and verified, over TLS: by default `host`, else the
    URL's own. `ca_file` replaces the system's authorities; `client_cert` and `client_key` say who we are.
    """

    host: str | None = None
    sni: str | None = None
    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None

    def server_name(self, url_host: str) -> str:
        """The name to ask for, and to verify, over TLS.

        >>> Access(host="models.example:8443").server_name("127.0.0.1")
        'models.example'
        """
        return self.sni or (urlsplit(f"//{self.host}").hostname if self.host else None) or url_host


DIRECT = Access()
"""The system's authorities, and the URL's own name."""


def access_of(experiment: Experiment, files: Access | None = None) -> Access:
    """What an experiment says of its gateway, with the files that a machine adds; those become absolute paths."""
    given = files or DIRECT
    paths = {
        name: str(Path(path).absolute())
        for name in ("ca_file", "client_cert", "client_key")
        if (path := getattr(given, name)) is not None
    }
    named = Access(given.host or experiment.gateway.host, given.sni or experiment.gateway.sni)
    return msgspec.structs.replace(named, **paths)


def equip(context: ssl.SSLContext, access: Access) -> None:
    """Let a client's context trust the authorities and show the certificate of an access.

    Raises:
        StackError: a file cannot be used; the message names its option.
    """
    if access.ca_file is None:
        context.load_default_certs()
    else:
        try:
            context.load_verify_locations(access.ca_file)
        except OSError as error:
            raise _unusable("--ca-file", access.ca_file, error, "name a file of PEM certificates") from error
    if access.client_cert is None and access.client_key is None:
        return
    if access.client_cert is None:
        raise StackError("--client-key: goes with a certificate; add --client-cert FILE.")
    try:
        # Without an answer of ours, OpenSSL would ask the terminal for an encrypted key's password.
        context.load_cert_chain(access.client_cert, access.client_key, password=lambda: "")
    except OSError as error:
        remedy = "give a PEM certificate, and its unencrypted key with --client-key"
        raise _unusable("--client-cert", access.client_cert, error, remedy) from error


def refuse_unusable(access: Access) -> None:
    """Raise before anything begins if a file of an access cannot be used.

    Raises:
        StackError: one cannot; the message names its option.
    """
    equip(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), access)


def _unusable(option: str, path: str, error: OSError, remedy: str) -> StackError:
    why = "no PEM that fits" if isinstance(error, ssl.SSLError) else error.strerror
    if option == "--ca-file" and isinstance(error, ssl.SSLError):
        why = "no PEM certificates"
    return StackError(f"{option} {path}: cannot be used: {why}; {remedy}.")


def refuse_untrusted(url: str, access: Access) -> None:
    """Raise if a host and we do not trust each other over TLS; one that is not there at all is for others to tell.

    Raises:
        StackError: its certificate is not trusted, or it does not take ours; the message names the option.
    """
    parts = urlsplit(url)
    if parts.scheme != "https":
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    equip(context, access)
    name = access.server_name(parts.hostname or "")
    where = f"{parts.scheme}://{parts.netloc}, asked for {name}"
    for _ in range(_ATTEMPTS):
        try:
            _shake_hands((parts.hostname or "", parts.port or 443), context, name)
        except ssl.SSLCertVerificationError as error:
            raise StackError(f"{where}: {_untrusted(error)}") from error
        except ssl.SSLError as error:
            if "ALERT" in (error.reason or ""):
                raise StackError(f"{where}: {_turned_away(error, access)}") from error
        except OSError:
            pass  # what was said may be lost with a connection that breaks: once more
        else:
            return


def _shake_hands(address: tuple[str, int], context: ssl.SSLContext, name: str) -> None:
    """Connect, and listen for a while: a server of TLS 1.3 looks at our certificate when our half is done already.

    Its alert would be lost if we had sent something that it does not read.
    """
    with (
        socket.create_connection(address, _SHAKEN_WITHIN_S) as plain,
        context.wrap_socket(plain, server_hostname=name) as connection,
    ):
        connection.settimeout(_SILENCE_S)
        with contextlib.suppress(TimeoutError):
            if not connection.recv(1):
                raise ConnectionResetError


def _untrusted(error: ssl.SSLCertVerificationError) -> str:
    why = error.verify_message.rstrip(".")
    remedy = "ask for a name that it has with --sni NAME, or with gateway.host in the experiment"
    if error.verify_code != _OTHER_NAME:
        remedy = "name the authority that signed it with --ca-file FILE"
    return f"its certificate is not trusted ({why}); {remedy}."


def _turned_away(error: ssl.SSLError, access: Access) -> str:
    why = str(error.reason).partition("ALERT_")[2].lower().replace("_", " ")
    if access.client_cert is None:
        return (
            f"it turns us away ({why}), and we show no certificate; give one with --client-cert and --client-key, if "
            "it asks for that."
        )
    return f"it does not take the certificate {access.client_cert} ({why}); give one of an authority that it trusts."


def variables(values: Iterable[str]) -> list[str]:
    """The names of the variables that texts refer to, each once.

    >>> variables(["Bearer ${TOKEN}", "${TOKEN}-${REGION}", "$NONE"])
    ['TOKEN', 'REGION']
    """
    return list(dict.fromkeys(name for value in values for name in VARIABLE.findall(value)))


def expanded(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers as they are sent: with the values of the environment's variables.

    Raises:
        StackError: a variable is not set.
    """
    return {name: _filled(name, value) for name, value in headers.items()}


def _filled(name: str, value: str) -> str:
    return VARIABLE.sub(lambda found: _value(found[1], name), value)


def _value(variable: str, header: str) -> str:
    found = os.environ.get(variable)
    if not found:
        raise StackError(f"header {header!r}: the variable {variable} is not set; set it where the load runs.")
    return found


def refuse_unset(experiment: Experiment) -> None:
    """Raise before anything begins if a header refers to a variable that is not set.

    Raises:
        StackError: one is not set.
    """
    for cohort in experiment.cohorts.values():
        expanded(cohort.headers)
