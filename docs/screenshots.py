"""Pictures of every page of the dashboard, taken from the real one on a home: `make screenshots`.

The home is that of the settings (STOCKCAST_HOME); `make live`, ended with Ctrl-C, leaves a good one behind.
"""

from __future__ import annotations

import base64
import io
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from PIL import Image
from selenium.webdriver.common.by import By

from pipelines.contracts.tables import INVENTORY_POSITIONS
from pipelines.io.delta import Tables
from pipelines.operations import broker
from pipelines.operations.cli.dashboard import dashboard_process
from pipelines.operations.settings import Settings, load_settings
from tests.conftest import free_port
from tests.e2e.browser import browser

FOLDER = Path(__file__).parent / "images"
PAGES = {"now": "/", "series": "/series", "network": "/network", "totals": "/totals", "forecasts": "/forecasts"}
PAGES |= {"data": "/data", "decisions": "/decisions", "alerts": "/alerts"}
LOOKS = {
    "": {"width": 1280, "height": 860},
    "-dark": {"width": 1280, "height": 860, "dark": True},
    "-phone": {"width": 390, "height": 844},
}
IN_DARK = {"now", "one-series"}
ON_PHONE = {"now", "one-series"}
TALL = {"one-series": 1240}
COLOURS, SMALL = 256, 600
"""A picture up to this width keeps all its colours: thin lines would lose theirs."""
SETTLED_SECONDS = 2.0
PATIENCE_SECONDS = 60.0


def busiest_series(tables: Tables) -> str:
    """The page of the series with the most on order: there is something to see."""
    rows = tables.read(INVENTORY_POSITIONS, ("location_id", "sku", "on_order")).sort_by([("on_order", "descending")])
    if rows.num_rows == 0:
        sys.exit("there are no series in this home; run `make live` or `make demo` first")
    first = rows.slice(0, 1).to_pylist()[0]
    return f"/series/{first['location_id']}/{first['sku']}"


def settle(driver) -> None:
    """Until the page has its content and its figures have been drawn."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        text = driver.find_element(By.TAG_NAME, "body").text
        if driver.find_elements(By.CSS_SELECTOR, ".card") and " ..." not in text:
            break
        time.sleep(0.2)
    time.sleep(SETTLED_SECONDS)


def take(driver, name: str, look: dict) -> None:
    """A picture of the window, or of a taller piece of the page, in few colours."""
    height = max(look["height"], TALL.get(name.split("-dark", maxsplit=1)[0], 0))
    clip = {"x": 0, "y": 0, "width": look["width"], "height": height, "scale": 1}
    shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})["data"]
    picture: Image.Image = Image.open(io.BytesIO(base64.b64decode(shot))).convert("RGB")
    path = FOLDER / f"{name}.png"
    if look["width"] > SMALL:
        picture = picture.quantize(COLOURS, kmeans=1, dither=Image.Dither.NONE)
    picture.save(path, optimize=True)
    sys.stdout.write(f"{path.relative_to(Path.cwd())}  {path.stat().st_size / 1000:.0f} kB\n")


@contextmanager
def home_broker(settings: Settings) -> Iterator[None]:
    """The home's own broker, where it has one that does not run."""
    started = (settings.home_path / "broker").is_dir() and not broker.answers(settings)
    if started:
        broker.start(settings)
    try:
        yield
    finally:
        if started:
            broker.stop(settings)


def main() -> None:
    """Take them all."""
    FOLDER.mkdir(exist_ok=True)
    overrides = [f"dashboard.port={free_port()}", *sys.argv[1:]]
    settings = load_settings(overrides=overrides)
    pages = {**PAGES, "one-series": busiest_series(Tables(settings))}
    with ExitStack() as stack:
        stack.enter_context(home_broker(settings))
        address = stack.enter_context(dashboard_process(settings, (), overrides))
        for suffix, look in LOOKS.items():
            with browser(**look) as driver:
                for name, path in pages.items():
                    if (suffix == "-dark" and name not in IN_DARK) or (suffix == "-phone" and name not in ON_PHONE):
                        continue
                    driver.get(address + path)
                    settle(driver)
                    take(driver, name + suffix, look)


if __name__ == "__main__":
    main()
