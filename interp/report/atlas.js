// All heads' attention: small pictures on canvases, one head large with the weight under the pointer, scores to choose by.
(() => {
  "use strict";
  const kit = window.interpReport;
  const { svg } = kit;
  const MOST_POINTS = 64; // per side of a small picture
  const MOST_LETTERS = 12; // of a label beside a pattern; what is read out has all
  const LETTER = 6.3; // width of one, in the 11 pixels of the labels
  const LINE = 12;

  // Paint `size` × `size` points; `shadeOf(row, column)` is 0 to 255, or −1 for a point that stays clear.
  function fill(canvas, size, shadeOf, colours) {
    canvas.width = canvas.height = size;
    const context = canvas.getContext("2d");
    const image = context.createImageData(size, size);
    for (let row = 0, i = 0; row < size; row++)
      for (let column = 0; column < size; column++, i += 4) {
        const shade = shadeOf(row, column);
        if (shade < 0) continue;
        [image.data[i], image.data[i + 1], image.data[i + 2]] = colours[shade];
        image.data[i + 3] = 255;
      }
    context.putImageData(image, 0, 0);
  }

  kit.eachBlock("atlas", (block) => {
    const facts = kit.facts(block);
    const { layers, heads, tokens, causal, scores } = facts;
    const size = tokens.length;
    const perHead = causal ? (size * (size + 1)) / 2 : size * size;
    const place = block.querySelector(".pattern");
    const readout = block.querySelector(".part.large .readout");
    const thumbs = [...block.querySelectorAll("[role=row]")].slice(1).map((row) => [...row.querySelectorAll("[role=gridcell]")]);
    const table = block.querySelector("table");
    const cells = table && kit.bodyOf(table);
    const picker = block.querySelector("select");
    const names = tokens.map((token, i) => `${i} “${token}”`);
    const longest = Math.min(MOST_LETTERS, Math.max(...tokens.map((token) => token.length)));
    let weights; // one byte per weight, head after head
    let colours;
    let chosen = facts.selected;
    let score = 0;
    let spot = null; // [query, key] under the pointer or the arrow keys
    let geometry;
    let marks;

    const shade = (layer, head, query, key) => {
      if (causal && key > query) return -1;
      const inside = causal ? (query * (query + 1)) / 2 + key : query * size + key;
      return weights[(layer * heads.length + head) * perHead + inside];
    };
    const title = ([layer, head]) => `layer ${layers[layer]} head ${heads[head]}`;
    const scored = ([layer, head]) =>
      scores.length ? `, ${scores[score].name} ${kit.worded(scores[score], (values) => values[layer][head])}` : "";

    function drawThumbs() {
      const step = Math.ceil(size / MOST_POINTS);
      const points = Math.ceil(size / step);
      thumbs.forEach((row, layer) =>
        row.forEach((cell, head) => {
          const largest = new Int16Array(points * points).fill(-1);
          for (let query = 0; query < size; query++)
            for (let key = 0; key < (causal ? query + 1 : size); key++) {
              const at = Math.floor(query / step) * points + Math.floor(key / step);
              largest[at] = Math.max(largest[at], shade(layer, head, query, key));
            }
          cell.firstElementChild.style.imageRendering = points < MOST_POINTS / 2 ? "pixelated" : "auto";
          fill(cell.firstElementChild, points, (query, key) => largest[query * points + key], colours);
        }),
      );
    }

    // Room for the labels, and which of them fit: every n-th.
    function measure(width) {
      const margin = Math.round(Math.min(longest * LETTER + 10, width / 4));
      const cell = (width - margin - 1) / size;
      return { width, margin, cell, every: Math.ceil(LINE / cell), letters: Math.floor((margin - 8) / LETTER) };
    }

    const cut = (token, letters) => (token.length <= letters ? token : token.slice(0, letters - 1) + "…");

    // Where a query's label ends, left of its row, and where a key's begins, standing above its column.
    const beside = (y, margin) => ({ x: margin - 6, y, dy: "0.35em", "text-anchor": "end" });
    const above = (x, margin) => ({ x, y: margin - 6, dy: "0.35em", transform: `rotate(-90 ${x} ${margin - 6})` });

    function labels({ margin, cell, every, letters }) {
      const group = svg("g", { class: "labels" });
      tokens.forEach((token, i) => {
        if (i % every) return;
        const middle = margin + (i + 0.5) * cell;
        group.append(svg("text", beside(middle, margin), cut(token, letters)), svg("text", above(middle, margin), cut(token, letters)));
      });
      return group;
    }

    function drawLarge() {
      geometry = measure(place.clientWidth);
      const { width, margin } = geometry;
      const canvas = document.createElement("canvas");
      fill(canvas, size, (query, key) => shade(...chosen, query, key), colours);
      const square = { x: margin, y: margin, width: width - margin, height: width - margin };
      const picture = svg("image", { ...square, href: canvas.toDataURL(), preserveAspectRatio: "none" });
      const frame = svg("rect", { ...square, class: "frame" });
      marks = svg("g", { class: "marks" });
      place.replaceChildren(svg("svg", { width, height: width, "aria-hidden": true }, labels(geometry), picture, frame, marks));
      showSpot();
    }

    // The weight at the spot, in words and marked with the labels of its row and column.
    function showSpot() {
      marks.replaceChildren();
      if (!spot) {
        readout.textContent = "Hover, tap or use the arrow keys on the pattern to read a weight.";
        return;
      }
      const [query, key] = spot;
      const { margin, cell, width, letters } = geometry;
      const at = (i) => margin + i * cell;
      const band = (box) => svg("rect", { class: "band", ...box });
      marks.append(band({ x: margin, y: at(query), width: width - margin, height: cell }));
      marks.append(band({ x: at(key), y: margin, width: cell, height: width - margin }));
      marks.append(svg("rect", { class: "spot", x: at(key), y: at(query), width: cell, height: cell }));
      const inside = (i) => Math.max(margin + LINE / 2, Math.min(width - LINE / 2, at(i + 0.5)));
      const lit = (i, place, back) => [svg("rect", { class: "lit-back", ...back }), svg("text", { class: "lit", ...place }, cut(tokens[i], letters))];
      const [y, x] = [inside(query), inside(key)];
      const [side, tall] = [margin - 2, LINE + 2];
      marks.append(...lit(query, beside(y, margin), { x: 0, y: y - tall / 2, width: side, height: tall }));
      marks.append(...lit(key, above(x, margin), { x: x - tall / 2, y: 0, width: tall, height: side }));
      const weight = shade(...chosen, query, key);
      const said = weight < 0 ? "a later token, hidden by the causal mask" : "weight " + (weight / 255).toFixed(3);
      readout.textContent = `query ${names[query]} → key ${names[key]}: ${said}`;
    }

    // The score of the head under the pointer, which need not be the chosen one.
    function glance(head) {
      if (!cells) return;
      kit.mark(table, ...(head || [null, null]));
      const meaning = scores[score].description || "Click a cell, or use the arrow keys, to see that head.";
      block.querySelector(".part.map .readout").textContent = head ? title(head) + scored(head) : meaning;
    }

    function choose(layer, head) {
      chosen = [layer, head];
      const isIt = (l, h) => l === layer && h === head;
      thumbs.forEach((row, l) => row.forEach((cell, h) => cell.setAttribute("aria-selected", String(isIt(l, h)))));
      cells?.forEach((row, l) => row.forEach((cell, h) => cell.classList.toggle("chosen", isIt(l, h))));
      const words = title(chosen);
      const soft = document.createElement("span");
      soft.textContent = scored(chosen);
      block.querySelector(".part-title .chosen").replaceChildren(words[0].toUpperCase() + words.slice(1), soft);
      glance(false);
      drawLarge();
    }

    function showScore() {
      const { values, scale } = scores[score];
      cells.forEach((row, layer) =>
        row.forEach((cell, head) => {
          kit.paint(cell, values[layer][head], scale);
          cell.textContent = kit.short(values[layer][head], scale);
        }),
      );
      thumbs.forEach((row, layer) =>
        row.forEach((cell, head) => cell.setAttribute("aria-label", title([layer, head]) + scored([layer, head]))),
      );
      kit.repaintScale(block.querySelector(".part.map .scale"), scores[score]);
      choose(...chosen);
    }

    // The chosen pattern as rectangles, in the colours for paper; equal neighbours in a row are one.
    function save() {
      const blue = kit.shades(block, "--heat-full", true).map(kit.hex);
      const cell = Math.max(4, Math.min(24, 720 / size));
      const margin = longest * LETTER + 12;
      const box = (query, key, end) => ({ x: margin + key * cell, y: margin + query * cell, width: (end - key) * cell, height: cell });
      const square = svg("rect", { x: margin, y: margin, width: size * cell, height: size * cell, fill: blue[0] });
      const group = svg("g", { transform: "translate(0 22)", "shape-rendering": "crispEdges" }, square);
      for (let query = 0; query < size; query++)
        for (let key = 0, end; key < size; key = end) {
          const here = shade(...chosen, query, key);
          for (end = key + 1; end < size && shade(...chosen, query, end) === here; ) end++;
          if (here !== 0) group.append(svg("rect", { ...box(query, key, end), fill: here < 0 ? "#ffffff" : blue[here] }));
        }
      group.append(labels({ margin, cell, every: Math.ceil(LINE / cell), letters: longest }));
      const side = Math.ceil(margin + size * cell + 8);
      const heading = svg("text", { x: 8, y: 16, "font-weight": 600 }, title(chosen) + scored(chosen));
      kit.saveSvg(`${block.id}-${chosen.join("-")}`, kit.picture(side, side + 22, title(chosen), heading, group));
    }

    function saveCsv() {
      const quoted = (text) => `"${text.replaceAll('"', '""')}"`;
      const lines = ["query,query token,key,key token,weight"];
      for (let query = 0; query < size; query++)
        for (let key = 0; key < (causal ? query + 1 : size); key++)
          lines.push(`${query},${quoted(tokens[query])},${key},${quoted(tokens[key])},${(shade(...chosen, query, key) / 255).toFixed(4)}`);
      kit.save(`${block.id}-${chosen.join("-")}.csv`, lines.join("\n") + "\n", "text/csv;charset=utf-8");
    }

    function listenToPattern() {
      const under = (event) => {
        const box = place.firstElementChild.getBoundingClientRect();
        const along = (from, to) => Math.floor((to - from - geometry.margin) / geometry.cell);
        const spot = [along(box.top, event.clientY), along(box.left, event.clientX)];
        return spot.every((i) => i >= 0 && i < size) ? spot : null;
      };
      const point = (event) => {
        spot = under(event);
        showSpot();
      };
      place.addEventListener("pointermove", (event) => event.pointerType === "mouse" && point(event));
      place.addEventListener("pointerleave", (event) => {
        if (event.pointerType !== "mouse") return;
        spot = null;
        showSpot();
      });
      place.addEventListener("click", point);
      place.addEventListener("keydown", (event) => {
        const [query, key] = spot ?? [size - 1, 0];
        const moves = {
          ArrowLeft: [query, key - 1],
          ArrowRight: [query, key + 1],
          ArrowUp: [query - 1, key],
          ArrowDown: [query + 1, key],
          Home: [query, 0],
          End: [query, causal ? query : size - 1],
        };
        if (!moves[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
        event.preventDefault();
        spot = spot ? moves[event.key].map((i) => Math.max(0, Math.min(size - 1, i))) : [query, key];
        showSpot();
      });
    }

    kit.lazily(block, async () => {
      const packed = await kit.inflate(block.querySelector("script.packed").textContent).arrayBuffer();
      weights = new Uint8Array(packed);
      if (weights.length !== perHead * layers.length * heads.length) throw new Error("the packed weights are damaged");
      const recolour = (onPaper) => {
        colours = kit.shades(block, "--heat-full", onPaper);
        drawThumbs();
        drawLarge();
      };
      const pick = (layer, head) => {
        spot = null;
        choose(layer, head);
        walkers.forEach(({ aim }) => aim(layer, head));
      };
      const meet = (layer, head, why) => {
        if (why === "keys" || why === "tap") pick(layer, head);
        else glance(why === "hover" && [layer, head]);
      };
      const walkers = [kit.roam(block.querySelector(".thumbnails"), thumbs, meet, chosen)];
      if (cells) walkers.push(kit.roam(table, cells, meet, chosen));
      colours = kit.shades(block, "--heat-full");
      drawThumbs();
      choose(...chosen);
      picker?.addEventListener("change", () => {
        score = picker.selectedIndex;
        showScore();
      });
      listenToPattern();
      kit.onSave(block, "svg", save);
      kit.onSave(block, "csv", saveCsv);
      kit.onScheme(recolour);
      const fits = () => !place.clientWidth || place.clientWidth === geometry.width;
      new ResizeObserver(() => fits() || drawLarge()).observe(place);
      block.dataset.state = "drawn";
    });
  });
})();
