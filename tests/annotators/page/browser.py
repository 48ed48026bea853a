"""A browser without a window, in which the page's own script runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest


def find_browser():
    """(browser, driver), or a skipped test that says what is missing."""
    pytest.importorskip("selenium")
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("no Chromium with its chromedriver on this machine")
    return browser, driver


class Browser:
    """Chromium with one page open."""

    def __init__(self) -> None:
        binary, driver = find_browser()
        from selenium import webdriver

        options = webdriver.ChromeOptions()
        options.binary_location = binary
        for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        self.run, self.later = self.driver.execute_script, self.driver.execute_async_script

    def open(self, file: Path, state: str = "") -> None:
        from selenium.webdriver.support.wait import WebDriverWait

        self.driver.get("about:blank")
        self.driver.get(f"{file.as_uri()}#{state}")
        ready = "return location.protocol === 'file:' && document.body?.dataset.shown === 'yes'"
        WebDriverWait(self.driver, 30).until(lambda driver: driver.execute_script(ready))

    def look(self, *, width: int = 1280, dark: bool = False) -> None:
        """How wide the window is, and the scheme of colours."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.drawn()

    def drawn(self) -> None:
        """Wait until everything is drawn."""
        self.later("const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()))")

    def choose(self, **values: object) -> None:
        """Put values into the fields of the form, as somebody who types does."""
        self.run(
            """for (const [name, value] of Object.entries(arguments[0])) {
                 const field = document.getElementById("controls").elements[name];
                 field.value = value;
                 field.dispatchEvent(new Event("input", { bubbles: true }));
               }""",
            values,
        )

    def table(self, body: str) -> dict[str, list[str]]:
        """Rows of a table: what each is of → its cells."""
        return self.run(
            """return Object.fromEntries([...document.getElementById(arguments[0]).rows].map((row) =>
                 [Object.values(row.dataset)[0], [...row.cells].map((cell) => cell.textContent)]))""",
            body,
        )

    def errors(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Addresses of everything that the page asked for so far."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
