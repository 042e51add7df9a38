"use strict";
// Sorts and filters the tables and opens what a link leads to. Without it the page shows all rows and folds by itself.
(() => {
  const words = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
  document.documentElement.classList.add("js");

  // Rows are sorted in place: equal ones keep their order, and cells without a value come last either way.
  const sort = (table, place, header) => {
    const down = header.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
    const several = table.tBodies.length > 1 || table.id === "table";
    const units = [...(several ? table.tBodies : table.tBodies[0].rows)];
    const numeric = header.classList.contains("number");
    const read = (unit) => {
      const cell = (several ? unit.rows[0] : unit).cells[place];
      const text = cell.textContent.trim();
      if (!numeric) return text || null;
      const number = Number.parseFloat((cell.dataset.value ?? text.replaceAll(",", "")).replace("inf", "Infinity"));
      return Number.isNaN(number) ? null : number;
    };
    const values = new Map(units.map((unit) => [unit, read(unit)]));
    units.sort((first, second) => {
      const [a, b] = [values.get(first), values.get(second)];
      if (a === null || b === null) return (a === null) - (b === null);
      const order = numeric ? (a < b ? -1 : a > b ? 1 : 0) : words.compare(a, b);
      return down ? -order : order;
    });
    (several ? table : table.tBodies[0]).append(...units);
  };

  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((header, place) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      button.addEventListener("click", () => sort(table, place, header));
      header.append(button);
    });
  }

  const table = document.getElementById("table");
  const groups = table ? [...table.querySelectorAll("tbody.group")] : [];
  const unfold = (body, open) => {
    body.classList.toggle("open", open);
    body.querySelector(".fold").setAttribute("aria-expanded", String(open));
  };
  for (const body of groups) {
    const header = body.rows[0].querySelector("th");
    const button = document.createElement("button");
    button.type = "button";
    button.className = "fold";
    button.append(...header.childNodes);
    button.addEventListener("click", () => unfold(body, !body.classList.contains("open")));
    header.append(button);
    unfold(body, false);
  }

  if (table) {
    const [filter, all, shown] = ["filter", "unfold", "shown"].map((id) => document.getElementById(id));
    const bodies = [...table.tBodies];
    const texts = new Map(bodies.map((body) => [body, body.textContent.toLowerCase()]));
    const show = () => {
      const needed = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const body of bodies) body.hidden = !needed.every((word) => texts.get(body).includes(word));
      const left = bodies.filter((body) => !body.hidden).length;
      shown.textContent = needed.length ? `${left} of ${bodies.length} rows` : `${bodies.length} rows`;
    };
    filter.addEventListener("input", show);
    all.hidden = !groups.length;
    all.addEventListener("click", () => {
      const open = all.getAttribute("aria-expanded") !== "true";
      groups.forEach((body) => unfold(body, open));
      all.setAttribute("aria-expanded", String(open));
      all.textContent = open ? "hide the seeds" : "show every seed";
    });
    document.querySelector(".tools").hidden = false;
    show();
  }

  // What the runs say of themselves is compressed: unpacked once, and written into a run when it is opened.
  const unpack = async () => {
    const packed = atob(document.getElementById("details").textContent);
    const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return JSON.parse(await new Response(stream).text());
  };
  let details;
  const fill = async (event) => {
    const run = event.target;
    if (!run.matches("details.run[open]")) return;
    const html = (await (details ??= unpack()))[run.id];
    if (run.childElementCount === 1) run.insertAdjacentHTML("beforeend", html); // escaped when the page was made
  };
  document.addEventListener("toggle", fill, true);

  // What a link leads to may be folded away, or filtered out.
  const reveal = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    for (let place = target; place; place = place.parentElement) {
      if (place instanceof HTMLDetailsElement) place.open = true;
      if (place.classList.contains("group") && target.classList.contains("member")) unfold(place, true);
      if (place.hidden) place.hidden = false;
    }
    target.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#"]');
    if (link && link.hash === location.hash) reveal(); // again: the address does not change
  });
  if (location.hash) reveal();
})();
