"""The real dashboard in a real browser, on a real chain: broker, live streams and relay. One start for all of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from pipelines.contracts import topics
from pipelines.io import kafka
from pipelines.io.delta import Tables
from tests.chain import send
from tests.conftest import free_port
from tests.dashboard_chain import APPROVER, READER, SCRIPT, SERIES, plant
from tests.e2e.browser import browser, require_browser
from tests.reconciler import read_table, read_topics

PUSHED_WITHIN = 2.0
"""Seconds from the commit of a decided order to its line in the browser."""
PATIENCE = 90.0
LINE = "article[data-order]"
PAGES = ("/", "/series", "/network", "/totals", "/forecasts", "/data", "/decisions", "/alerts")
WATCH = """
window.seen = {};
const note = () => document.querySelectorAll('article[data-order]').forEach(line => {
  if (!(line.dataset.order in window.seen)) window.seen[line.dataset.order] = Date.now();
});
new MutationObserver(note).observe(document.body, {childList: true, subtree: true, attributes: true});
note();
"""


@contextmanager
def process(chain, name, command, **environment):
    """A process of the chain, with its log in the home; ended in an orderly way."""
    log_path = chain.home_path / f"{name}.log"
    with log_path.open("ab") as log:
        started = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | environment)
    try:
        yield started, log_path
    finally:
        if started.poll() is None:
            started.send_signal(signal.SIGTERM)
        try:
            started.wait(60)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def until(condition, what, seconds=PATIENCE):
    """The condition's first true value."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(StaleElementReferenceException):
            if found := condition():
                return found
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


def overrides(chain, port):
    values = {
        "home": chain.home,
        "kafka.bootstrap_servers": chain.kafka.bootstrap_servers,
        "dashboard.port": port,
        "orders.approval_value": 0,
        "restock.snapshot_seconds": 1.0,
        "totals.trigger_seconds": 5.0,
    }
    return [part for name, value in values.items() for part in ("--set", f"{name}={value}")]


