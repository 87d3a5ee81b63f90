"""The scrubber's script in a real browser, with a model that only remembers what it was told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import nbformat
import polars as pl
import pytest

import titan_lab as tl
from titan_lab.notebook import widget
from titan_lab.notebook.export import report
from titan_lab.testing.histories import START

ORDER = "550e8400-e29b-41d4-a716-446655440000"
NASTY = "<script>window.taken = 1</script><img src=x onerror='window.taken = 1'>"
CHROMIUM = next(
    (p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="NOT PROVEN HERE: no Chromium to draw it with (apt install chromium)"
)
DRAW = """async ([script, style, data]) => {
  const sheet = document.createElement("style");
  sheet.textContent = style;
  document.head.replaceChildren(sheet);
  const place = document.createElement("div");
  document.body.replaceChildren(place);
  window.told = [];
  const model = {
    get: (name) => ({ data })[name],
    set: (name, value) => window.told.push([name, value]),
    save_changes: () => window.told.push("saved"),
    on() {}, off() {},
  };
  const url = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  (await import(url)).default.render({ model, el: place });
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip(
        "playwright.sync_api",
        reason="NOT PROVEN HERE: no playwright to drive a browser (pip install playwright)",
    )
    with api.sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield made
        made.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """An empty page that must ask nobody for anything, and on which no script may fail."""
    made = browser.new_page(viewport={"width": 1000, "height": 900})
    wrong: list[str] = []
    made.on("pageerror", lambda error: wrong.append(str(error)))
    made.on("request", lambda asked: wrong.append(asked.url) if asked.url.startswith("http") else None)
    made.goto("about:blank")
    yield made
    made.close()
    assert wrong == []


def draw(page: Any, scrubber: Any, script: str = "") -> Any:
    page.evaluate(DRAW, [script or widget.module(), widget.style(), scrubber.widget.data])
    return page.get_by_role("slider")


def sample() -> Any:
    return tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)


def book_of(
    *payloads: dict[str, Any], kind: str = "OrderShipped", gap: timedelta = timedelta(hours=1)
) -> Any:
    rows = [
        {
            "aggregate_id": "a",
            "event_type": kind,
            "payload": json.dumps(payload),
            "timestamp": START + n * gap,
        }
        for n, payload in enumerate(payloads)
    ]
    return tl.from_frame(pl.DataFrame(rows)).fold(tl.Order)


def state(page: Any) -> dict[str, str]:
    """The table of the state, as a reader sees it."""
    lines = page.locator(".ts-state > tbody > tr").all()
    return {one.locator("th").first.inner_text(): one.locator("td").first.inner_text() for one in lines}


def changed(page: Any) -> list[str]:
    return page.locator(".ts-state > tbody > tr.ts-changed > th").all_inner_texts()


def test_it_shows_the_last_state_first_and_the_event_beside_it(page: Any) -> None:
    """As the story has them."""
    slider = draw(page, sample()[ORDER].scrub())

    assert slider.get_attribute("aria-valuetext") == "2025-01-20 08:30:00Z, event 11 of 11, RefundIssued"
    assert state(page)["refunded"] == "69.90 → 79.90"
    assert state(page)["status"] == "DELIVERED"
    assert page.locator(".ts-event h4").inner_text() == "RefundIssued"
    assert "goodwill" in page.locator(".ts-event").inner_text()


def test_every_state_is_the_one_that_the_story_has(page: Any) -> None:
    """From the first event to the last, by the arrow key."""
    story = sample()[ORDER]
    slider = draw(page, story.scrub())
    slider.press("Home")
    for version in range(1, len(story) + 1):
        expected = story.at(version=version)
        shown = state(page)
        assert shown["status"].split(" → ")[-1] == expected.status
        assert shown["total"].split(" → ")[-1] == f"{expected.total:,}"
        assert slider.get_attribute("aria-valuetext").split(", ")[1] == f"event {version} of 11"
        slider.press("ArrowRight")


@pytest.mark.parametrize(
    ("keys", "place"),
    [
        (["Home"], 1),
        (["Home", "End"], 11),
        (["ArrowLeft"], 10),
        (["ArrowDown", "ArrowDown"], 9),
        (["Home", "ArrowRight"], 2),
        (["Home", "ArrowUp", "ArrowUp"], 3),
        (["PageUp"], 10),
        (["Home", "PageDown"], 2),
        (["Home", "ArrowLeft"], 1),
        (["ArrowRight"], 11),
        (["Home", "Shift+ArrowRight"], 2),
    ],
)
def test_it_can_be_used_by_keyboard(page: Any, keys: list[str], place: int) -> None:
    """First, last, previous, next; and never beyond the ends."""
    slider = draw(page, sample()[ORDER].scrub())
    for key in keys:
        slider.press(key)

    assert slider.input_value() == str(place)
    assert page.locator(".titan-scrub").get_attribute("data-place") == str(place)


