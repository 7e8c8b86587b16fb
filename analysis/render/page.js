"use strict";
// Pictures come alive when they are near the screen; without scripts the still ones stay.
const specs = JSON.parse(document.getElementById("specs").textContent);
function unpacked(spec) {
  const datasets = {};
  for (const [name, { columns, rows }] of Object.entries(spec.datasets))
    datasets[name] = rows.map((row) => Object.fromEntries(columns.map((key, place) => [key, row[place]])));
  return { ...spec, datasets };
}
const alive = [];
// Legends have their rows only when the width is known, and the picture its height only with those rows.
async function settled(view) {
  for (let pass = 0; pass < 2; pass++) await view.resize().runAsync();
}
let waiting;
window.addEventListener("resize", () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => alive.forEach(settled), 100);
});
function embed(figure) {
  const live = figure.querySelector(".live"), still = figure.querySelector(".still");
  live.hidden = false;
  if (still) still.style.display = "none";
  return vegaEmbed(live, unpacked(specs[figure.dataset.chart]), { renderer: "svg", actions: false, ast: true, mode: "vega-lite" }).then(
    async (made) => {
      await settled(made.view);
      alive.push(made.view);
      if (still) still.remove(); // its gradients have the names of the live ones
      live.querySelector("svg").setAttribute("aria-hidden", "true");
      const said = figure.querySelector(".said");
      if (said) said.hidden = true;
      const switches = figure.querySelector(".switches");
      if (!switches) return;
      switches.hidden = false;
      for (const select of switches.querySelectorAll("select"))
        select.addEventListener("change", () => made.view.signal(select.name, select.value).runAsync());
    },
    () => { live.hidden = true; if (still) still.style.display = ""; },
  );
}
function enliven() {
  const figures = document.querySelectorAll("figure[data-chart]");
  if (!("IntersectionObserver" in window)) { figures.forEach(embed); return; }
  const watcher = new IntersectionObserver((seen) => {
    for (const one of seen) if (one.isIntersecting) { watcher.unobserve(one.target); embed(one.target); }
  }, { rootMargin: "300px" });
  figures.forEach((figure) => watcher.observe(figure));
}
// Tables sort by the numbers or words of their cells.
function sortBy(head) {
  const body = head.closest("table").tBodies[0], column = head.cellIndex;
  const up = head.getAttribute("aria-sort") !== "ascending";
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  const rows = [...body.rows].sort((a, b) => {
    const x = value(a), y = value(b), p = Number(x), q = Number(y);
    const order = x !== "" && y !== "" && !isNaN(p) && !isNaN(q) ? p - q : x.localeCompare(y, "en");
    return up ? order : -order;
  });
  body.append(...rows);
}
for (const head of document.querySelectorAll("table.sorted th")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => sortBy(head));
}
// What is folded is printed all the same.
window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
if (window.vegaEmbed) requestAnimationFrame(enliven);
