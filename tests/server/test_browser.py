"""The pages in a real browser: from the index over the project to the run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pluto_dist.server import LocalServer

from .conftest import Client

pytestmark = pytest.mark.browser
WAIT_S = 20

GPU = {
    "vendor": "nvidia",
    "count": 8,
    "name": "NVIDIA H100 80GB HBM3",
    "memory": 85899345920,
    "driver": "550.163.01",
    "cuda_driver": "12.4",
    "power_limit_w": 700,
    "nvlink": {"version": 4, "links": 18, "up": 18, "p2p": "all"},
}
METADATA = {
    "cluster": {
        "nodes": 3,
        "nodes_reported": 2,
        "world_size": 24,
        "gpus": 16,
        "gpus_bad": 1,
        "gpu_name": "NVIDIA H100 80GB HBM3",
        "driver": "550.163.01",
        "interconnect": "nvlink+ib",
        "classes": 1,
        "drift": ["node-1 GPU 3: power limit 600 W, elsewhere 700 W"],
    },
    "hosts": ["node-0", "node-1", "node-2"],
    "node_classes": [
        {
            "n": 2,
            "gpu": GPU,
            "cpu": {"model": "Intel Xeon Platinum 8480C", "physical": 112},
            "memory": {"total": 2199023255552},
            "nic": [{"name": f"mlx5_{n}", "layer": "InfiniBand", "rate_gbps": 400} for n in range(8)],
            "os": "Ubuntu 22.04",
            "python": "3.11.7",
            "torch": "2.4.0",
            "cuda": "12.4",
            "nccl": "2.20.5",
        }
    ],
    "nodes": [
        {"node": 0, "host": "node-0", "class": 0, "rank": 0, "gpus": [f"GPU-0{n}-ab12" for n in range(8)]},
        {
            "node": 1,
            "host": "node-1",
            "class": 0,
            "rank": 8,
            "gpus": [f"GPU-1{n}-cd34" for n in range(8)],
            "bad": {"5": "GpuIsLost"},
            "diff": {"gpu.power_limit_w": {"3": 600}},
        },
        {"node": 2, "missing": True},
    ],
}
CONFIG = {"lr": 0.001, "model": {"name": "resnet-50", "layers": [3, 4, 6, 3]}, "amp": True, "note": "<b>plain</b>"}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        why = "no chromium or no chromedriver on PATH: apt-get install chromium chromium-driver"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
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
    one = Client(server)
    fields = {"config": json.dumps(CONFIG), "systemMetadata": json.dumps(METADATA), "tags": ["ddp", "h100"]}
    made = one.made("image-classification", "torchrun-42", runName="resnet on three nodes", **fields)
    one.made("image-classification", "torchrun-42")
    one.post("/api/runs/trigger", {"runId": made["runId"]})
    one.status(made["runId"], "FAILED")
    one.made("image-classification", "torchrun-42")
    one.status(made["runId"], "COMPLETED")
    one.made("digits", runName="mlp")
    yield made
    one.session.close()


def screenshot(browser: Any, name: str) -> None:
    folder = os.environ.get("PLUTO_DIST_SCREENSHOTS")
    if folder:
        browser.save_screenshot(str(Path(folder) / name))


def complaints(browser: Any) -> list[str]:
    """What the browser's console says, refused resources included."""
    return [entry["message"] for entry in browser.get_log("browser")]


def test_from_the_index_to_the_run(browser: Any, server: LocalServer, run: dict[str, Any]) -> None:
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
    assert "power limit 600 W" in browser.find_element("id", "drift").text
    assert "<b>plain</b>" in browser.find_element("id", "config").text
    assert len(browser.find_elements("css selector", "#attaches tbody tr")) == 3
    assert complaints(browser) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_and_can_be_read(browser: Any, run: dict[str, Any], scheme: str, width: int) -> None:
    """No sideways scrolling of the page in a narrow window, and text stands out in both colour schemes."""
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
        light = sum(_rgb(body.value_of_css_property("background-color"))) > 3 * 128
        assert light is (scheme == "light")
        ink = sum(_rgb(body.value_of_css_property("color"))) > 3 * 128
        assert ink is not light
        assert complaints(browser) == []
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def _rgb(colour: str) -> list[float]:
    return [float(part) for part in colour.partition("(")[2].rstrip(")").split(",")[:3]]
