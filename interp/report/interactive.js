// What the scripts of the interactive blocks share. Text from data only ever becomes text: textContent and attributes.
(() => {
  "use strict";
  const kit = window.interpReport;

  const missing = (value) => value === null || Number.isNaN(value);

  // As Python writes a power of ten: 1.2e+09.
  function exponential(value, decimals) {
    const [head, power] = value.toExponential(decimals).split("e");
    return head + "e" + power[0] + power.slice(1).padStart(2, "0");
  }

  // The same digits as `number` in Python.
  function number(value, digits = 4) {
    if (missing(value)) return "–";
    const rounded = Number(value.toPrecision(digits));
    const size = rounded === 0 ? 0 : Math.floor(Math.log10(Math.abs(rounded)) + 1e-12);
    let text;
    if (rounded === 0) text = "0";
    else if (Math.abs(rounded) >= 1e9 || size < -4) text = exponential(value, digits - 1);
    else if (size >= digits) text = value.toLocaleString("en-US", { maximumFractionDigits: 0 });
    else text = value.toPrecision(digits);
    return text.replace("-", "−").replace("e-", "e−");
  }

  // A number as it stands in a cell: `Scale.short` in Python.
  function short(value, { decimals }) {
    if (missing(value)) return "–";
    const text = decimals === null ? exponential(value, 0) : value.toFixed(decimals);
    return Number(text) === 0 ? text.replace(/^-/, "") : text.replaceAll("-", "−");
  }

  // "0.912 ± 0.004 nats, baseline 0.02", from what `spread` in Python lists.
  function worded({ values, stderr, baseline, unit }, pick) {
    const value = pick(values);
    if (value === null) return "undefined";
    let text = number(value);
    if (stderr && pick(stderr) !== null) text += " ± " + number(pick(stderr), 2);
    if (unit) text += " " + unit;
    const base = Array.isArray(baseline) ? pick(baseline) : baseline;
    if (base !== null && base !== undefined) text += ", baseline " + number(base, 3);
    return text;
  }

  // Colour a cell as `Scale.cell` in Python does.
  function paint(cell, value, scale) {
    const kinds = [];
    let percent = 0;
    if (value === null) kinds.push("u");
    else {
      percent = Math.round(100 * Math.min(1, Math.abs(value - scale.white) / scale.reach));
      if (scale.both && value > 0) kinds.push("w");
      if (percent >= 58) kinds.push("d");
    }
    cell.style.setProperty("--v", percent + "%");
    ["u", "w", "d"].forEach((kind) => cell.classList.toggle(kind, kinds.includes(kind)));
  }

  // The legend for another scale: its ends, swatches, unit, and where zero is.
  function repaintScale(legend, { scale, unit }) {
    const [low, high] = scale.ends;
    ["low", "high"].forEach((end) => (legend.querySelector("." + end).textContent = scale[end]));
    legend.querySelector(".unit").textContent = unit;
    const bar = legend.querySelector(".bar");
    bar.querySelector("b")?.remove();
    const swatches = [...bar.children];
    swatches.forEach((swatch, i) => paint(swatch, low + ((high - low) * i) / (swatches.length - 1), scale));
    if (!scale.both) return;
    const zero = document.createElement("b");
    zero.textContent = "0";
    zero.style.left = (100 * -low) / (high - low) + "%";
    bar.append(zero);
  }

  // The colours of 256 shades from white to the full colour, as the style sheet mixes them: [[red, green, blue], …].
  function shades(element, full, onPaper = false) {
    const stops = 17;
    const probe = document.createElement("i");
    probe.className = onPaper ? "block on-paper" : "";
    element.append(probe);
    const canvas = document.createElement("canvas");
    canvas.width = stops + 1;
    canvas.height = 1;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    for (let i = 0; i <= stops; i++) {
      probe.style.backgroundColor = `color-mix(in oklab, var(${full}) ${(100 * i) / stops}%, var(--heat-white))`;
      context.fillStyle = getComputedStyle(probe).backgroundColor;
      context.fillRect(i, 0, 1, 1);
    }
    probe.remove();
    const data = context.getImageData(0, 0, stops + 1, 1).data;
    const between = (shade, part) => {
      const at = (shade * stops) / 255;
      const left = Math.min(stops - 1, Math.floor(at));
      return Math.round(data[4 * left + part] * (left + 1 - at) + data[4 * left + 4 + part] * (at - left));
    };
    return Array.from({ length: 256 }, (_, shade) => [0, 1, 2].map((part) => between(shade, part)));
  }

  const hex = (colour) => "#" + colour.map((part) => part.toString(16).padStart(2, "0")).join("");

  // Arrow keys, hover and taps over rows of elements, of which one at a time is reached by Tab. `show(row, column, why)` is
  // called with "hover", "leave" (with the place that has the focus, or null before there was one), "keys" or "tap".
  function roam(container, rows, show, start = [0, 0]) {
    const places = new Map();
    rows.forEach((row, r) => row.forEach((element, c) => places.set(element, [r, c])));
    const find = (target) => {
      while (target && target !== container && !places.has(target)) target = target.parentElement;
      return places.get(target);
    };
    let [row, column] = start;
    let chosen = false; // whether a place was ever chosen
    let moving = false;
    rows[row][column].tabIndex = 0;

    function aim(r, c) {
      if (r === row && c === column) return; // without its tabindex it would lose the focus
      rows[row][column].removeAttribute("tabindex");
      [row, column] = [r, c];
      rows[r][c].tabIndex = 0;
    }
    function go(r, c, why) {
      aim(r, c);
      chosen = moving = true;
      rows[r][c].focus();
      moving = false;
      show(r, c, why);
    }
    container.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const last = rows[row].length - 1;
      const moves = {
        ArrowLeft: [row, column - 1],
        ArrowRight: [row, column + 1],
        ArrowUp: [row - 1, column],
        ArrowDown: [row + 1, column],
        Home: [row, 0],
        End: [row, last],
        PageUp: [0, column],
        PageDown: [rows.length - 1, column],
        Enter: [row, column],
        " ": [row, column],
      };
      const to = moves[event.key];
      if (!to || (rows.length === 1 && to[0] !== row)) return; // in a single line, up and down scroll the page
      event.preventDefault();
      const r = Math.max(0, Math.min(rows.length - 1, to[0]));
      go(r, Math.max(0, Math.min(rows[r].length - 1, to[1])), "keys");
    });
    container.addEventListener("focusin", (event) => {
      const place = find(event.target);
      if (!place || moving) return;
      chosen = true; // it was reached by Tab
      show(...place, "keys");
    });
    container.addEventListener("click", (event) => {
      const place = find(event.target);
      if (place) go(...place, "tap");
    });
    container.addEventListener("pointerover", (event) => {
      const place = event.pointerType === "mouse" && find(event.target);
      if (place) show(...place, "hover");
    });
    container.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "mouse") show(...(chosen ? [row, column] : [null, null]), "leave");
    });
    return { aim };
  }

  // An SVG element with attributes and children, of which strings become text.
  function svg(tag, attributes = {}, ...children) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    Object.entries(attributes).forEach(([name, value]) => element.setAttribute(name, value));
    element.append(...children);
    return element;
  }

  const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Liberation Sans', Arial, sans-serif";

  // A whole SVG file, dark on white, with these children.
  function picture(width, height, title, ...children) {
    const size = { width, height, viewBox: `0 0 ${width} ${height}` };
    const look = { "font-family": FONT, "font-size": 11, fill: "#1f242b" };
    const back = svg("rect", { width, height, fill: "#ffffff" });
    return svg("svg", { ...size, ...look }, svg("title", {}, title), back, ...children);
  }

  function saveSvg(name, element) {
    const text = new XMLSerializer().serializeToString(element);
    kit.save(name + ".svg", text.replace(/[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]/g, "\ufffd"), "image/svg+xml"); // XML forbids them
  }

  const facts = (block) => JSON.parse(block.querySelector("script.data").textContent);

  // Call `start(block)` for every block of that kind; one that fails says so in its own place.
  function eachBlock(kind, start) {
    document.addEventListener("DOMContentLoaded", () =>
      document.querySelectorAll(`[data-block=${kind}]`).forEach((block) => guarded(block, () => start(block))),
    );
  }

  async function guarded(block, work) {
    try {
      await work();
    } catch (error) {
      block.dataset.state = "failed";
      block.querySelector("[role=status]").textContent = "This could not be drawn: " + error.message + ".";
    }
  }

  // Draw when the block comes near, and once the browser has nothing else to do, so that it is there in print.
  function lazily(block, draw) {
    let begun = false;
    const once = () => begun || ((begun = true), guarded(block, draw));
    kit.whenNear([block], once);
    window.addEventListener("load", () => setTimeout(() => (window.requestIdleCallback ?? setTimeout)(once), 4000));
  }

  function onSave(block, kind, save) {
    const button = block.querySelector(`[data-save=${kind}]`);
    button.hidden = false;
    button.addEventListener("click", save);
  }

  // Redraw what has its colours from a script: when the scheme changes, and dark on white for paper.
  function onScheme(redraw) {
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw(false));
    window.addEventListener("beforeprint", () => redraw(true));
    window.addEventListener("afterprint", () => redraw(false));
  }

  Object.assign(kit, { number, short, worded, paint, repaintScale, shades, hex, roam, svg, picture, saveSvg, facts, eachBlock, lazily, onSave, onScheme });
})();
