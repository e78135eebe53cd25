"""Traces of requests, where OpenTelemetry is installed."""

from __future__ import annotations

import time
from functools import cache
from typing import Any

from sa_runtime.service.answered import Answered

NAME = "sa_deploy.service"


def record(answered: Answered) -> None:
    """A span of a request, a child of the caller's (``traceparent``), with one for each stage.

    Whoever runs the service sets up where spans go, by OpenTelemetry's own environment variables
    and ``opentelemetry-instrument``; without that none are made.
    """
    api = _api()
    if api is None or not answered.stages or api.unset():
        return
    end = time.time_ns()
    begin = end - round(answered.seconds * 1e9)
    tracer = api.trace.get_tracer(NAME)
    headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in answered.headers}
    span = tracer.start_span(
        f"{answered.method} {answered.route}",
        context=api.extract(headers),
        kind=api.trace.SpanKind.SERVER,
        start_time=begin,
        attributes={
            "http.request.method": answered.method,
            "http.route": answered.route,
            "http.response.status_code": answered.status,
            "sa_deploy.model": answered.model,
            "sa_deploy.people": answered.people,
            "sa_deploy.request": answered.id,
        },
    )
    if span.is_recording():
        inside, at = api.trace.set_span_in_context(span), begin
        for stage, seconds in answered.stages.items():
            child = tracer.start_span(stage, context=inside, start_time=at)
            at += round(seconds * 1e9)
            child.end(end_time=at)
    span.end(end_time=end)


@cache
def _api() -> Any:
    try:
        from opentelemetry import propagate, trace
    except ImportError:
        return None

    class Api:
        extract = staticmethod(propagate.extract)

        @staticmethod
        def unset() -> bool:
            """Whether nobody said where spans go."""
            return isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)

    Api.trace = trace  # type: ignore[attr-defined]
    return Api
