// Tables that sort by a click on a heading; groups of rows stay together.
page.sortable = (table) => {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    if (!("sort" in heading.dataset)) return;
    const button = page.element("button", { type: "button" }, heading.textContent);
    heading.replaceChildren(button);
    heading.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      if (table.id === "class-table") page.allClasses();
      const falling = heading.getAttribute("aria-sort") !== "descending";
      for (const other of headings) {
        if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
      }
      heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
      page.sort(table, column, falling);
    });
  });
};

page.value = (row, column) => {
  const cell = row.cells[column];
  const text = cell.dataset.value ?? cell.textContent.trim().replace(/[,\s%]/g, "");
  const number = Number(text.replace("\u2212", "-"));
  return text !== "" && !Number.isNaN(number) ? number : cell.textContent.trim();
};

page.sort = (table, column, falling) => {
  const compare = (a, b) => {
    const plain = typeof a === "number" && typeof b === "number"
      ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true });
    return falling ? -plain : plain;
  };
  const best = (rows) => rows.map((row) => page.value(row, column)).sort(compare)[0];
  for (const body of table.tBodies) {
    const rows = [...body.rows].map((row) => [page.value(row, column), row]);
    body.append(...rows.sort((a, b) => compare(a[0], b[0])).map(([, row]) => row));
  }
  const bodies = [...table.tBodies].map((body) => [best([...body.rows]), body]);
  table.append(...bodies.sort((a, b) => compare(a[0], b[0])).map(([, body]) => body));
};

for (const table of document.querySelectorAll("table.sortable")) page.sortable(table);

// The classes that changed less are rows only when someone asks.
page.allClasses = () => {
  const button = document.getElementById("more-classes");
  if (!button || button.hidden) return;
  button.hidden = true;
  const body = document.getElementById("class-table").tBodies[0];
  for (const one of page.data.classes) {
    const row = body.insertRow();
    row.append(page.element("th", { scope: "row", class: "name" }, one.name));
    const change = one.after - one.before;
    const cells = [[page.percent(one.before)], [page.percent(one.after)], [page.points(change), change]];
    if (one.low !== null) {
      const ends = [one.low, one.high].map((end) => page.points(end).replace(/\.\d points/, ""));
      cells.push([ends.join(" to "), one.low], [String(one.samples)]);
    }
    for (const [text, value] of cells) {
      const cell = page.element("td", value === undefined ? {} : { "data-value": value }, text);
      row.append(cell);
    }
  }
};
document.getElementById("more-classes")?.addEventListener("click", page.allClasses);
