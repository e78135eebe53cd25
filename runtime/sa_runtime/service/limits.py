"""What a service takes at most, of one request and of all together."""

from __future__ import annotations

import dataclasses

from sa_runtime.errors import check_fields

LARGEST = 1e9
"""Of what is measured in MB, seconds or milliseconds."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of a service; whatever is above one is refused with a status that says so.

    Attributes:
        max_body_mb: of a request's body, in MB of a million bytes; 413 above.
        max_bodies_mb: of the bodies of all requests that are being answered; 429 above.
        max_pixels: of an image that is decoded; 413 above.
        max_images: people in one request; 413 above.
        max_requests: being answered at a time; 429 above.
        max_connections: open at a time; 503 above.
        queue_crops: waiting for a batch, of all clients together; 429 above.
        timeout_ms: from a request's first byte to its answer; 504 behind it. A request may ask for
            less.
        read_timeout_s: until headers, and then the body, are there whole; 408 behind it.
        write_timeout_s: until a client has taken its answer.

    Raises:
        InputError: a bound below 1, or a size or time that is not more than 0, or without end.
    """

    max_body_mb: float = 32.0
    max_bodies_mb: float = 256.0
    max_pixels: int = 25_000_000
    max_images: int = 64
    max_requests: int = 256
    max_connections: int = 1024
    queue_crops: int = 128
    timeout_ms: float = 10_000.0
    read_timeout_s: float = 10.0
    write_timeout_s: float = 10.0

    def __post_init__(self) -> None:
        """Check every field."""
        counts = ("max_pixels", "max_images", "max_requests", "max_connections", "queue_crops")
        sizes = ("max_body_mb", "max_bodies_mb", "timeout_ms", "read_timeout_s", "write_timeout_s")
        check_fields(self, [(name, getattr(self, name) >= 1, "at least 1") for name in counts])
        check_fields(
            self,
            [
                (name, 0 < getattr(self, name) < LARGEST, f"more than 0 and less than {LARGEST:g}")
                for name in sizes
            ],
        )
        check_fields(
            self,
            [
                (
                    "queue_crops",
                    self.queue_crops >= self.max_images,
                    f"at least max_images={self.max_images}, so that every request fits",
                )
            ],
        )

    @property
    def body_bytes(self) -> int:
        """Of one body."""
        return int(self.max_body_mb * 1e6)

    @property
    def bodies_bytes(self) -> int:
        """Of all bodies together."""
        return int(max(self.max_bodies_mb, self.max_body_mb) * 1e6)
