"""The account's key: one of `api_key` and `api_key_file`, and what the file holds.

Knows which source wins. No message says anything of what a key looks like
beyond what is wrong with it.
"""

from pathlib import Path as FilePath

from gateway.configuration.layers import Layer
from gateway.configuration.problems import Path, Problem
from gateway.settings.shapes import is_header_safe

KEY: Path = ("upstream", "api_key")
KEY_FILE: Path = ("upstream", "api_key_file")
_MAX_BYTES = 16 * 1024


class _BadFileError(Exception):
    def __init__(self, reason: str, cure: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.cure = cure


def settle_account_key(layer: Layer) -> None:
    """Keep one of the two, from the higher source, and read the file. Problems go to `layer`."""
    upstream = layer.values.get("upstream", {})
    for path in (KEY, KEY_FILE):
        if upstream.get(path[1]) is None:
            layer.drop(path)
    if KEY in layer.origins and KEY_FILE in layer.origins:
        _keep_the_higher(layer)
    if KEY_FILE in layer.origins and KEY not in layer.origins:
        _read(layer, upstream)


def _keep_the_higher(layer: Layer) -> None:
    key, file = layer.origins[KEY], layer.origins[KEY_FILE]
    if key.rank == file.rank:
        cure = "keep one of the two"
        layer.problems.append(Problem(KEY_FILE, "is set beside upstream.api_key", cure, file))
    else:
        layer.drop(KEY if file.rank > key.rank else KEY_FILE)


def _read(layer: Layer, upstream: dict[str, object]) -> None:
    origin, name = layer.origins[KEY_FILE], upstream[str(KEY_FILE[1])]
    if not isinstance(name, str) or not name:
        return  # the models say that it is not a path
    try:
        upstream["api_key"] = _key_in(name)
        layer.origins[KEY] = origin
    except _BadFileError as error:
        layer.problems.append(Problem(KEY_FILE, error.reason, error.cure, origin))


def _key_in(name: str) -> str:
    try:
        with FilePath(name).open("rb") as file:
            data = file.read(_MAX_BYTES)
    except IsADirectoryError:
        raise _BadFileError(
            "names a directory",
            "name the file that holds the key"
            " (a container engine makes a directory where the file to mount is missing)",
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise _BadFileError(
            f"cannot be read: {getattr(error, 'strerror', 'not a path')}",
            "name a file that this user may read",
        ) from None
    key = data.decode("latin-1").strip(" \t\r\n")
    if not key:
        raise _BadFileError("names a file that is empty", "write the key into it")
    if not is_header_safe(key):
        reason = "names a file that holds more than visible ASCII characters without spaces"
        raise _BadFileError(reason, "let it hold the key alone, on one line")
    return key
