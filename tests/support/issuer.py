"""Who signs OAuth tokens, and tells its keys at an address where a broker looks them up."""

from __future__ import annotations

import base64
import json
import math
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from order_services.local.ports import LOOPBACK

AUDIENCE: Final = "kafka"
_KEY_ID: Final = "key-1"


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


class Issuer:
    """Has one RSA key; `jwks_url` has its public half as RFC 7517 wants it."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(65537, 2048)
        numbers = self._key.public_key().public_numbers()
        known = {
            "kty": "RSA",
            "kid": _KEY_ID,
            "alg": "RS256",
            "use": "sig",
            "n": _text(numbers.n.to_bytes(256, "big")),
            "e": _text(numbers.e.to_bytes(3, "big")),
        }
        keys = json.dumps({"keys": [known]}).encode()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(keys)))
                self.end_headers()
                self.wfile.write(keys)

            def log_message(self, *_: Any) -> None:
                """Write nothing."""

        self._server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.jwks_url = f"http://{LOOPBACK}:{self._server.server_port}/jwks"

    def token(self, lifetime_s: float, **claims: Any) -> str:
        """Return a token of the user `watcher`, signed (RFC 7515)."""
        now = time.time()
        told = {
            "sub": "watcher",
            "aud": AUDIENCE,
            "iat": int(now),
            "exp": math.ceil(now + lifetime_s),
            **claims,
        }
        header = {"alg": "RS256", "typ": "JWT", "kid": _KEY_ID}
        signed = ".".join(_text(json.dumps(part).encode()) for part in (header, told))
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_text(signature)}"

    def close(self) -> None:
        """Tell its keys no longer."""
        self._server.shutdown()
        self._server.server_close()
