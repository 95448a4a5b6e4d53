"""The `Prefer` header (RFC 7240): what a client would like, and may not get."""

from holdfast.http.message import Request

_MOST_WAIT_S = 60


def _preferences(request: Request) -> dict[bytes, bytes]:
    """Names in lower case; of one that is written twice the first counts (section 2)."""
    found: dict[bytes, bytes] = {}
    for name, value in request.headers:
        if name == b"prefer":
            for part in value.split(b","):
                wish, _, wanted = part.partition(b";")[0].partition(b"=")
                found.setdefault(wish.strip().lower(), wanted.strip().strip(b'"'))
    return found


def respond_async(request: Request) -> bool:
    """Whether the client would rather come back for the answer than wait for it."""
    return b"respond-async" in _preferences(request)


def wait_s(request: Request) -> int:
    """How long the client would wait for the answer, in seconds, at most a minute; 0 where it does not say."""
    if request.header(b"prefer") is None:
        return 0
    wish = _preferences(request).get(b"wait", b"")
    return min(int(wish), _MOST_WAIT_S) if wish.isdigit() and len(wish) < 10 else 0
