"""`builder report`: the record as one static HTML page that needs nothing beside it."""

from pathlib import Path
from typing import TYPE_CHECKING

from builder.common.errors import UsageError
from builder.common.files import write_atomically
from builder.release import record
from builder.release.report import page

if TYPE_CHECKING:
    from jinja2 import Environment

FILE_NAME = "index.html"


def write(folder: Path, out: Path, *, note: str = "") -> tuple[Path, page.Page]:
    """Write the page of the record in `folder` to `out`; `note` is a line at its top.

    The same record gives the same bytes. Raises UsageError for a record that is not what builder
    wrote, and where `out` cannot be written.
    """
    found = page.lay_out(*_read(folder), note=note)
    path = out / FILE_NAME
    text = to_html(found)
    try:
        out.mkdir(parents=True, exist_ok=True)
        # The record may be a branch that others push to: a link in it is theirs.
        write_atomically(path, text, root=out)
    except OSError as error:
        raise UsageError(f"{path} cannot be written", why=str(error)) from error
    return path, found


def to_html(found: page.Page) -> str:
    """The page's text. Whatever strangers wrote is text in it, never markup."""
    return _templates().get_template("page.html.jinja").render(page=found)


def _read(folder: Path) -> tuple[record.Index | None, list[record.Release], list[record.Night]]:
    index = record.read_index(folder)
    names = dict.fromkeys([*index.releases, *index.floating.values()]) if index else {}
    return index, [record.read_release(folder, name) for name in names], record.read_nights(folder)


def _templates() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["megabytes"] = lambda size: f"{size / 1e6:.0f} MB"
    environment.filters["minutes"] = page.minutes
    return environment
