"""What joins a runtime to a host: `asgi`, `aiohttp`, and `otel` for tracing.

Each needs nothing beyond its host's own package, which is imported when it is used (D-36).
"""
