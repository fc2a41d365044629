"""The page of `builder report` in a real browser, of a synthetic month."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from builder.release import report
from tests.browser.chromium import DESK, PHONE, complaints, requests, show, started
from tests.support import synthetic_record

OVERFLOW = """
return [...document.querySelectorAll("body *")]
  .filter(one => one.getBoundingClientRect().right > innerWidth + 0.5)
  .map(one => one.outerHTML.slice(0, 200))
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("record")
    synthetic_record.write(folder)
    return report.write(folder, folder, note=synthetic_record.NOTE)[0]


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with started(tmp_path_factory.mktemp("profile")) as chrome:
        yield chrome


@pytest.fixture
def phone(chrome: Chrome, page: Path) -> Chrome:
    """The page on a phone, all its evidence open."""
    show(chrome, page, PHONE)
    chrome.execute_script("document.querySelectorAll('details').forEach(e => e.open = true)")
    return chrome


def test_the_console_stays_empty_and_nothing_is_asked_of_anybody(phone: Chrome, page: Path):
    assert complaints(phone) == []
    asked = {one for one in requests(phone, page) if not one.startswith("data:")}
    assert asked == {page.as_uri()}


def test_a_phone_never_scrolls_sideways_with_all_evidence_open(phone: Chrome):
    assert phone.execute_script("return document.documentElement.scrollWidth") <= PHONE[0]
    assert phone.execute_script(OVERFLOW) == []


def test_each_plot_and_strip_has_a_mark_a_night(phone: Chrome):
    drawings = phone.find_elements(By.CSS_SELECTOR, ".variant svg")
    marks = [len(one.find_elements(By.CSS_SELECTOR, ".night, .day")) for one in drawings]
    assert marks == [synthetic_record.NIGHTS] * (5 * len(synthetic_record.VARIANTS))


def test_every_mark_lies_inside_its_drawing(phone: Chrome):
    outside = phone.execute_script(
        """
        return [...document.querySelectorAll(".variant svg")].flatMap(svg => {
          const box = svg.getBoundingClientRect();
          return [...svg.querySelectorAll(".night, .day, text")].filter(one => {
            const mark = one.getBoundingClientRect();
            return mark.left < box.left - 1 || mark.right > box.right + 1
              || mark.top < box.top - 1 || mark.bottom > box.bottom + 1;
          }).map(one => one.outerHTML);
        })
        """
    )
    assert outside == []


def test_a_tap_selects_a_whole_digest(phone: Chrome):
    digest = phone.find_element(By.CSS_SELECTOR, ".card .copy")
    phone.execute_script("arguments[0].scrollIntoView({block: 'center'})", digest)
    digest.click()
    selected = phone.execute_script("return getSelection().toString()")
    newest = synthetic_record.promoted(synthetic_record.VARIANTS[0])[0]
    assert selected == newest.digest


def test_it_is_dark_where_that_is_asked_for_and_every_text_can_be_read(chrome: Chrome, page: Path):
    show(chrome, page, DESK, dark=True)
    assert _darkness(chrome) == "rgb(13, 17, 23)"
    assert chrome.execute_script(_CONTRASTS) == []


def test_every_text_can_be_read_in_the_light(phone: Chrome):
    assert _darkness(phone) == "rgb(255, 255, 255)"
    assert phone.execute_script(_CONTRASTS) == []


def test_hostile_words_are_shown_and_do_nothing(chrome: Chrome, tmp_path: Path):
    synthetic_record.write_hostile(tmp_path)
    page, _ = report.write(tmp_path, tmp_path)
    show(chrome, page, PHONE)
    assert chrome.title.startswith("</style></title><script>")
    assert complaints(chrome) == []
    assert chrome.find_elements(By.CSS_SELECTOR, "script, img") == []
    assert chrome.execute_script("return document.documentElement.scrollWidth") <= PHONE[0]


def _darkness(chrome: Chrome) -> str:
    body = chrome.find_element(By.TAG_NAME, "body")
    return body.value_of_css_property("background-color").replace("a(", "(").replace(", 1)", ")")


# The contrast of WCAG 2: (lighter + 0.05) / (darker + 0.05) of the relative luminances; 4.5 is AA.
_CONTRASTS = """
const light = rgb => {
  const [r, g, b] = rgb.match(/[\\d.]+/g).map(Number)
    .map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = one => {
  const back = getComputedStyle(one).backgroundColor;
  return back !== "rgba(0, 0, 0, 0)" ? back : behind(one.parentElement);
};
return [...document.querySelectorAll("body *:not(svg *)")]
  .filter(one => [...one.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
  .map(one => [one.outerHTML.slice(0, 120), getComputedStyle(one).color, behind(one)])
  .filter(([, front, back]) => {
    const [a, b] = [light(front), light(back)].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05) < 4.5;
  })
"""
