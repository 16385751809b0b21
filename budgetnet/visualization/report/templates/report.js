"use strict";
{
  // A number as it is written here: parted thousands, a true minus, a leading #, an interval in brackets.
  const number = (text) => parseFloat(text.replace(/[,#[\]]/g, "").replace("\u2212", "-"));

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
        // What has no value stands last, whichever way; rows that tie keep the order of the file.
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

  async function draw() {
    const look = document.getElementById("look").textContent;
    for (const place of document.querySelectorAll("[data-figure]")) {
      const figure = JSON.parse(document.getElementById(place.dataset.figure).textContent);
      const layout = { ...figure.layout, template: JSON.parse(look) };
      await Plotly.newPlot(place, figure.data, layout, { displayModeBar: false });
    }
    document.documentElement.dataset.drawn = "all";
  }

  // A figure is drawn for the width that it has in the window or on paper.
  async function fit() {
    for (const place of document.querySelectorAll("[data-figure]")) {
      if (!place.data || place.layout.width === place.clientWidth) continue;
      await Plotly.relayout(place, { width: place.clientWidth });
      // The room that a legend takes with more lines than before, or fewer, is seen in a second pass alone.
      await Plotly.redraw(place);
    }
    document.documentElement.dataset.fitted = String(window.innerWidth);
  }

  document.documentElement.classList.add("scripted");
  document.querySelectorAll("table.sortable").forEach(sortable);
  let waiting;
  window.addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(fit, 150);
  });
  window.addEventListener("beforeprint", fit);
  window.addEventListener("afterprint", fit);
  draw();
}
