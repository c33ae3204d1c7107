"""Debian's chromium, without a window: for tests of the dashboard and for its screenshots."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

PROGRAMS = ("chromium", "chromedriver")


def require_browser() -> None:
    """Skip the test where there is no browser; in CI there must be one."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        said = f"no {' and no '.join(missing)} here: apt-get install -y chromium chromium-driver"
        if os.environ.get("CI") == "true":
            pytest.fail(said)
        pytest.skip(said)


@contextmanager
def browser(
    width: int = 1440, height: int = 900, *, dark: bool = False, scale: float = 1.0
) -> Iterator[webdriver.Chrome]:
    """A browser of its own profile. `scale`: device pixels for each of the page's."""
    options = Options()
    options.binary_location = shutil.which("chromium") or "chromium"
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--hide-scrollbars",
        "--no-first-run",
        "--disable-background-networking",
        "--no-proxy-server",
        f"--force-device-scale-factor={scale}",
        f"--window-size={width},{height}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 600},
    )
    theme = {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", theme)
    try:
        yield driver
    finally:
        driver.quit()
