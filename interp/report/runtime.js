// Draws the CircuitsVis panels of a report when they come into view, and readies the download links of its figures.
(() => {
  "use strict";
  let bundle;
  let lastError = "";
  window.addEventListener("error", (event) => (lastError = event.message));

  async function inflate(text) {
    if (!("DecompressionStream" in window)) throw new Error("this browser is too old (DecompressionStream, 2023)");
    const bytes = Uint8Array.from(atob(text.trim()), (character) => character.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  }

  async function evaluate() {
    const script = document.createElement("script");
    script.textContent = await inflate(document.getElementById("circuitsvis-bundle").textContent);
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

  function start() {
    const panels = [...document.querySelectorAll("[data-component]")];
    const near = new IntersectionObserver(
      (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => draw(entry.target)),
      { rootMargin: "400px" },
    );
    panels.forEach((panel) => near.observe(panel));
    window.addEventListener("beforeprint", () => {
      document.querySelectorAll("details").forEach((details) => (details.open = true));
      panels.forEach(draw);
    });
    document.querySelectorAll("a[data-image]").forEach((link) => {
      link.href = document.getElementById(link.dataset.image).src;
      link.hidden = false;
    });
  }

  document.addEventListener("DOMContentLoaded", start);
})();
