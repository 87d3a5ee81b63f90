// Draws the scrubbers of a report, each from the data beside it; it stands behind scrubber.js in one module.
for (const place of document.querySelectorAll("div.scrubber")) {
  draw(place, JSON.parse(place.querySelector("script").textContent));
}
document.documentElement.dataset.scrubbers = "drawn"; // tests wait for it
