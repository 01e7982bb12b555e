"""Traces by OpenTelemetry, in the extra `otel`.

A call that is traced has a `TraceContext` from its start, which upstream is told of; its spans are made of its record,
when it has ended, on a thread of their own. Without `traces.endpoint` nothing here is made, nor OpenTelemetry's SDK
imported.
"""
