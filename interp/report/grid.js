// Grids of coloured cells: reading a cell, and saving the grid as SVG.
(() => {
  "use strict";
  const kit = window.interpReport;

  const bodyOf = (table) => [...table.tBodies[0].rows].map((row) => [...row.cells].slice(1));

  // Mark a cell and the names of its row and column.
  function mark(table, row, column) {
    table.querySelectorAll(".hot").forEach((element) => element.classList.remove("hot"));
    if (row === null) return;
    const line = table.tBodies[0].rows[row];
    [line.cells[0], line.cells[column + 1], table.tHead.rows[0].cells[column + 1]].forEach((cell) => cell.classList.add("hot"));
  }

  // "layer 3, head 5"; a token's place in the text is said too, as tokens repeat.
  function placed({ axes, rows, columns }, row, column) {
    const name = (axis, names, at) =>
      ["pos", "token", "query", "key"].includes(axis) ? `${axis} ${at} “${names[at]}”` : `${axis} ${names[at]}`;
    return name(axes[0], rows, row) + ", " + name(axes[1], columns, column);
  }

  // The table as a picture of its own geometry, in the colours for paper.
  function pictureOf(block, table, facts, title) {
    const { svg, hex } = kit;
    const blue = kit.shades(block, "--heat-full", true).map(hex);
    const warm = kit.shades(block, "--heat-warm", true).map(hex);
    const cells = bodyOf(table);
    const [rows, columns] = ["rows", "columns"].map((side) => facts[side].map((name) => name.slice(0, 16)));
    const dense = table.classList.contains("dense");
    const [wide, high] = dense ? [16, 16] : [42, 26];
    const longest = (names) => Math.max(...names.map((name) => name.length)) * 6.6;
    const upright = columns.some((name) => name.length > 4);
    const left = Math.max(longest(rows), facts.axes[0].length * 6.6) + 24;
    const top = 34 + (upright ? longest(columns) : 14);
    const parts = [
      svg("text", { x: left, y: 16, "font-weight": 600 }, facts.axes[1]),
      svg("text", { x: 8, y: top - 8, "font-weight": 600 }, facts.axes[0]),
    ];
    columns.forEach((name, c) => {
      const x = left + (c + 0.5) * wide;
      const turn = upright ? { transform: `rotate(-90 ${x} ${top - 6})`, dy: "0.35em" } : { "text-anchor": "middle" };
      parts.push(svg("text", { x, y: top - 6, ...turn }, name));
    });
    cells.forEach((row, r) => {
      const y = top + r * high;
      parts.push(svg("text", { x: left - 8, y: y + high / 2, dy: "0.35em", "text-anchor": "end" }, rows[r]));
      row.forEach((cell, c) => {
        const x = left + c * wide;
        const undefined_ = cell.classList.contains("u");
        const shade = Math.round(parseFloat(cell.style.getPropertyValue("--v")) * 2.55);
        const fill = undefined_ ? "#d9d9d9" : (cell.classList.contains("w") ? warm : blue)[shade];
        parts.push(svg("rect", { x, y, width: wide - 1, height: high - 1, fill }));
        if (dense) return;
        const ink = cell.classList.contains("d") ? "#ffffff" : "#1f242b";
        const text = { x: x + wide / 2, y: y + high / 2, dy: "0.35em", "text-anchor": "middle", fill: ink };
        parts.push(svg("text", text, cell.textContent));
      });
    });
    const bottom = top + cells.length * high + 18;
    const swatches = [...block.querySelectorAll(".scale .bar i")];
    parts.push(svg("text", { x: left, y: bottom + 10 }, facts.scale.low));
    const start = left + facts.scale.low.length * 6.6 + 8;
    swatches.forEach((swatch, i) => {
      const shade = Math.round(parseFloat(swatch.style.getPropertyValue("--v")) * 2.55);
      const fill = (swatch.classList.contains("w") ? warm : blue)[shade];
      parts.push(svg("rect", { x: start + 6 * i, y: bottom, width: 6, height: 12, fill }));
    });
    const end = `${facts.scale.high} ${facts.unit ?? ""}`;
    parts.push(svg("text", { x: start + 6 * swatches.length + 8, y: bottom + 10 }, end));
    const width = Math.max(left + columns.length * wide, start + 6 * swatches.length + 16 + end.length * 6.6) + 8;
    return kit.picture(Math.ceil(width), Math.ceil(bottom + 26), title, ...parts);
  }

  // A table whose cells are read by hover, tap and keys: `say(row, column)` gives the words, `choose` is told of a choice.
  function readable(block, table, facts, say, choose = () => {}) {
    const readout = block.querySelector(".readout");
    const invitation = readout.textContent;
    return kit.roam(table, bodyOf(table), (row, column, why) => {
      mark(table, row, column);
      readout.textContent = row === null ? invitation : placed(facts, row, column) + ": " + say(row, column);
      if (why === "keys" || why === "tap") choose(row, column);
    });
  }

  Object.assign(kit, { bodyOf, mark, placed, pictureOf, readable });

  kit.eachBlock("grid", (block) => {
    const table = block.querySelector("table");
    const facts = kit.facts(block);
    readable(block, table, facts, (row, column) => kit.worded(facts, (values) => values[row][column]));
    const title = block.querySelector("figcaption span").textContent;
    kit.onSave(block, "svg", () => kit.saveSvg(block.id, pictureOf(block, table, facts, title)));
    block.dataset.state = "drawn";
  });
})();
