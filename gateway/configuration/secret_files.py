"""Secrets that may stand in a file of their own: a setting and its `…_file`, and what the file holds.

Knows which of the two wins. No message says anything of what a secret looks like
beyond what is wrong with it.
"""

from pathlib import Path as FilePath

from gateway.configuration.layers import Layer
from gateway.configuration.problems import Path, Problem, spell
from gateway.settings.shapes import is_header_safe

_SECRETS: tuple[tuple[str, str], ...] = (
    ("upstream", "api_key"),
    ("admin", "key"),
    ("alerts", "webhook_secret"),
    ("metrics", "token"),
)
_MAX_BYTES = 16 * 1024


class _BadFileError(Exception):
    def __init__(self, reason: str, cure: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.cure = cure


def settle_secret_files(layer: Layer) -> None:
    """Of each secret and its file keep the one from the higher source, and read the file. Problems go to `layer`."""
    for section, name in _SECRETS:
        _settle(layer, (section, name), (section, f"{name}_file"))


def _settle(layer: Layer, secret: Path, file: Path) -> None:
    values = layer.values.get(str(secret[0]), {})
    for path in (secret, file):
        if values.get(path[1]) is None:
            layer.drop(path)
    if secret in layer.origins and file in layer.origins:
        _keep_the_higher(layer, secret, file)
    if file in layer.origins and secret not in layer.origins:
        _read(layer, secret, file)


def _keep_the_higher(layer: Layer, secret: Path, file: Path) -> None:
    origin, other = layer.origins[file], layer.origins[secret]
    if origin.rank == other.rank:
        layer.problems.append(Problem(file, f"is set beside {spell(secret)}", "keep one of the two", origin))
    else:
        layer.drop(secret if origin.rank > other.rank else file)


def _read(layer: Layer, secret: Path, file: Path) -> None:
    values, origin = layer.values[str(file[0])], layer.origins[file]
    name = values[file[1]]
    if not isinstance(name, str) or not name:
        return  # the models say that it is not a path
    try:
        values[secret[1]] = _secret_in(name)
        layer.origins[secret] = origin
    except _BadFileError as error:
        layer.problems.append(Problem(file, error.reason, error.cure, origin))


def _secret_in(name: str) -> str:
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
    secret = data.decode("latin-1").strip(" \t\r\n")
    if not secret:
        raise _BadFileError("names a file that is empty", "write the key into it")
    if not is_header_safe(secret):
        reason = "names a file that holds more than visible ASCII characters without spaces"
        raise _BadFileError(reason, "let it hold the key alone, on one line")
    return secret
