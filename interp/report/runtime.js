// Draws the CircuitsVis panels of a report when they come into view, and readies its download links.
// Other scripts of the page use `interpReport`.
(() => {
  "use strict";
  let bundle;
  let lastError = "";
  window.addEventListener("error", (event) => (lastError = event.message));

  // What `packed` of circuitsvis.py made: gzip in base64.
  function inflate(text) {
    if (!("DecompressionStream" in window)) throw new Error("this browser is too old (DecompressionStream, 2023)");
    const bytes = Uint8Array.from(atob(text.trim()), (character) => character.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip")));
  }

  async function evaluate() {
    const script = document.createElement("script");
    script.textContent = await inflate(document.getElementById("circuitsvis-bundle").textContent).text();
    document.head.append(script);
    if (!window.CircuitsVis) throw new Error("the CircuitsVis script did not run");
    return window.CircuitsVis;
  }

  const load = () => (bundle ??= evaluate());
  const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

  // React draws later and reports its errors elsewhere, so look whether anything appeared.
  async function appeared(panel) {
    for (let tries = 0; tries < 400; tries++) {
      await pause(50);
      if (panel.firstElementChild) return;
      if (lastError) break;
    }
    throw new Error(lastError || "nothing was drawn");
  }

  async function draw(panel) {
    if (panel.dataset.state) return;
    panel.dataset.state = "drawing";
    try {
      const kit = await load();
      const properties = JSON.parse(document.getElementById(panel.dataset.properties).textContent);
      if (!kit[panel.dataset.component]) throw new Error("CircuitsVis has no " + panel.dataset.component);
      kit.render(panel.id, kit[panel.dataset.component], properties);
      await appeared(panel);
      panel.dataset.state = "drawn";
    } catch (error) {
      panel.dataset.state = "failed";
      panel.textContent = "This panel could not be drawn: " + error.message + ". Its numbers are in results.json.";
    }
  }

  // Call `draw(element)` once for each element when it comes near the part of the page that is seen, and before printing.
  function whenNear(elements, draw) {
    const near = new IntersectionObserver(
      (entries) =>
        entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
          near.unobserve(entry.target);
          draw(entry.target);
        }),
      { rootMargin: "400px" },
    );
    elements.forEach((element) => near.observe(element));
    window.addEventListener("beforeprint", () => elements.forEach(draw));
  }

  function save(name, content, type) {
    const link = document.createElement("a");
    link.download = name;
    link.href = URL.createObjectURL(new Blob([content], { type }));
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  }

  function readyDownloads() {
    document.querySelectorAll("a[data-image]").forEach((link) => {
      link.href = document.getElementById(link.dataset.image).src;
      link.hidden = false;
    });
    document.querySelectorAll("a[data-packed]").forEach((link) => {
      link.href = "#"; // so that the keyboard reaches it
      link.hidden = false;
      link.addEventListener("click", async (event) => {
        event.preventDefault();
        save(link.download, await inflate(link.dataset.packed).text(), link.dataset.type);
      });
    });
  }

  // What a cell says as a number: grouped digits, a true minus sign; NaN for a dash.
  const numberIn = (cell) => Number(cell.textContent.trim().replaceAll(",", "").replaceAll("−", "-"));

  // Tables sort by the column whose heading is pressed: numbers from the largest, text from A; again for the other way round.
  function sortBy(head, column) {
    const body = head.closest("table").tBodies[0];
    const isNumber = head.classList.contains("number");
    const descending = head.hasAttribute("aria-sort") ? head.getAttribute("aria-sort") === "ascending" : isNumber;
    const sign = descending ? -1 : 1;
    const missing = (row) => isNumber && Number.isNaN(numberIn(row.cells[column]));
    const compare = (a, b) =>
      isNumber
        ? missing(a) - missing(b) || sign * (numberIn(a.cells[column]) - numberIn(b.cells[column])) || 0
        : sign * a.cells[column].textContent.localeCompare(b.cells[column].textContent, "en", { numeric: true });
    body.append(...[...body.rows].sort(compare));
    [...head.parentElement.cells].forEach((cell) => cell.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
  }

  function readySorting() {
    document.querySelectorAll("figure.table table").forEach((table) => {
      if (table.tBodies[0].rows.length < 3) return;
      [...table.tHead.rows[0].cells].forEach((head, column) => {
        const button = document.createElement("button");
        button.type = "button";
        button.append(...head.childNodes);
        button.addEventListener("click", () => sortBy(head, column));
        head.append(button);
      });
    });
  }

  // In a notebook a document is a frame of another page, which asks how high it is to be.
  function tellHeight() {
    if (window.parent === window) return;
    // of the body: the document itself is never lower than its frame
    const tell = () => window.parent.postMessage({ interp: "height", height: document.body.getBoundingClientRect().height }, "*");
    new ResizeObserver(tell).observe(document.body);
  }

  function start() {
    whenNear([...document.querySelectorAll("[data-component]")], draw);
    window.addEventListener("beforeprint", () => {
      document.querySelectorAll("details:not([data-long])").forEach((details) => (details.open = true));
    });
    readyDownloads();
    readySorting();
    tellHeight();
  }

  window.interpReport = { inflate, whenNear, save };
  document.addEventListener("DOMContentLoaded", start);
})();
