"""Style and script of the HTML report; the page is complete without the script."""

STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #ffffff; --text: #1c2330;
  --muted: #667085; --rule: #e3e6ec; --bar: #cfe0ff; --accent: #2456d6; --bad: #b3261e;
  --c0: #2563eb; --c1: #d9480f; --c2: #0f8a5f; --c3: #9333ea; --c4: #b45309; --c5: #0891b2;
  --c6: #be185d; --c7: #4d7c0f; }
@media (prefers-color-scheme: dark) { :root { --page: #11151c; --card: #1a202a; --text: #e6eaf2;
  --muted: #98a2b3; --rule: #2c3442; --bar: #24406f; --accent: #8ab4ff; --bad: #ff8a80;
  --c0: #6ea8fe; --c1: #ff9f5a; --c2: #4fd1a1; --c3: #c79bff; --c4: #f2b84b; --c5: #5ad1e6;
  --c6: #ff86b5; --c7: #a8d45c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 26px; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 18px; margin: 34px 0 10px; }
p { margin: 4px 0; } .muted { color: var(--muted); } code { font-size: 0.92em; }
a { color: var(--accent); text-decoration: none; } a:hover { text-decoration: underline; }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
  padding: 14px 18px; overflow-x: auto; }
.note { border-left: 4px solid var(--c4); padding: 8px 14px; margin: 10px 0;
  background: var(--card); border-radius: 4px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 10px; text-align: right; border-bottom: 1px solid var(--rule);
  white-space: nowrap; }
th { font-weight: 600; font-size: 13px; color: var(--muted); }
th:first-child, td:first-child { text-align: left; padding-left: 2px; }
tbody tr:last-child td { border-bottom: 0; } tbody tr:hover td { background-color: var(--page); }
th button { all: unset; cursor: pointer; } th button:hover { color: var(--text); }
th button:focus-visible { outline: 2px solid var(--accent); border-radius: 3px; }
th[aria-sort] button::after { content: " \\25b2"; font-size: 10px; }
th[aria-sort=descending] button::after { content: " \\25bc"; }
td.score { background: linear-gradient(var(--bar), var(--bar)) no-repeat 0 50%
  / calc((100% - 56px) * var(--v)) 68%; min-width: 120px; }
td.big { font-weight: 650; } td.best { font-weight: 650; } td.low { color: var(--bad); }
.dot { display: inline-block; width: 10px; height: 10px; border-radius: 50%; margin-right: 7px; }
.spark { width: 120px; height: 22px; display: block; margin-left: auto; }
.spark polyline { fill: none; stroke: currentColor; stroke-width: 1.4; }
details { background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
  margin: 10px 0; padding: 0 18px; scroll-margin-top: 12px; }
details[open] { padding-bottom: 16px; }
summary { cursor: pointer; padding: 11px 0; font-weight: 600; }
summary .muted { font-weight: 400; margin-left: 8px; }
.chart { width: 100%; height: auto; display: block; touch-action: pan-y; }
.chart text { fill: var(--muted); font-size: 9.5px; }
.chart .grid { stroke: var(--rule); stroke-width: 1; }
.line { fill: none; stroke: currentColor; stroke-width: 1.8; stroke-linejoin: round; }
.line.faint { stroke-width: 1.2; stroke-dasharray: 3 3; opacity: 0.75; }
circle.line { fill: currentColor; }
.c0 { color: var(--c0); } .c1 { color: var(--c1); } .c2 { color: var(--c2); }
.c3 { color: var(--c3); } .c4 { color: var(--c4); } .c5 { color: var(--c5); }
.c6 { color: var(--c6); } .c7 { color: var(--c7); } .dot { background: currentColor; }
.cursor { stroke: var(--muted); stroke-width: 1; stroke-dasharray: 2 3; }
.readout { min-height: 1.5em; font-size: 13px; color: var(--muted);
  font-variant-numeric: tabular-nums; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: 13px; margin: 4px 0 2px; }
.legend b { font-weight: 400; color: var(--text); }
.frames { display: grid; gap: 12px; margin-top: 12px;
  grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); }
.frames.compare { grid-template-columns: repeat(var(--runs), minmax(220px, 1fr));
  overflow-x: auto; }
figure { margin: 0; } figure img { width: 100%; display: block; border-radius: 6px; }
figcaption { font-size: 13px; color: var(--muted); padding-top: 3px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; margin: 0; }
dt { font-weight: 600; } dd { margin: 0; color: var(--muted); }
"""

SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((header, column) => {
    if (header.dataset.plain !== undefined) return;
    const button = document.createElement("button");
    button.textContent = header.textContent;
    header.replaceChildren(button);
    button.addEventListener("click", () => {
      const descending = header.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const key = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const compare = (a, b) => key(a).localeCompare(key(b), undefined, { numeric: true });
      const numeric = (a, b) => parseFloat(key(a)) - parseFloat(key(b));
      const numbers = [...body.rows].every(row => !isNaN(parseFloat(key(row))));
      const rows = [...body.rows].sort(numbers && column > 0 ? numeric : compare);
      body.append(...(descending ? rows.reverse() : rows));
    });
  });
}
function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target && target.tagName === "DETAILS") { target.open = true; target.scrollIntoView(); }
}
addEventListener("hashchange", openTarget);
openTarget();
for (const chart of document.querySelectorAll("svg.chart")) {
  const frames = chart.dataset.frames.split("/");
  const { x, y, width, height } = PLOT;
  const lines = [...chart.querySelectorAll("polyline.line")].map(line => ({
    name: line.dataset.name,
    points: line.getAttribute("points").split(" ").map(point => point.split(",").map(Number)),
  }));
  const cursor = document.createElementNS("http://www.w3.org/2000/svg", "line");
  cursor.setAttribute("class", "cursor");
  cursor.setAttribute("y1", y);
  cursor.setAttribute("y2", y + height);
  const readout = chart.parentElement.querySelector(".readout");
  const hint = readout.textContent;
  chart.addEventListener("pointermove", event => {
    const box = chart.getBoundingClientRect();
    const at = (event.clientX - box.left) / box.width * chart.viewBox.baseVal.width;
    const index = Math.round((at - x) / width * (frames.length - 1));
    const place = Math.min(Math.max(index, 0), frames.length - 1);
    const px = x + width * (frames.length > 1 ? place / (frames.length - 1) : 0.5);
    cursor.setAttribute("x1", px);
    cursor.setAttribute("x2", px);
    chart.append(cursor);
    const values = lines.flatMap(line => {
      const point = line.points.find(([at]) => Math.abs(at - px) < 0.06);
      return point ? [`${line.name} ${(100 * (1 - (point[1] - y) / height)).toFixed(1)}`] : [];
    });
    readout.textContent = `frame ${frames[place]}: ${values.join(", ")}`;
  });
  chart.addEventListener("pointerleave", () => {
    cursor.remove();
    readout.textContent = hint;
  });
}
"""