def test_escape_leaves_it_and_the_notebook_does_not_take_its_keys(page: Any) -> None:
    """JupyterLab looks for the attribute on the input itself, nowhere else."""
    slider = draw(page, sample()[ORDER].scrub())
    slider.focus()
    assert page.evaluate("document.activeElement.type") == "range"
    slider.press("Escape")

    assert page.evaluate("document.activeElement === document.body")
    assert slider.get_attribute("data-lm-suppress-shortcuts") == "true"
    assert ORDER in slider.get_attribute("aria-label")


def test_changed_fields_are_marked_with_what_they_were(page: Any) -> None:
    """And only they; what is new in a list stands out in it."""
    slider = draw(page, sample()[ORDER].scrub())
    for key in ("Home", "ArrowRight", "ArrowRight"):
        slider.press(key)

    assert changed(page) == ["items", "total"]
    assert state(page)["total"] == "999.00 → 1,018.90"
    assert page.locator(".ts-state .ts-fresh").all_inner_texts() == ["usb-c-cable\t1\t19.90"]
    assert page.locator(".ts-state del").all_inner_texts() == ["999.00"]


def test_causes_lead_to_each_other(page: Any) -> None:
    """Event 3 led to event 4, and the way back."""
    slider = draw(page, sample()[ORDER].scrub())
    for key in ("Home", "ArrowRight", "ArrowRight"):
        slider.press(key)
    page.get_by_role("button", name="PaymentAuthorized (4)").click()
    assert slider.input_value() == "4"
    page.get_by_role("button", name="OrderModified (3)").click()
    assert slider.input_value() == "3"


def test_the_pointer_goes_to_the_instants_between_events(page: Any) -> None:
    """Halfway from the first event to the second, the first one's state still holds."""
    slider = draw(page, book_of({"tracking": "A"}, {"tracking": "B"})["a"].scrub())
    box = page.locator("svg.ts-drawing").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + 10)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 10)

    assert slider.input_value() == "1"
    assert slider.get_attribute("aria-valuetext").endswith("after event 1 of 2, OrderShipped")
    assert page.locator(".ts-where b").inner_text().startswith("2025-01-01 00:30:")
    page.mouse.move(box["x"] + box["width"] - 1, box["y"] + 10)
    page.mouse.up()
    assert state(page)["tracking"] == "A → B"
    assert page.evaluate("told.at(-2)") == ["place", 2]


def test_the_kernel_hears_of_it_when_the_slider_is_let_go(page: Any) -> None:
    """Not while it moves; and nothing waits for an answer."""
    slider = draw(page, sample()[ORDER].scrub())
    page.evaluate("""() => { const input = document.querySelector("input[type=range]");
        for (const value of [2, 3, 4]) { input.value = value; input.dispatchEvent(new Event("input")); } }""")
    assert page.evaluate("told") == []
    slider.evaluate("input => input.dispatchEvent(new Event('change'))")
    assert page.evaluate("told") == [["place", 4], "saved"]


def test_a_payload_stays_text_wherever_it_is_shown(page: Any) -> None:
    """In values, names of fields, types, metadata and causes: no tag comes to life."""
    payloads = [{"tracking": NASTY, NASTY: NASTY, "items": [{NASTY: NASTY}]}, {"tracking": "B"}]
    rows = [
        {
            "aggregate_id": NASTY,
            "event_type": kind,
            "payload": json.dumps(payload),
            "metadata": json.dumps({"correlation_id": NASTY, "causation_id": NASTY, NASTY: [NASTY]}),
            "timestamp": START + timedelta(hours=n),
        }
        for n, (kind, payload) in enumerate(zip(["OrderShipped", NASTY], payloads, strict=True))
    ]
    book = tl.from_frame(pl.DataFrame(rows)).fold(tl.Order)
    slider = draw(page, book[NASTY].scrub())
    slider.press("Home")

    assert state(page)["tracking"] == NASTY
    assert page.locator(".titan-scrub :is(script, img)").count() == 0
    slider.press("End")
    assert page.locator(".ts-event h4").inner_text() == NASTY
    assert page.evaluate("window.taken") is None


