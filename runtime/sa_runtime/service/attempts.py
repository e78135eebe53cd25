"""When a request to a service is sent again, and what is said where it is not."""

from __future__ import annotations

import dataclasses
import logging
import random
import ssl
import time
from typing import TYPE_CHECKING

from sa_runtime.errors import InputError, RunnerError

if TYPE_CHECKING:
    import httpx

_log = logging.getLogger(__name__)
AGAIN = (429, 502, 503)
"""Answers of a service, or of what stands before it, that ask to come again."""
_LONGEST_WAIT_S = 20.0
"""That a service may ask for."""
_LONGEST_PAUSE_S = 2.0
"""Beyond that: a service that is up again is not left waiting."""


@dataclasses.dataclass
class Patience:
    """How long a client waits for its service, and what it knows of it.

    Attributes:
        url: of the service.
        timeout_s: for a request, with all its attempts.
        connect_timeout_s: of it to connect in, and for a service that has not answered yet.
        reached: whether it ever answered.
        waited: whether it is away, which was said.
    """

    url: str
    timeout_s: float
    connect_timeout_s: float
    reached: bool = False
    waited: bool = False

    def away(self, outcome: httpx.Response | Exception) -> bool:
        """Whether nobody answers at an address that has not answered yet."""
        import httpx

        return not self.reached and isinstance(outcome, httpx.ConnectError | httpx.ConnectTimeout)

    def gave_up(self, outcome: httpx.Response | Exception) -> RunnerError:
        """What is said when the time is over."""
        if self.away(outcome):
            return RunnerError(
                f"{self.url}: nobody answers there ({_said(outcome)}); is the address right, and "
                f"the service up? It was tried for {self.connect_timeout_s:g} s; a longer "
                "`connect_timeout_s` waits longer for one that is being started"
            )
        # Since TLS 1.3 whoever is refused for his certificate may only see the connection end.
        asks = self.url.startswith("https://") and isinstance(outcome, Exception)
        return RunnerError(
            f"{self.url}: no answer in {self.timeout_s:g} s ({_said(outcome)}); is the service up, "
            "and is it asked for more than it can do? A longer `timeout_s` waits longer"
            + ("; does it ask its clients for certificates (`certificate`)?" if asks else "")
        )

    def untrusted(self, error: Exception) -> InputError | None:
        """What another attempt would fail with likewise: the two do not trust each other."""
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, ssl.SSLError):
            cause = cause.__cause__ or cause.__context__
        if cause is None or isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return None  # as a service that is stopped ends a connection
        if isinstance(cause, ssl.SSLCertVerificationError):
            return InputError(
                f"{self.url}: its certificate is not trusted ({cause.verify_message}); pass `ca`, "
                "or set SA_DEPLOY_CA, where it is signed by certificates of your own"
            )
        return InputError(
            f"{self.url}: no TLS with it ({cause.reason or cause}); where it asks its clients for "
            "certificates, pass `certificate`, or set SA_DEPLOY_CERTIFICATE"
        )


class Attempts:
    """Those of one request.

    Args:
        patience: of its client.
    """

    def __init__(self, patience: Patience) -> None:
        self._patience, self._made = patience, 0
        self._began = time.monotonic()

    @property
    def left_s(self) -> tuple[float, float]:
        """Time that is left, and of it to connect in."""
        left_s = max(self._began + self._patience.timeout_s - time.monotonic(), 0.001)
        return left_s, min(left_s, self._patience.connect_timeout_s)

    def pause_s(self, outcome: httpx.Response | Exception) -> float | None:
        """How long to wait before the next attempt; ``None`` where the answer is the last one.

        Args:
            outcome: of the attempt: its answer, or what it failed with.

        Raises:
            RunnerError: no time is left for another one.
            InputError: another one would fail likewise.
        """
        patience = self._patience
        time_s = patience.timeout_s
        # By chance, so that those refused together do not come together.
        pause_s: float = min(0.1 * 2 ** min(self._made, 10), _LONGEST_PAUSE_S)
        wait_s = pause_s * random.uniform(0.5, 1.0)
        if isinstance(outcome, Exception):
            if untrusted := patience.untrusted(outcome):
                raise untrusted from outcome
            if patience.away(outcome):
                time_s = patience.connect_timeout_s
            # The first failure may be that of a connection which the service closed long ago.
            if self._made and not patience.waited:
                patience.waited = True
                _log.warning("%s: no answer yet (%s); asking again", patience.url, _said(outcome))
        else:
            patience.reached, patience.waited = True, False
            if outcome.status_code not in AGAIN:
                return None
            stated = outcome.headers.get("retry-after", "")
            if stated.isascii() and stated.isdigit():
                wait_s += min(int(stated[:6]), _LONGEST_WAIT_S)
        if time.monotonic() + wait_s >= self._began + time_s:
            cause = outcome if isinstance(outcome, Exception) else None
            raise patience.gave_up(outcome) from cause
        self._made += 1
        return wait_s


def message_of(response: httpx.Response) -> str:
    """Why a service refused; what its status is called where it does not say."""
    try:
        return str(response.json()["error"])[:400]
    except (ValueError, KeyError, TypeError):
        return response.reason_phrase


def _said(outcome: httpx.Response | Exception) -> str:
    if isinstance(outcome, Exception):
        return str(outcome) or type(outcome).__name__
    return f"{outcome.status_code} {message_of(outcome)}"
