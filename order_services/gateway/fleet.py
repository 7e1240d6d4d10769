"""Asks every replica of the other services how it is."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ASK_TIMEOUT_SECONDS: Final = 1.0
# connecting, sending and each read have the timeout above to themselves: this bounds the sum
TOTAL_TIMEOUT_SECONDS: Final = 2.0
MAX_ANSWER_BYTES: Final = 16 * 1024
MAX_CONCURRENT: Final = 16

_SILENT: Final = {"status": "unreachable", "reasons": ["no answer in time"]}


class Fleet:
    """The replicas of each service at their configured addresses."""

    def __init__(self, urls: Mapping[str, Sequence[str]]) -> None:
        self._urls = urls
        self._threads = ThreadPoolExecutor(MAX_CONCURRENT, thread_name_prefix="fleet")

    def status(self) -> list[dict[str, Any]]:
        """Ask all replicas at once; takes at most `TOTAL_TIMEOUT_SECONDS`."""
        asked = [
            (service, url, self._threads.submit(_ask, url))
            for service, urls in self._urls.items()
            for url in urls
        ]
        wait([answer for _, _, answer in asked], timeout=TOTAL_TIMEOUT_SECONDS)
        return [
            {"service": service, "url": url, **(answer.result() if answer.done() else _SILENT)}
            for service, url, answer in asked
        ]

    def close(self) -> None:
        """Ask nobody any more; what is being asked is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _ask(url: str) -> dict[str, Any]:
    started = time.perf_counter()
    try:
        # the scheme is http or https: the settings see to it
        with urllib.request.urlopen(f"{url}/ready", timeout=ASK_TIMEOUT_SECONDS) as response:  # noqa: S310
            body = response.read(MAX_ANSWER_BYTES)
    except urllib.error.HTTPError as error:
        body = error.read(MAX_ANSWER_BYTES)
        error.close()
    except OSError as error:
        reason = getattr(error, "reason", error)
        text = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
        return {"status": "unreachable", "reasons": [text.lower()]}
    seconds = round(time.perf_counter() - started, 4)
    try:
        answer = json.loads(body)
        reasons = [str(reason) for reason in answer["reasons"]]
        return {"status": str(answer["status"]), "reasons": reasons, "seconds": seconds}
    except (ValueError, KeyError, TypeError):
        return {"status": "unreachable", "reasons": ["the answer is not that of a service"]}
