"""A real browser without a window, and what it saw of a page."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

PHONE = (390, 844)
DESK = (1080, 800)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
INSTALL = (
    "apt-get",
    "-o=DPkg::Lock::Timeout=300",
    # what a container of tests needs no guard against is a power cut
    "-o=DPkg::Options::=--force-unsafe-io",
    "install",
    "-qy",
    "--no-install-recommends",
    "chromium",
    "chromium-driver",
)


def installed() -> tuple[str, str]:
    """The browser and its driver, from Debian's packages unless the machine has a pair."""
    found = _find()
    if found is None:
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(INSTALL, check=True, env=environment, stdout=subprocess.DEVNULL)
        found = _find()
    assert found, "chromium and chromium-driver are installed, and no chromium or chromedriver"
    return found


def _find() -> tuple[str, str] | None:
    # GitHub's Ubuntu machines have Chrome; their chromium package is a snap.
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


@contextmanager
def started(profile: Path) -> Iterator[Chrome]:
    """A browser that keeps what its pages asked for; `profile` is a new empty folder."""
    browser, driver = installed()
    options = ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = Chrome(options=options, service=Service(executable_path=driver))
    try:
        yield chrome
    finally:
        chrome.quit()


def show(chrome: Chrome, page: Path, size: tuple[int, int], *, dark: bool = False) -> None:
    """Open the page in a window `size` CSS pixels wide and high."""
    width, height = size
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    chrome.get(page.as_uri())


def complaints(chrome: Chrome) -> list[str]:
    """The console's new lines: errors of scripts, of the content policy, of what did not load."""
    return [str(one["message"]) for one in chrome.get_log("browser")]


def requests(chrome: Chrome, page: Path) -> list[str]:
    """Each address that the page asked for, its own first."""
    events: list[dict[str, Any]] = [
        json.loads(one["message"])["message"] for one in chrome.get_log("performance")
    ]
    sent = [one["params"] for one in events if one["method"] == "Network.requestWillBeSent"]
    # The browser has pages of its own.
    ours = [one for one in sent if one["documentURL"] == page.as_uri()]
    return [str(one["request"]["url"]) for one in ours]
