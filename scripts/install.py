"""Make .venv hold exactly what the lock files say, with the standard library alone.

Knows when an environment can be kept: it carries a copy of every file it was
made from. One that was interrupted, moved or made from other locks lacks a
stamp that fits, and is made anew. Which packages there are is the locks'
business; which registry they come from is pip's.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
STAMPS = ENVIRONMENT / "stamps"
PYTHON = ENVIRONMENT / "bin" / "python"

# What each kind of environment is made from. The locks agree on versions, so one can be added to another.
LOCKS = {
    "runtime": ("runtime", "build"),
    "dev": ("runtime", "build", "dev"),
    "lock": ("runtime", "build", "lock"),
}


def main(kind: str) -> None:
    os.umask(os.umask(0) & 0o022)  # no secret is written here, and whoever runs the gateway need not be who installs it
    with (ROOT / "requirements" / "runtime.txt").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two commands of a fresh clone started at once take turns
        if not is_sound():
            create()
        missing = [name for name in LOCKS[kind] if not is_stamped(requirements(name))]
        if missing:
            add(missing)
        if not is_stamped(ROOT / "pyproject.toml"):
            add_project()


def is_sound() -> bool:
    """Whether what is installed is whole, belongs here, and came from the locks as they are now."""
    if not PYTHON.exists() or read(STAMPS / "root") != str(ROOT):
        return False
    return all(read(requirements(stamp.stem)) == read(stamp) for stamp in STAMPS.glob("*.txt"))


def create() -> None:
    print(f"Setting up {ENVIRONMENT} (once, about 20 seconds) ...", file=sys.stderr)
    venv.create(ENVIRONMENT, clear=True, with_pip=True, symlinks=True)
    STAMPS.mkdir()
    (STAMPS / "root").write_text(str(ROOT), encoding="utf-8")


def add(names: list[str]) -> None:
    print(f"Installing requirements: {', '.join(names)} ...", file=sys.stderr)
    # Without this stamp an install that is interrupted starts from an empty environment next time.
    root = (STAMPS / "root").rename(STAMPS / "root.unfinished")
    pip("--require-hashes", *(f"--requirement={requirements(name)}" for name in names))
    for name in names:
        stamp(requirements(name))
    root.rename(STAMPS / "root")


def add_project() -> None:
    pip("--no-deps", "--no-build-isolation", f"--editable={ROOT}")
    stamp(ROOT / "pyproject.toml")


def pip(*arguments: str) -> None:
    command = [str(PYTHON), "-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
    # Standard output belongs to the command that is about to run.
    done = subprocess.run(command, stdout=sys.stderr, check=False)
    if done.returncode:
        sys.exit("Installing failed; see above. Is the package registry reachable? Then run the command again.")


def requirements(name: str) -> Path:
    return ROOT / "requirements" / f"{name}.txt"


def stamp(file: Path) -> None:
    shutil.copyfile(file, STAMPS / file.name)


def is_stamped(file: Path) -> bool:
    return read(STAMPS / file.name) == read(file)


def read(file: Path) -> str | None:
    return file.read_text(encoding="utf-8") if file.exists() else None


if __name__ == "__main__":
    main(sys.argv[1])
