"""The page as people see it: opened by headless Chromium from a file, without a network."""

import shutil

import pytest
from tests.report import runs

from attar._src.report.page import build_page

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="Chromium and its driver are not installed: apt install chromium chromium-driver"
)

SWITCHES = (
    "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync --disable-default-apps "
    "--window-size=1280,1000"
)
PATIENCE = 20


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for switch in (*SWITCHES.split(), f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        # Whatever the page asks of a network fails, and is in the log.
        driver.execute_cdp_cmd("Network.enable", {})
        offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
        yield driver
    finally:
        driver.quit()
        driver.command_executor.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    return build_page(runs.demo(tmp_path_factory.mktemp("run"), collapsed=True)).as_uri()


@pytest.fixture
def page(browser, address):
    return opened(browser, address)


def opened(browser, address):
    """Open a page and wait for its plots."""
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(address)
    wait(browser, lambda: len(browser.find_elements(By.CSS_SELECTOR, ".plot .main-svg")) >= 5)
    return browser


def wait(browser, condition):
    WebDriverWait(browser, PATIENCE, poll_frequency=0.05).until(lambda _: condition())


def plot(browser, name):
    found = browser.find_element(By.CSS_SELECTOR, f"#plot-{name} .plot")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", found)
    return found


def data(browser, name):
    """Return what is drawn: the traces Plotly has."""
    script = "return arguments[0].data.map((trace) => ({name: trace.name, x: [...trace.x], visible: trace.visible}))"
    return browser.execute_script(script, plot(browser, name))


def test_it_opens_with_no_complaint_and_no_request(page):
    import json

    assert page.get_log("browser") == []
    sent = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = [each["params"]["request"]["url"] for each in sent if each["method"] == "Network.requestWillBeSent"]
    assert asked
    assert not [url[:80] for url in asked if not url.startswith(("file:", "data:", "blob:"))]


def test_the_table_and_the_verdict_are_there(page):
    rows = page.find_elements(By.CSS_SELECTOR, "#results tbody tr")
    assert [row.find_element(By.TAG_NAME, "th").text for row in rows] == ["teacher", "alone", "student"]
    assert "97.88 %" in rows[2].text
    assert "smaller" in page.find_element(By.CLASS_NAME, "verdict").text


def test_a_collapsed_class_is_seen_at_once(page):
    alarm = page.find_element(By.CLASS_NAME, "alarm")
    assert alarm.is_displayed()
    assert "student: lost class 8" in alarm.text
    assert alarm.rect["y"] < 1000


def test_a_point_tells_its_figures_when_pointed_at(page):
    where = """
        const plot = arguments[0], box = plot.getBoundingClientRect(), {xaxis, yaxis} = plot._fullLayout;
        const {x, y} = plot.data[2];
        return [box.left + xaxis._offset + xaxis.d2p(x[0]), box.top + yaxis._offset + yaxis.d2p(y[0])];
    """
    x, y = page.execute_script(where, plot(page, "trade"))
    for step in (-3, 0):
        page.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": x + step, "y": y})
    wait(page, lambda: page.find_elements(By.CSS_SELECTOR, "#plot-trade .hoverlayer .hovertext"))
    told = page.find_element(By.CSS_SELECTOR, "#plot-trade .hoverlayer").text
    assert "student" in told
    assert "accuracy: 97.88 %" in told


def test_another_file_shows_other_bytes(page):
    before = data(page, "bytes")
    alt = plot(page, "bytes").get_attribute("aria-label")
    Select(page.find_element(By.CSS_SELECTOR, "#plot-bytes select")).select_by_visible_text("teacher")
    wait(page, lambda: data(page, "bytes") != before)
    assert max(data(page, "bytes")[0]["x"]) > 100 * max(before[0]["x"])
    assert plot(page, "bytes").get_attribute("aria-label") != alt


def test_another_tensor_shows_another_histogram_and_stays_when_the_file_changes(page):
    file, tensor = (Select(found) for found in page.find_elements(By.CSS_SELECTOR, "#plot-weights select"))
    assert {trace["name"] for trace in data(page, "weights")} >= {"values", "points of the grid", "codes"}
    caption = page.find_element(By.CSS_SELECTOR, "#plot-weights figcaption")
    assert caption.text.startswith("16x1x3x3, 4 bits")
    tensor.select_by_visible_text("head.weight")
    wait(page, lambda: caption.text.startswith("10x128, 4 bits"))
    file.select_by_visible_text("alone")
    wait(page, lambda: "no grid" in caption.text)
    assert tensor.first_selected_option.text == "head.weight"
    assert "points of the grid" not in {trace["name"] for trace in data(page, "weights")}


def test_a_curve_is_drawn_when_its_name_in_the_legend_is_clicked(page):
    plot(page, "curves")
    assert {trace["name"]: trace["visible"] for trace in data(page, "curves")}["kl"] == "legendonly"
    toggles = page.find_elements(By.CSS_SELECTOR, "#plot-curves .legendtoggle")
    names = [each.text for each in page.find_elements(By.CSS_SELECTOR, "#plot-curves .legendtext")]
    toggles[names.index("kl")].click()
    wait(page, lambda: {trace["name"]: trace["visible"] for trace in data(page, "curves")}["kl"] is True)


def test_dark_and_light_have_colours_of_their_own(page):
    def colours():
        script = """
            const {_fullLayout, _fullData} = arguments[0];
            const paper = getComputedStyle(document.body).backgroundColor;
            return [paper, _fullLayout.font.color, _fullData[0].marker.color];
        """
        return page.execute_script(script, plot(page, "trade"))

    light = colours()
    try:
        dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
        wait(page, lambda: all(now != before for now, before in zip(colours(), light, strict=True)))
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    wait(page, lambda: colours() == light)


def test_nothing_is_wider_than_a_phone(page):
    size = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        wide = "return document.documentElement.scrollWidth"
        wait(page, lambda: page.execute_script(wide) <= 360)
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_on_paper_everything_is_unfolded_and_fits(page):
    folded = "return document.querySelectorAll('details:not([open])').length"
    widest = "return Math.max(...[...document.querySelectorAll('.plot')].map((plot) => plot._fullLayout.width))"
    before = page.execute_script(folded)
    assert before
    page.execute_script("dispatchEvent(new Event('beforeprint'))")
    wait(page, lambda: page.execute_script(widest) <= 680)
    assert page.execute_script(folded) == 0
    page.execute_script("dispatchEvent(new Event('afterprint'))")
    wait(page, lambda: page.execute_script(widest) > 680)
    assert page.execute_script(folded) == before


def test_hostile_names_run_nothing(browser, tmp_path):
    name = "</script><script>document.title='run'</script><img src=x onerror=\"document.title='run'\">"
    changes = {"name": name, "curves": [{"stage": name, "epoch": 1, "loss": 1.0}], "per_class": {name: 0.5}}
    folder = runs.small(tmp_path, models=[changes], shapes={name: (10, 8)}, baseline=name)
    page = opened(browser, build_page(folder).as_uri())
    assert page.title != "run"
    assert page.get_log("browser") == []
    assert name in page.find_element(By.TAG_NAME, "h1").text
    assert not page.find_elements(By.TAG_NAME, "img")
