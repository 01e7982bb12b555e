"""The HTTP face: mirrored routes, operations, errors on the wire. The only place that knows FastAPI and uvicorn."""
