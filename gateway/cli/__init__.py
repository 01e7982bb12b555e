"""The terminal's face: running and checking a gateway, and its teams and keys.

Knows what a person at a terminal needs to read; settings, checks, administration and the gateway itself are others'
business. Exit codes: 0 all is well, 1 something is wrong or was refused, 2 the command or the settings cannot be used
at all.
"""

import gc
import io
import sys


def main() -> None:
    """The entry point of the console script."""
    # What is imported stays: to look for garbage in it meanwhile would take a fifth of the time. A command ends soon,
    # and `serve` turns collection on again.
    gc.disable()
    from gateway.cli.commands import app  # noqa: PLC0415 - after that
    from gateway.cli.printing import drop_output  # noqa: PLC0415

    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a tick shows a question mark; it is no reason to fail.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app()
    except OSError as error:
        # Commands say what they know about files and hosts; what is left is what they print to.
        drop_output()
        where = "" if error.filename is None else f" ({error.filename})"
        sys.exit(f"Cannot go on: {error.strerror or error}{where}.")
