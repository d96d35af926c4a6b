"""The pages in headless Chromium: navigation, contents, layout and colour schemes."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inventory.inventories import h100_node
from pluto_dist.inventory.records import RankGpu
from pluto_dist.inventory.report.document import compose
from pluto_dist.server import LocalServer
from server.conftest import Client

pytestmark = pytest.mark.browser
WAIT_S = 20

LOST = dataclasses.replace(h100_node("node-1", power_w={3: 600}, lost=(5,)), ranks=(RankGpu(8, 0), RankGpu(9, 6)))
METADATA = compose(
    {0: h100_node("node-0"), 1: LOST, 2: None}, owner_node=0, world_size=24, first_ranks={0: 0, 1: 8, 2: 16}
)
CONFIG = {"lr": 0.001, "model": {"name": "resnet-50", "layers": [3, 4, 6, 3]}, "amp": True, "note": "<b>plain</b>"}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        reason = "no chromium or no chromedriver on PATH: apt-get install chromium chromium-driver"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(programs[0])
    flags = ("headless", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking")
    for flag in (*flags, "disable-component-update", "disable-sync", "window-size=1280,1700"):
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=str(programs[1]))
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_page_load_timeout(WAIT_S)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def run(server: LocalServer) -> Iterator[dict[str, Any]]:
    client = Client(server)
    fields = {"config": json.dumps(CONFIG), "systemMetadata": json.dumps(METADATA), "tags": ["ddp", "h100"]}
    created = client.create_run("image-classification", "torchrun-42", runName="resnet on three nodes", **fields)
    client.create_run("image-classification", "torchrun-42")
    client.post("/api/runs/trigger", {"runId": created["runId"]})
    client.status(created["runId"], "FAILED")
    client.create_run("image-classification", "torchrun-42")
    client.status(created["runId"], "COMPLETED")
    client.create_run("digits", runName="mlp")
    yield created
    client.session.close()


def screenshot(browser: Any, name: str) -> None:
    folder = os.environ.get("PLUTO_DIST_SCREENSHOTS")
    if folder:
        browser.save_screenshot(str(Path(folder) / name))


def console_messages(browser: Any) -> list[str]:
    """The messages of the browser's console; blocked resources are among them."""
    return [entry["message"] for entry in browser.get_log("browser")]


def test_navigation_and_contents(browser: Any, server: LocalServer, run: dict[str, Any]) -> None:
    """Links lead from the index to the run, whose page shows status, nodes, drift, config and attaches."""
    browser.get(server.url + "/")
    screenshot(browser, "index.png")
    browser.find_element("link text", "image-classification").click()
    assert browser.current_url.endswith("/o/local-org/projects/image-classification")
    browser.find_element("link text", "resnet on three nodes").click()
    assert browser.current_url == run["url"]
    screenshot(browser, "run.png")

    assert browser.find_element("css selector", "h1").text == "resnet on three nodes"
    assert browser.find_element("css selector", ".title .id").text == "ICL-1"
    assert browser.find_element("css selector", ".title .pill").text == "COMPLETED"
    rows = browser.find_elements("css selector", "#nodes tbody tr")
    texts = [row.text for row in rows]
    assert len(texts) == 3
    assert "node-0" in texts[0]
    assert rows[0].find_element("css selector", "summary").text == "8 \u00d7 NVIDIA H100 80GB HBM3"
    assert "GpuIsLost" in texts[1]
    assert "600" in texts[1]
    assert "did not report" in texts[2]
    assert not rows[0].find_element("css selector", ".ids").is_displayed()
    rows[0].find_element("css selector", "summary").click()
    assert rows[0].find_element("css selector", ".ids").is_displayed()
    history = [item.text for item in browser.find_elements("css selector", "#history .pill")]
    assert history == ["RUNNING", "FAILED", "RUNNING", "COMPLETED"]
    drift = browser.find_element("id", "drift").text.splitlines()[1:]
    assert drift == ["node: node 2 missing", "gpu.lost: node-1 GPU 5 GpuIsLost", "gpu.power_limit_w: node-1 GPU 3 600"]
    rows[1].find_element("css selector", "summary").click()
    used = [each.text for each in rows[1].find_elements("css selector", ".ids li")]
    assert [each.rpartition(", ")[2] for each in used if "rank" in each] == ["rank 8", "rank 9"]
    assert used[5].endswith("c56, rank 9")  # GPU 6; GPU 5 is lost
    assert "<b>plain</b>" in browser.find_element("id", "config").text
    assert len(browser.find_elements("css selector", "#attaches tbody tr")) == 3
    assert console_messages(browser) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_layout_and_colours(browser: Any, run: dict[str, Any], scheme: str, width: int) -> None:
    """The page never scrolls horizontally, and text contrasts with the background in both colour schemes."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    metrics = {"width": width, "height": 1500, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        browser.get(run["url"])
        screenshot(browser, f"run-{scheme}-{width}.png")
        root = browser.find_element("css selector", "html")
        assert root.get_property("scrollWidth") <= width
        body = browser.find_element("css selector", "body")
        has_light_background = sum(_rgb(body.value_of_css_property("background-color"))) > 3 * 128
        assert has_light_background is (scheme == "light")
        has_light_text = sum(_rgb(body.value_of_css_property("color"))) > 3 * 128
        assert has_light_text is not has_light_background
        assert console_messages(browser) == []
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def _rgb(colour: str) -> list[float]:
    return [float(part) for part in colour.partition("(")[2].rstrip(")").split(",")[:3]]
