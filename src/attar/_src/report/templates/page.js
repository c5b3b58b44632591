"use strict";

// Draws the plots of the page and their selectors. Figures are JSON; their colours are names of variables of the style
// sheet, so that light pages, dark pages and prints show the same figure.
(() => {
  const plots = JSON.parse(document.getElementById("figures").textContent);
  const narrow = () => document.documentElement.clientWidth < 640;
  // Only buttons that work locally: others of Plotly would upload the figure.
  const buttons = [["zoomIn2d", "zoomOut2d", "resetScale2d", "toImage"]];
  const config = { responsive: true, displaylogo: false, displayModeBar: narrow() ? false : "hover", modeBarButtons: buttons };

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function painted(value) {
    if (typeof value === "string") return value.startsWith("--series-") || value === "--muted" || value === "--alarm" ? colour(value) : value;
    if (Array.isArray(value)) return value.map(painted);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, painted(item)]));
  }

  // Names on an axis are escaped for Plotly, which interprets tags; a phone has room for their ends only.
  function cut(written) {
    const plain = written.replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&");
    if (plain.length <= 24) return written;
    const ends = `${plain.slice(0, 17)}…${plain.slice(-6)}`;
    return ends.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  }

  function dressed(given) {
    const layout = painted(given);
    for (const key of Object.keys(layout).filter((key) => /^[xy]axis\d*$/.test(key))) {
      layout[key] = { gridcolor: colour("--line"), linecolor: colour("--muted"), zerolinecolor: colour("--line"), ...layout[key] };
      layout[key].automargin = true;
      layout[key].title = { ...layout[key].title, standoff: 8, font: { size: narrow() ? 12 : 14 } };
      if (narrow() && layout[key].ticktext) layout[key].ticktext = layout[key].ticktext.map(cut);
    }
    return {
      ...layout,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: narrow() ? 12 : 13, color: colour("--ink") },
      hoverlabel: { bgcolor: colour("--panel"), bordercolor: colour("--muted"), font: { color: colour("--ink") }, align: "left" },
      legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", ...layout.legend },
      margin: { l: narrow() ? 48 : 64, r: 16, t: layout.showlegend === false ? 24 : 64, b: 56 },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("--muted"), activecolor: colour("--ink") },
      dragmode: narrow() ? false : "zoom",
    };
  }

  class Place {
    constructor(name, { levels, figures }) {
      const root = document.getElementById(`plot-${name}`);
      this.figures = figures;
      this.plot = root.querySelector(".plot");
      this.caption = root.querySelector("figcaption");
      this.selects = levels.map((level) => {
        const label = document.createElement("label");
        const select = document.createElement("select");
        label.append(level, select);
        root.querySelector(".choices").append(label);
        select.addEventListener("change", () => { this.fill(); this.draw(); });
        return select;
      });
      this.fill();
    }

    // The options of a level depend on the choices before it; a choice is kept if possible.
    fill() {
      let left = this.figures;
      this.selects.forEach((select, level) => {
        const before = select.value;
        const options = [...new Set(left.map((figure) => figure.labels[level]))];
        select.replaceChildren(...options.map((option) => new Option(option, option)));
        select.value = options.includes(before) ? before : options[0];
        select.disabled = options.length < 2;
        left = left.filter((figure) => figure.labels[level] === select.value);
      });
      this.figure = left[0];
    }

    draw() {
      const { data, layout, alt, note } = this.figure;
      this.plot.setAttribute("aria-label", alt);
      this.caption.textContent = note;
      return Plotly.react(this.plot, painted(data), dressed(layout), config);
    }
  }

  const places = Object.entries(plots).map(([name, plot]) => new Place(name, plot));
  const draw = () => places.forEach((place) => place.draw());
  draw();

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  matchMedia("(max-width: 640px)").addEventListener("change", draw);

  // On paper: light colours, everything unfolded, plots no wider than the sheet.
  let folded = [];
  addEventListener("beforeprint", () => {
    document.documentElement.dataset.printing = "";
    folded = [...document.querySelectorAll("details:not([open])")];
    folded.forEach((details) => { details.open = true; });
    draw();
    places.forEach((place) => Plotly.relayout(place.plot, { width: 680 }));
  });
  addEventListener("afterprint", () => {
    delete document.documentElement.dataset.printing;
    folded.forEach((details) => { details.open = false; });
    places.forEach((place) => Plotly.relayout(place.plot, { width: null, autosize: true }));
    draw();
  });
})();
