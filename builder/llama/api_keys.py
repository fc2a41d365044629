"""Files of API keys, read as llama-server reads them: a key a line, ended by a line feed alone."""

from pathlib import Path

from builder.common.errors import UsageError

_HINT = "(umask 077; openssl rand -hex 32 > {file}) writes one"
_REMARK = "#"
_MOST_BYTES = 2**20


def read(file: Path) -> list[str]:
    """The keys of a file, in its order.

    llama-server splits a file with std::getline and skips lines that are empty or begin with `#`
    (common/arg.cpp). So a carriage return is a part of a key, and a file that has no other line end
    is one remark, or one key that no client sends: characters that make the two readings differ
    are refused. Raises UsageError for them, for a file that cannot be read or that has no key.
    """
    lines = _text(file).split("\n")
    for number, line in enumerate(lines, start=1):
        _require_sendable(file, number, line)
    keys = [line for line in lines if line and not line.startswith(_REMARK)]
    if not keys:
        raise UsageError(f"--api-key-file {file} has no key", hint=_HINT.format(file=file))
    return keys


def require_readable(file: Path, help_text: str, image: str) -> None:
    """Raises UsageError where a file has remarks that this commit would take for keys.

    `help_text` is what its `--help` prints; empty: nothing is known, and nothing is refused.
    Commits before the `#` was given a meaning let in whoever sends the remark.
    """
    skips_remarks = "treated as comments" in " ".join(help_text.split())
    remarks = [line for line in _text(file).split("\n") if line.startswith(_REMARK)]
    if help_text and remarks and not skips_remarks:
        raise UsageError(
            f"{file} has lines that begin with #, and {image} takes them for keys",
            why="the --help of this commit does not call them comments",
            hint=f"take them out of {file}",
        )


def _text(file: Path) -> str:
    """The file, a character a byte."""
    if file.exists() and not file.is_file():
        raise UsageError(f"--api-key-file {file} cannot be read", why="it is not a file")
    try:
        with file.open("rb") as opened:
            content = opened.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"--api-key-file {file} cannot be read",
            why=error.strerror or str(error),
            hint=_HINT.format(file=file),
        ) from error
    if len(content) > _MOST_BYTES:
        raise UsageError(f"--api-key-file {file} has more than {_MOST_BYTES} bytes")
    return content.decode("latin-1")


def _require_sendable(file: Path, number: int, line: str) -> None:
    """Raises UsageError for a line that no HTTP header can hold as it is."""
    edges = line if line.startswith(_REMARK) else line.strip()
    if line.isascii() and line.isprintable() and line == edges:
        return
    what = "a space at an end of it"
    if odd := [char for char in line if not (char.isascii() and char.isprintable())]:
        what = "carriage returns" if odd[0] == "\r" else f"the byte {ord(odd[0]):#04x}"
    raise UsageError(
        f"--api-key-file {file}: line {number} has {what}",
        why="llama-server takes it as a part of the key, and no client can send it",
        hint=f"keys are printable ASCII, one a line, each line ended by a line feed; "
        f"{_HINT.format(file=file)}",
    )
