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
