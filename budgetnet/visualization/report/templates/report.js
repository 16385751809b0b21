"use strict";
{
  // Parse a number with thousands separators, a typographic minus, a leading # or interval brackets.
  const number = (text) => parseFloat(text.replace(/[,#[\]]/g, "").replace("\u2212", "-"));

  // Width of a figure on paper, in pixels, before it is scaled to its column.
  const PAPER_WIDTH = 500;

  function sortable(table) {
    const rows = [...table.tBodies[0].rows];
    const heads = [...table.tHead.rows[0].cells];

    function sortBy(column) {
      const head = heads[column];
      const falling = head.getAttribute("aria-sort") === "ascending";
      const numeric = head.classList.contains("n");
      const keys = new Map(rows.map((row) => {
        const text = row.cells[column].textContent.trim();
        return [row, numeric ? number(text) : text];
      }));
      const blank = (key) => (numeric ? Number.isNaN(key) : key === "\u2013");
      const ordered = [...rows].sort((one, other) => {
        const first = keys.get(one);
        const second = keys.get(other);
        // Rows without a value come last in both orders; ties keep the original order.
        if (blank(first) || blank(second)) return blank(first) - blank(second);
        const order = numeric ? first - second : first.localeCompare(second, "en", { numeric: true });
        return falling ? -order : order;
      });
      for (const each of heads) each.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      table.tBodies[0].append(...ordered);
    }

    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      button.addEventListener("click", () => sortBy(column));
      head.append(button);
    });
  }

  // Make the points of candidates links to their rows.
  function link(place) {
    function rowOf(event) {
      const name = event.points[0].customdata;
      // Other figures keep numbers there, such as seeds.
      return typeof name === "string" ? document.getElementById(`candidate-${name.replace("#", "")}`) : null;
    }

    place.on("plotly_hover", (event) => place.classList.toggle("linked", rowOf(event) !== null));
    place.on("plotly_unhover", () => place.classList.remove("linked"));
    place.on("plotly_click", (event) => {
      const row = rowOf(event);
      if (row === null) return;
      location.hash = row.id;
      row.scrollIntoView({ block: "center" });
    });
  }

  async function draw() {
    const template = document.getElementById("plotly-template").textContent;
    for (const place of document.querySelectorAll("[data-figure]")) {
      const figure = JSON.parse(document.getElementById(place.dataset.figure).textContent);
      const layout = { ...figure.layout, template: JSON.parse(template) };
      await Plotly.newPlot(place, figure.data, layout, { displayModeBar: false });
      link(place);
      scalable(place);
    }
    document.documentElement.dataset.drawn = "all";
  }

  // Fit figures to their width in the window or on paper.
  async function fit() {
    for (const place of document.querySelectorAll("[data-figure]")) {
      if (!place.data || place.layout.width === place.clientWidth) continue;
      await resize(place, place.clientWidth);
    }
    document.documentElement.dataset.fitted = String(window.innerWidth);
  }

  async function resize(place, width) {
    await Plotly.relayout(place, { width });
    // Legends with another number of lines change the layout, which needs a second pass.
    await Plotly.redraw(place);
    scalable(place);
  }

  // Let the drawing be scaled, as on paper, where the width is known only after the last script has run.
  function scalable(place) {
    const { width, height } = place.firstElementChild.firstElementChild.getBoundingClientRect();
    place.style.setProperty("--ratio", String(width / height));
    for (const svg of place.querySelectorAll("svg.main-svg")) svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  }

  // Draw as on a narrow screen, so that text is legible in two columns on paper.
  async function prepareForPaper() {
    await Promise.all([...document.querySelectorAll(".js-plotly-plot")].map((place) => resize(place, PAPER_WIDTH)));
  }

  document.documentElement.classList.add("scripted");
  document.querySelectorAll("table.sortable").forEach(sortable);
  let waiting;
  window.addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(fit, 150);
  });
  window.addEventListener("beforeprint", prepareForPaper);
  window.addEventListener("afterprint", fit);
  draw();
}
