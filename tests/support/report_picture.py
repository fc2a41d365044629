"""The picture of the README: `python -m tests.support.report_picture` writes it anew (root)."""

import tempfile
from pathlib import Path

from builder.release import report
from tests.browser.chromium import show, started
from tests.conftest import ROOT
from tests.support import synthetic_record

PICTURE = ROOT / ".github" / "images" / "report.png"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, started(Path(folder) / "profile") as chrome:
        record = Path(folder)
        synthetic_record.write(record)
        page, _ = report.write(record, record, note=synthetic_record.NOTE)
        chrome.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
        show(chrome, page, (1080, 880))
        PICTURE.parent.mkdir(parents=True, exist_ok=True)
        chrome.save_screenshot(str(PICTURE))


if __name__ == "__main__":
    main()
