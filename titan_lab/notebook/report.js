// Draws every figure of the page from the data beside it, in the page's own colours, and again when those change:
// when the reader's system turns dark or light, and for paper, which is always light.
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const config = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["lasso2d", "select2d"] };
  const paperWidth = 690; // pixels of an A4 page between its margins
  const places = [...document.querySelectorAll("figure.figure")].map((place) => ({
    place,
    figure: JSON.parse(place.querySelector("script").textContent),
  }));

  function colours(light) {
    return light
      ? { ink: "#1b2430", muted: "#5c6877", grid: "#e3e8ee", page: "#ffffff" }
      : { ink: "#e2e8ef", muted: "#97a4b4", grid: "#2b3542", page: "#19212b" };
  }

  const template = (layout) => ((layout || {}).template || {}).layout || {};

  // The figure's own choices stay on top: only its template, which is what it inherits from, is toned.
  function toned(layout, light) {
    const tone = colours(light);
    const inherited = { ...template(layout) };
    const axis = (given) => ({
      ...given, gridcolor: tone.grid, linecolor: tone.muted, zerolinecolor: tone.grid, tickcolor: tone.muted,
    });
    inherited.font = { ...inherited.font, color: tone.muted };
    inherited.title = { ...inherited.title, font: { ...((inherited.title || {}).font || {}), color: tone.ink } };
    inherited.paper_bgcolor = inherited.plot_bgcolor = "rgba(0,0,0,0)";
    inherited.xaxis = axis(inherited.xaxis);
    inherited.yaxis = axis(inherited.yaxis);
    inherited.hoverlabel = {
      ...inherited.hoverlabel, bgcolor: tone.page, bordercolor: tone.grid, font: { color: tone.ink },
    };
    inherited.modebar = { bgcolor: "rgba(0,0,0,0)", color: tone.muted, activecolor: tone.ink };
    return { ...layout, template: { ...(layout || {}).template, layout: inherited } };
  }

  function draw(light, width) {
    for (const { place, figure } of places) {
      const layout = toned(figure.layout, light);
      const room = width || place.clientWidth;
      if (room < 560) layout.height = (layout.height || template(layout).height || 450) + 18 * figure.data.length;
      if (width) Object.assign(layout, { width, autosize: false });
      Plotly.react(place, figure.data, layout, { ...config, ...figure.config });
    }
  }

  draw(!dark.matches);
  dark.addEventListener("change", () => draw(!dark.matches));
  addEventListener("beforeprint", () => draw(true, paperWidth));
  addEventListener("afterprint", () => draw(!dark.matches));
  document.documentElement.dataset.figures = String(places.length); // how many were drawn; tests wait for it
})();