def test_planted_text_that_is_taken_for_markup_is_noticed(page: Any) -> None:
    """The bug that the test before must see: one word of the script, another one."""
    story = book_of({"tracking": NASTY}, kind="OrderShipped")["a"]
    draw(page, story.scrub(), widget.module().replace("textContent", "innerHTML"))

    assert page.locator(".titan-scrub :is(script, img)").count() > 0


def test_ten_thousand_events_are_a_handful_of_nodes(page: Any) -> None:
    """Ticks are one path, and the slider is one input; the last event is still found."""
    story = book_of(
        *({"amount": f"{n}.50"} for n in range(10_000)), kind="RefundIssued", gap=timedelta(minutes=7)
    )["a"]
    slider = draw(page, story.scrub())

    assert page.evaluate("document.querySelectorAll('*').length") < 250
    slider.press("Home")
    assert state(page)["refunded"] == "0.00 → 0.50"
    slider.fill("5000")
    assert slider.get_attribute("aria-valuetext").endswith("event 5,000 of 10,000, RefundIssued")
    assert state(page)["refunded"].endswith(f"{sum(range(5000)) + 2500:,}.00")


def test_a_whole_book_is_dragged_from_instant_to_instant(page: Any) -> None:
    """Counts and money of each status at the instant, with a bar each."""
    book = sample()
    slider = draw(page, book.scrub(step="1d", since="2025-01-14", until="2025-01-16"))
    slider.press("Home")
    slider.press("ArrowRight")

    grid = book.every("1d", "2025-01-15", "2025-01-15", measure="total")
    lines = page.locator(".ts-bars tbody tr").all()
    assert [
        (one.locator("th").inner_text(), *one.locator(".ts-number").all_inner_texts()) for one in lines
    ] == [(row["status"], f"{row['count']:,}", f"{row['total']:,}") for row in grid.iter_rows(named=True)]
    assert slider.get_attribute("aria-valuetext").startswith("2025-01-15 00:00:00Z, 186 in all")


def test_a_book_without_events_says_so(page: Any) -> None:
    """No slider, and no error."""
    draw(page, tl.from_frame(pl.DataFrame(schema=tl.open("memory://").read().schema)).fold(tl.Order).scrub())
    assert "no events" in page.locator(".titan-scrub").inner_text()


def test_a_report_can_be_scrubbed_with_the_network_closed_and_by_no_other_script(
    browser: Any, tmp_path: Any
) -> None:
    """Its own policy lets run what it names; the table is there where scripts are off."""
    data = sample()[ORDER].scrub()._repr_mimebundle_()
    outputs = [nbformat.v4.new_output("display_data", data=data)] * 2
    smuggled = nbformat.v4.new_output("display_data", data={"text/html": f"<b>{NASTY}</b>"})
    cells = [nbformat.v4.new_code_cell("x", outputs=[*outputs, smuggled])]
    file = tmp_path / "report.html"
    file.write_text(report(nbformat.v4.new_notebook(cells=cells)), "utf-8")
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda one: asked.append(one.url))
    page.goto(file.as_uri())
    page.wait_for_selector(".titan-scrub")
    page.get_by_role("slider").last.press("Home")

    assert page.locator(".titan-scrub").count() == 2
    assert "event 1 of 11" in page.locator(".ts-where").last.inner_text()
    assert page.evaluate("window.taken") is None
    assert [one for one in asked if not one.startswith("file:")] == []
    silent = browser.new_context(java_script_enabled=False).new_page()
    silent.goto(file.as_uri())
    assert silent.get_by_text("OrderCorrected").count() == 2


def test_what_nbconvert_exports_can_be_scrubbed(browser: Any, tmp_path: Any) -> None:
    """Also where a notebook brings the same script twice: each place is drawn once."""
    from nbconvert import HTMLExporter

    outputs = [
        nbformat.v4.new_output("display_data", data=made._repr_mimebundle_())
        for made in (sample()[ORDER].scrub(), sample().scrub(step="1w"))
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x", outputs=outputs)])
    body, _ = HTMLExporter(template_name="basic").from_notebook_node(notebook)
    file = tmp_path / "page.html"
    file.write_text(f"<!DOCTYPE html><meta charset='utf-8'>{body}", "utf-8")
    page = browser.new_page()
    page.goto(file.as_uri())
    page.get_by_role("slider").first.press("ArrowLeft")

    assert page.locator(".titan-scrub").count() == 2
    assert "event 10 of 11" in page.locator(".ts-where").first.inner_text()
