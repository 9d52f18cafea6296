"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const every = (where, selector) => [...where.querySelectorAll(selector)];

  // Photos: two layers on top of each other, the right one cut off at the handle.
  const layerLabel = (stage, side) => stage.querySelector(`.layer.${side} .tag`).textContent;

  const moveTo = (stage, percent) => {
    const place = Math.min(100, Math.max(0, percent));
    const handle = stage.querySelector(".handle");
    stage.style.setProperty("--x", `${place}%`);
    handle.setAttribute("aria-valuenow", Math.round(place));
    handle.setAttribute(
      "aria-valuetext",
      `${Math.round(place)}% ${layerLabel(stage, "left")}, then ${layerLabel(stage, "right")}`,
    );
  };

  const addHandle = (stage) => {
    const handle = document.createElement("div");
    handle.className = "handle";
    handle.tabIndex = 0;
    handle.setAttribute("role", "slider");
    handle.setAttribute("aria-label", stage.dataset.name);
    handle.setAttribute("aria-valuemin", 0);
    handle.setAttribute("aria-valuemax", 100);
    handle.setAttribute("aria-valuenow", 50);
    stage.append(handle);

    const follow = (event) => {
      const box = stage.getBoundingClientRect();
      moveTo(stage, (100 * (event.clientX - box.left)) / box.width);
    };
    stage.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      stage.setPointerCapture(event.pointerId);
      handle.focus({ preventScroll: true });
      follow(event);
    });
    stage.addEventListener("pointermove", (event) => {
      if (stage.hasPointerCapture(event.pointerId)) follow(event);
    });
    handle.addEventListener("keydown", (event) => {
      const now = Number(handle.getAttribute("aria-valuenow"));
      const places = {
        ArrowLeft: now - 2, ArrowDown: now - 2, ArrowRight: now + 2, ArrowUp: now + 2,
        PageDown: now - 20, PageUp: now + 20, Home: 0, End: 100,
      };
      if (!(event.key in places)) return;
      event.preventDefault();
      moveTo(stage, places[event.key]);
    });
  };

  const choose = (section) => {
    const chosen = {};
    for (const input of every(section, ".choice input:checked")) chosen[input.name] = input.value;
    for (const shot of every(section, ".shot")) {
      const grouped = Boolean(chosen.group) && chosen.group !== "all";
      shot.hidden = grouped && !(chosen.group in shot.dataset);
      shot.style.order = grouped ? shot.dataset[chosen.group] || 0 : 0;
      for (const layer of every(shot, ".layer")) {
        layer.classList.toggle("left", layer.dataset.layer === chosen.left);
        layer.classList.toggle("right", layer.dataset.layer === chosen.right);
      }
      const stage = shot.querySelector(".stage");
      moveTo(stage, Number(stage.querySelector(".handle").getAttribute("aria-valuenow")));
    }
  };

  for (const section of every(document, ".pictures")) {
    every(section, ".stage").forEach(addHandle);
    section.addEventListener("change", () => choose(section));
    choose(section);
  }

  // Tables: a click on a column's title sorts by it, another one the other way round.
  const sortBy = (table, column, title) => {
    const first = column === 0 ? "ascending" : "descending";
    const turned = { ascending: "descending", descending: "ascending" };
    const order = turned[title.getAttribute("aria-sort")] || first;
    for (const other of every(table, "thead th")) other.removeAttribute("aria-sort");
    title.setAttribute("aria-sort", order);
    const key = (row) => {
      const cell = row.children[column];
      return cell.dataset.value === undefined ? cell.textContent.trim().toLowerCase() : Number(cell.dataset.value);
    };
    const sign = order === "ascending" ? 1 : -1;
    const rows = every(table, "tbody tr").map((row) => [key(row), row]);
    rows.sort(([a], [b]) => sign * (typeof a === "string" ? a.localeCompare(b) : a - b));
    table.tBodies[0].append(...rows.map(([, row]) => row));
  };

  for (const table of every(document, "table.sortable")) {
    every(table, "thead th").forEach((title, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...title.childNodes);
      button.addEventListener("click", () => sortBy(table, column, title));
      title.append(button);
    });
  }
})();
