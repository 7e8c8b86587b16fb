"""Keys and certificates of a control plane that lives for minutes."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from plane.namespace import NODE_ADDRESS

_AUTHORITY = """
[req]
distinguished_name = name
x509_extensions = authority
prompt = no
[name]
CN = splitproof mesh
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign, digitalSignature
subjectKeyIdentifier = hash
"""
_SERVER = f"""
basicConstraints = CA:FALSE
keyUsage = critical, digitalSignature, keyEncipherment
extendedKeyUsage = serverAuth
subjectAltName = IP:{NODE_ADDRESS}, IP:127.0.0.1, IP:10.96.0.1, DNS:kubernetes.default.svc
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


@dataclass(frozen=True)
class Certificates:
    """Files: who signs, what the API server and the kubelet port show, and what signs service-account tokens."""

    authority: Path
    server: Path
    server_key: Path
    accounts_key: Path


def make(folder: Path) -> Certificates:
    """Make them all with `openssl`, in a folder of their own."""
    folder.mkdir()
    found = Certificates(
        folder / "authority.crt", folder / "server.crt", folder / "server.key", folder / "accounts.key"
    )
    (folder / "authority.cnf").write_text(_AUTHORITY)
    (folder / "server.cnf").write_text(_SERVER)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    _openssl(folder, ["req", "-x509", *key, "-config", "authority.cnf", "-days", "2",
                      "-keyout", "authority.key", "-out", "authority.crt"])  # fmt: skip
    _openssl(folder, ["req", *key, "-config", "authority.cnf", "-subj", "/CN=server",
                      "-keyout", "server.key", "-out", "server.csr"])  # fmt: skip
    _openssl(folder, ["x509", "-req", "-in", "server.csr", "-CA", "authority.crt", "-CAkey", "authority.key",
                      "-CAcreateserial", "-days", "2", "-extfile", "server.cnf", "-out", "server.crt"])  # fmt: skip
    _openssl(folder, ["genrsa", "-out", "accounts.key", "2048"])
    return found


def _openssl(folder: Path, arguments: list[str]) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, check=True)  # noqa: S607 - from the PATH
