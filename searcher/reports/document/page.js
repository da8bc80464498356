"use strict";
// Make the tables sortable: a button in the head of each column.
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      // Numbers first from the greatest, texts from A; rows without a value stay last.
      const first = head.classList.contains("number") ? "descending" : "ascending";
      const second = first === "ascending" ? "descending" : "ascending";
      const order = head.getAttribute("aria-sort") === first ? second : first;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const compare = (one, other) => {
        const [a, b] = [one, other].map((row) => row.cells[column]);
        const [x, y] = [a, b].map((cell) => ("key" in cell.dataset ? Number(cell.dataset.key) : null));
        if (x !== null && y !== null) return sign * (x - y);
        if (x !== null || y !== null) return x === null ? 1 : -1;
        if (!a.textContent || !b.textContent) return (a.textContent ? 0 : 1) - (b.textContent ? 0 : 1);
        return sign * a.textContent.localeCompare(b.textContent, "en", { numeric: true });
      };
      body.append(...[...body.rows].sort(compare));
    });
  });
}
// On paper, everything is unfolded.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