class Viewer:
    """Somebody at a browser."""

    def __init__(self, driver, address, token):
        self.driver, self.address = driver, address
        driver.get(f"{address}/")
        driver.find_element(By.ID, "token").send_keys(token, Keys.ENTER)
        until(lambda: "Needs a decision" in self.text, "the first page")
        driver.execute_script(WATCH)

    @property
    def text(self):
        return self.driver.find_element(By.TAG_NAME, "body").text

    def lines(self):
        return {line.get_attribute("data-order"): line for line in self.driver.find_elements(By.CSS_SELECTOR, LINE)}

    def seen_at(self, order_id):
        """When a line was first there, by the page's own clock; None before."""
        at = self.driver.execute_script("return window.seen[arguments[0]]", order_id)
        return None if at is None else at / 1000

    def button(self, order_id, name):
        line = self.lines()[order_id]
        return next(found for found in line.find_elements(By.TAG_NAME, "button") if found.text == name)

    def dialog_button(self, name):
        def find():
            buttons = self.driver.find_elements(By.CSS_SELECTOR, ".dialog button")
            return next((found for found in buttons if found.text == name and found.is_displayed()), None)

        return until(find, f"the button {name}", 20)

    def dialog_fields(self):
        return until(lambda: self.driver.find_elements(By.CSS_SELECTOR, ".dialog input"), "the dialog's fields", 20)

    def errors(self):
        """Errors in the browser's console."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


def sell_out(chain, series, event_id):
    """A count that leaves the shelf nearly empty: the stream decides an order."""
    event = {
        "event_id": event_id,
        "event_time": (datetime.now(UTC) - timedelta(seconds=1)).isoformat().replace("+00:00", "Z"),
        "location_id": series[0],
        "sku": series[1],
        "kind": "count",
        "quantity": 2,
    }
    send(chain.kafka.bootstrap_servers, [(topics.INVENTORY_MOVEMENTS, "|".join(series), json.dumps(event).encode())])


def proposal_of(chain, series):
    """The waiting order of a series, from the table: its id and when it was decided."""

    def find():
        with suppress(Exception):  # the table is made with the first order
            for _, row in read_table(chain.home_path, "gold/order_proposals").iterrows():
                order = json.loads(row.payload)
                if (order["location_id"], order["sku"]) == series:
                    return order["order_id"], row.decided_at.timestamp()
        return None

    return until(find, f"an order for {series}")


def position_of(chain, series):
    rows = read_table(chain.home_path, "gold/inventory_positions").set_index(["location_id", "sku"])
    return rows.loc[series] if series in rows.index else None


def released(chain):
    """Committed orders in Kafka, by id."""
    records = read_topics(chain.kafka.bootstrap_servers, topics.RESTOCK_ORDERS)
    return [json.loads(record.value) for record in records]


@pytest.mark.timeout(600)
def test_orders_are_seen_decided_and_leave(chain):
    require_browser()
    # given a chain that takes events in, with orders of any value waiting for a person, and its dashboard
    kafka.ensure_topics(chain)
    plant(Tables(chain))
    port = free_port()
    settings = overrides(chain, port)
    address = f"http://127.0.0.1:{port}"
    stockcast = [sys.executable, "-c", "from pipelines.operations.cli import main; main()", "dashboard", *settings]
    tokens = {"STOCKCAST__API__APPROVE_TOKEN": APPROVER, "STOCKCAST__API__READ_TOKEN": READER}
    with (
        process(chain, "live", [sys.executable, "jobs/live.py", *settings]) as (live, live_log),
        process(chain, "dashboard", stockcast, **tokens) as (dashboard, log),
    ):

        def answers():
            assert dashboard.poll() is None, log.read_text()[-2000:]
            with suppress(httpx.TransportError):
                return httpx.get(f"{address}/health", trust_env=False).status_code == 200
            return False

        until(answers, "the dashboard answers")
        with browser(1280, 900) as first, browser(390, 844) as second:
            anna, rita = Viewer(first, address, APPROVER), Viewer(second, address, READER)
            assert "Nothing waits for a decision" in anna.text
            until(lambda: live.poll() is None and "live: " in live_log.read_text(), "the streams run")
            _an_order_appears(chain, anna, rita)
            _approving_releases_it(chain, anna, rita)
            _rejecting_frees_it(chain, anna, rita)
            _another_quantity_is_released(chain, anna)
            _every_page_opens(anna, rita)
            _nothing_from_elsewhere(anna, address)
            assert rita.errors() == []
    assert APPROVER not in log.read_text()


def _an_order_appears(chain, anna, rita):
    # when the stream decides an order
    sell_out(chain, SERIES[0], "e-1")
    order_id, decided_at = proposal_of(chain, SERIES[0])
    # then its line is in both browsers without a reload
    for viewer in (anna, rita):
        shown_at = until(lambda viewer=viewer: viewer.seen_at(order_id), "the line", 20)
        assert shown_at - decided_at < PUSHED_WITHIN, f"{shown_at - decided_at:.2f} s after it was decided"
        print(f"in the browser {shown_at - decided_at:.2f} s after it was decided")
    # and a script in the product's name is text
    line = anna.lines()[order_id]
    assert SCRIPT in line.text
    assert line.find_elements(By.TAG_NAME, "script") == []
    assert anna.driver.title == "Now · Stockcast"
    # and who may only look cannot approve: there is no button, and the server refuses
    assert rita.lines()[order_id].find_elements(By.TAG_NAME, "button") == []
    headers = {"Authorization": f"Bearer {READER}", "Idempotency-Key": "rita-1"}
    refused = httpx.post(f"{anna.address}/v1/orders/{order_id}/approve", headers=headers, trust_env=False)
    assert refused.status_code == 403


def _approving_releases_it(chain, anna, rita):
    order_id, _ = proposal_of(chain, SERIES[0])
    assert released(chain) == []
    # when it is approved with the keyboard
    button = anna.button(order_id, "Approve")
    anna.driver.execute_script("arguments[0].focus()", button)
    anna.driver.switch_to.active_element.send_keys(Keys.ENTER)
    started = time.monotonic()
    # then it goes from everybody's page
    for viewer in (anna, rita):
        until(lambda viewer=viewer: order_id not in viewer.lines(), "the line goes", 20)
    print(f"gone from both pages {time.monotonic() - started:.2f} s after the key")
    # and leaves through the relay, once
    until(lambda: released(chain), "the order on restock.orders")
    (order,) = released(chain)
    assert order["order_id"] == order_id
    assert "approved by approver" in order["explanation"]


def _rejecting_frees_it(chain, anna, rita):
    sell_out(chain, SERIES[1], "e-2")
    order_id, _ = proposal_of(chain, SERIES[1])
    until(lambda: order_id in anna.lines(), "the line", 20)
    until(lambda: (row := position_of(chain, SERIES[1])) is not None and row.on_order > 0, "it counts as on order")
    # when it is rejected: first without a reason, which is not enough
    anna.button(order_id, "Reject").click()
    anna.dialog_button("Reject").click()
    until(lambda: "A reason is needed" in anna.text, "the reason is asked for", 20)
    anna.dialog_fields()[0].send_keys("closing <b>down</b>", Keys.ENTER)
    # then it goes, frees what it held, and is not released
    for viewer in (anna, rita):
        until(lambda viewer=viewer: order_id not in viewer.lines(), "the line goes", 20)
    until(lambda: position_of(chain, SERIES[1]).on_order == 0, "nothing is on order any more")
    audit = read_table(chain.home_path, "gold/order_audit").set_index("order_id")
    assert (audit.loc[order_id].action, audit.loc[order_id].reason) == ("reject", "closing <b>down</b>")
    assert [order["order_id"] for order in released(chain)] != [order_id]


def _another_quantity_is_released(chain, anna):
    sell_out(chain, SERIES[2], "e-3")
    order_id, _ = proposal_of(chain, SERIES[2])
    until(lambda: order_id in anna.lines(), "the line", 20)
    # when another quantity is approved
    anna.button(order_id, "Change").click()
    units = anna.dialog_fields()[0]
    units.send_keys(Keys.CONTROL, "a")
    units.send_keys("66")
    anna.dialog_button("Approve this quantity").click()

    # then that is what leaves
    def order():
        return next((found for found in released(chain) if found["order_id"] == order_id), None)

    assert until(order, "the changed order on restock.orders")["quantity"] == 66
    assert len(released(chain)) == 2


def _every_page_opens(anna, rita):
    """No page has an error in its console, and on a phone none is wider than the screen."""
    for path in (*PAGES, f"/series/{SERIES[0][0]}/{SERIES[0][1]}"):
        for viewer in (anna, rita):
            viewer.driver.get(f"{viewer.address}{path}")
        for viewer in (anna, rita):
            until(lambda viewer=viewer: viewer.driver.find_elements(By.CSS_SELECTOR, ".card, .stats"), path, 30)
        time.sleep(0.5)
        assert anna.driver.title.endswith("Stockcast")
        assert rita.driver.execute_script("return document.documentElement.scrollWidth") <= 390, path
    assert SCRIPT in until(lambda: SCRIPT in anna.text and anna.text, "the product's name", 20)
    assert anna.errors() == []


def _nothing_from_elsewhere(anna, address):
    """All that the page is made of came from this server."""
    sources = anna.driver.execute_script("return performance.getEntriesByType('resource').map(found => found.name)")
    assert len(sources) > 5
    assert [
        source for source in sources if not source.startswith((address, address.replace("http", "ws"), "data:"))
    ] == []
