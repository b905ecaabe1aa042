"""Who may ask: the key, and the names under which a server without one is asked.

A server on the loopback address needs no key, since only this machine reaches it. So does any web
page in this machine's browser: its own host name may be made to point at 127.0.0.1 (DNS rebinding),
and then the browser takes this server for that page's own. Such a request names the foreign host,
and is refused. With a key the name does not matter: a foreign page does not know the key.
"""

import hashlib
import hmac
import ipaddress
import os
import re
from collections.abc import Mapping

from medqa.errors import ConfigError
from medqa.serve.refusal import Refusal

VARIABLE = "MEDQA_API_KEY"
_OPEN = frozenset({"/", "/page.json", "/health", "/ready", "/openapi.json"})
"""Paths that need no key, beside those under ``/page/``; none of them asks the model."""


def key_from_environment() -> str | None:
    """Returns the key; None where there is none.

    Raises:
        ConfigError: It holds more than a key.
    """
    key = os.environ.get(VARIABLE, "").strip()
    if key and not re.fullmatch(r"[!-~]+", key):
        raise ConfigError(VARIABLE, ["expected letters, digits and signs without a space between"])
    return key or None


def require_safe(host: str, key: str | None, source: str) -> None:
    """Raises ConfigError if the whole network could ask without a key."""
    if key is None and not is_loopback(host):
        raise ConfigError(
            source,
            [
                f"host {host} can be reached from other machines and {VARIABLE} is not set; "
                f"run: export {VARIABLE}=$(openssl rand -hex 24), or take host=127.0.0.1"
            ],
        )


def is_loopback(host: str) -> bool:
    """Says whether only this machine reaches `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Access:
    """Refuses who may not ask.

    Args:
        key: What clients must send; None for no key.
        host: The address that is listened on.
    """

    def __init__(self, key: str | None, host: str) -> None:
        self._key = None if key is None else _digest(key.encode())
        self._names = {"127.0.0.1", "localhost", "::1", host.lower()}

    @property
    def needs_key(self) -> bool:
        """Whether clients must send a key."""
        return self._key is not None

    def check(self, path: str, headers: Mapping[str, str]) -> None:
        """Checks a request.

        Args:
            path: Where it goes.
            headers: Its headers, names in lower case.

        Raises:
            Refusal: 401 the key is missing or wrong, 421 it was meant for another host.
        """
        if self._key is None:
            if _name(headers.get("host", "")) not in self._names:
                raise Refusal(
                    421,
                    "a server without a key answers to 127.0.0.1 and localhost only; behind a "
                    f"proxy, set {VARIABLE}",
                    code="wrong_host",
                )
        elif path not in _OPEN and not path.startswith("/page/"):
            scheme, _, given = headers.get("authorization", "").partition(" ")
            # The digests have one length, so that comparing them takes one time.
            same = hmac.compare_digest(_digest(given.strip().encode("latin-1")), self._key)
            if scheme.lower() != "bearer" or not same:
                raise Refusal(
                    401,
                    "the key is missing or wrong; send it as Authorization: Bearer KEY",
                    code="invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()


def _name(host: str) -> str:
    """Returns the name in a Host header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0].lower() if ":" in host else host.lower()
