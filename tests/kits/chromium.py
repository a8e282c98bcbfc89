"""Chromium without a window, driven by Selenium: pages are judged as a browser shows them."""

from __future__ import annotations

import base64
import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from PIL import Image

from volfs.testing.waiting import PATIENCE, until

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--force-device-scale-factor=1",
)


class Chromium:
    """One browser. ``driver`` is Selenium's."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def go(self, url: str, ready: str) -> None:
        """Show an address from nothing, until an element that a selector names is there."""
        self.driver.get("about:blank")
        self.driver.get(url)
        self.wait(ready)

    def ask(self, script: str, *given: Any) -> Any:
        return self.driver.execute_script(script, *given)

    def ask_later(self, script: str, *given: Any) -> Any:
        """The answer of a script that calls its last argument with it."""
        return self.driver.execute_async_script(script, *given)

    def wait(self, selector: str) -> None:
        until(
            lambda: bool(self.ask("return document.querySelector(arguments[0]) !== null", selector)),
            lambda: f"{selector} in {self.driver.current_url}, which says {self.text('body')}",
        )

    def wait_for(self, condition: Callable[[], bool]) -> None:
        until(condition)

    def text(self, selector: str) -> str:
        return str(self.ask("return document.querySelector(arguments[0]).innerText", selector))

    def press(self, *keys: str) -> None:
        """Keys, to whatever has the focus."""
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)

    def focused(self) -> str:
        """What has the focus, in words: its label, or its text."""
        return str(
            self.ask(
                "const e = document.activeElement;"
                "return e.getAttribute('aria-label') ?? e.innerText ?? e.labels?.[0]?.innerText ?? e.tagName"
            )
        )

    def canvas(self, selector: str) -> np.ndarray:
        """The pixels of a canvas, shape (rows, columns, 3)."""
        data = self.ask("return document.querySelector(arguments[0]).toDataURL('image/png')", selector)
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2]))).convert("RGB"))

    def resize(self, width: int, height: int) -> None:
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )

    def complaints(self) -> list[str]:
        """What the browser has complained of since it was last asked: broken rules, errors of scripts, files not
        there."""
        found = self.driver.get_log("browser")
        return [entry["message"] for entry in found if entry["level"] == "SEVERE" and "favicon" not in entry["message"]]


@contextmanager
def chromium(*flags: str, size: tuple[int, int] = (1280, 900)) -> Iterator[Chromium]:
    """A browser that ends with the block."""
    webdriver = pytest.importorskip("selenium.webdriver")
    for program in ("chromium", "chromedriver"):
        if shutil.which(program) is None:
            pytest.fail(f"{program} is missing: apt-get install chromium chromium-driver (make test does)", False)
    options = webdriver.ChromeOptions()
    for flag in (*FLAGS, *flags):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # The driver is here: Selenium need not look for one.
    service = webdriver.ChromeService(shutil.which("chromedriver"), env={**os.environ, "SE_OFFLINE": "true"})
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_script_timeout(PATIENCE)
    try:
        browser = Chromium(driver)
        browser.resize(*size)
        yield browser
    finally:
        driver.quit()
