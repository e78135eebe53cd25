"""Requests that are not answered as they wish: the status, and what the client is told."""

from __future__ import annotations


class RefusedError(Exception):
    """A request that is refused.

    Args:
        status: of HTTP.
        message: one line for the client.
        retry_after_s: when to come again.
        close: end the connection, as what is left of the request is not read.
        reason: what counts it in the metrics: a word.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        retry_after_s: int | None = None,
        close: bool = False,
        reason: str = "invalid",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s
        self.close = close
        self.reason = reason


class FullError(RefusedError):
    """A request for which there is no place at the moment: status 429.

    Args:
        message: one line for the client.
        retry_after_s: when there is likely to be one.
    """

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(429, message, retry_after_s=retry_after_s, reason="overload")


class DeadlineError(Exception):
    """The time of a request was over before its vectors were there."""


def malformed(message: str) -> RefusedError:
    """A request that cannot be understood: status 400."""
    return RefusedError(400, message, reason="malformed")


def too_large(message: str, *, close: bool = False) -> RefusedError:
    """A request above a limit: status 413."""
    return RefusedError(413, message, close=close, reason="too large")
