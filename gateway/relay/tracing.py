"""Tells upstream which span it is called from, in place of what the client said of its own.

Pure. Knows a request to upstream, with a ready-made head or without one.
"""

from gateway.call import TraceContext
from gateway.observe.traces.context import HEADERS, lines
from gateway.upstream.transport import UpstreamRequest


def add_trace(request: UpstreamRequest, trace: TraceContext, span_id: str) -> None:
    """Let `request` say that it is made in `span_id`. A ready-made head must hold no header of a trace."""
    ours = lines(trace, span_id)
    if request.head is None:
        request.headers = [header for header in request.headers if header[0] not in HEADERS] + ours
    else:
        request.headers = request.headers + ours
        request.head = request.head[:-2] + b"".join(b"%b: %b\r\n" % line for line in ours) + b"\r\n"
