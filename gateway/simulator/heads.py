"""The response headers of the simulated upstream, as api.openai.com behind Cloudflare sends them.

Those that describe the account or the hop (cookies, limits, organisation) are
there so that a gateway's dropping of them can be seen.
"""

from email.utils import formatdate

from gateway.simulator.call import Headers

FIXED: Headers = [
    (b"x-simulated", b"true"),
    (b"openai-organization", b"simulated-organization"),
    (b"openai-project", b"proj_simulated"),
    (b"openai-processing-ms", b"12"),
    (b"openai-version", b"2020-10-01"),
    (b"x-ratelimit-limit-requests", b"10000"),
    (b"x-ratelimit-limit-tokens", b"30000000"),
    (b"x-ratelimit-remaining-requests", b"9999"),
    (b"x-ratelimit-remaining-tokens", b"29999000"),
    (b"x-ratelimit-reset-requests", b"6ms"),
    (b"x-ratelimit-reset-tokens", b"2ms"),
    (b"x-content-type-options", b"nosniff"),
    (b"access-control-expose-headers", b"X-Request-ID"),
    (b"set-cookie", b"__cf_bm=simulated; path=/; domain=.example.com; HttpOnly; Secure; SameSite=None"),
    (b"set-cookie", b"_cfuvid=simulated; path=/; domain=.example.com; HttpOnly; Secure; SameSite=None"),
    (b"server", b"cloudflare"),
    (b"cf-cache-status", b"DYNAMIC"),
    (b"cf-ray", b"0123456789abcdef-SIM"),
    (b"alt-svc", b'h3=":443"; ma=86400'),
    (b"strict-transport-security", b"max-age=31536000; includeSubDomains; preload"),
]


def head(request_id: str, more: Headers) -> Headers:
    """All headers of one reply."""
    date = formatdate(usegmt=True).encode()
    return [(b"date", date), *more, (b"x-request-id", request_id.encode()), *FIXED]
