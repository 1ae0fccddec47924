// A grid at one step, a slider over the steps, and the line of the chosen cell.
(() => {
  "use strict";
  const kit = window.interpReport;
  const { svg } = kit;
  const HIGH = 178;

  // A line over all steps, evenly spaced like the stops of the slider, with a mark at the step that is shown.
  function line(width, values, step, steps, title, unit) {
    const known = values.filter((value) => value !== null);
    let [low, high] = known.length ? [Math.min(0, ...known), Math.max(0, ...known)] : [0, 1];
    if (low === high) high = low + 1;
    const [left, right, top, bottom] = [52, 14, 42, 38];
    const x = (i) => left + ((width - left - right) * i) / Math.max(1, values.length - 1);
    const y = (value) => top + ((HIGH - top - bottom) * (high - value)) / (high - low);
    const drawn = svg("svg", { width, height: HIGH, viewBox: `0 0 ${width} ${HIGH}`, role: "img", "aria-label": title });
    drawn.append(svg("text", { x: 0, y: 13, class: "name" }, title + (unit ? `, ${unit}` : "")));
    [low, high].forEach((value) => {
      drawn.append(svg("line", { x1: left, x2: width - right, y1: y(value), y2: y(value), class: "rule" }));
      drawn.append(svg("text", { x: left - 8, y: y(value), dy: "0.35em", "text-anchor": "end" }, kit.number(value, 3)));
    });
    if (low < 0 && high > 0) drawn.append(svg("line", { x1: left, x2: width - right, y1: y(0), y2: y(0), class: "rule zero" }));
    const every = Math.ceil((steps.length * 46) / (width - left - right));
    steps.forEach((name, i) => {
      if (i % every && i !== steps.length - 1) return;
      if (i !== steps.length - 1 && x(steps.length - 1) - x(i) < 40) return;
      const anchor = i && i === steps.length - 1 ? "end" : "middle";
      drawn.append(svg("text", { x: x(i) + (anchor === "end" ? right - 2 : 0), y: HIGH - 21, "text-anchor": anchor }, name.slice(0, 8)));
    });
    drawn.append(svg("text", { x: (left + width - right) / 2, y: HIGH - 5, "text-anchor": "middle", class: "axis" }, "step"));
    drawn.append(svg("line", { x1: x(step), x2: x(step), y1: top - 6, y2: HIGH - bottom, class: "now" }));
    let path = "";
    let pen = "M"; // lifted where a value is undefined
    values.forEach((value, i) => {
      if (value === null) pen = "M";
      else {
        path += `${pen}${x(i).toFixed(1)} ${y(value).toFixed(1)}`;
        pen = "L";
      }
    });
    drawn.append(svg("path", { d: path, class: "curve" }));
    values.forEach((value, i) => {
      const look = i === step ? { r: 5, class: "at" } : { r: 2, class: "dot" };
      if (value !== null) drawn.append(svg("circle", { cx: x(i), cy: y(value), ...look }));
    });
    if (values[step] !== null) {
      const end = step > values.length / 2;
      const place = { x: x(step) + (end ? 4 : -4), y: top - 11 }; // above the plot, where no curve can be
      drawn.append(svg("text", { ...place, "text-anchor": end ? "end" : "start", class: "value" }, kit.number(values[step], 3)));
    }
    return drawn;
  }

  kit.eachBlock("steps", (block) => {
    const facts = kit.facts(block);
    const [table, slider, picker] = ["table", "input[type=range]", "select"].map((query) => block.querySelector(query));
    const [output, still, lines, bar] = ["output", ".still", ".lines", ".scale"].map((query) => block.querySelector(query));
    const cells = kit.bodyOf(table);
    const width = facts.columns.length;
    let frames; // [frame][step][row * columns + column]
    let step = facts.steps.length - 1;
    let frame = 0;
    let chosen = facts.frames[0].chosen;

    const at = (row, column) => frames[frame][step][row * width + column];
    const say = (row, column) => {
      const { unit } = facts.frames[frame];
      return kit.worded({ values: at(row, column), unit }, (value) => value) + `, at step ${facts.steps[step]}`;
    };

    function drawLines() {
      const room = lines.clientWidth;
      const values = frames[frame].map((entries) => entries[chosen[0] * width + chosen[1]]);
      const title = `${facts.frames[frame].name}: ${kit.placed(facts, ...chosen)}`;
      const drawn = [line(room, values, step, facts.steps, title, facts.frames[frame].unit)];
      if (facts.curve) drawn.push(line(room, facts.curve.values, step, facts.steps, facts.curve.name, facts.curve.unit));
      lines.replaceChildren(...drawn);
      const isIt = (r, c) => r === chosen[0] && c === chosen[1];
      cells.forEach((row, r) => row.forEach((cell, c) => cell.classList.toggle("chosen", isIt(r, c))));
    }

    function drawStep() {
      const scale = facts.frames[frame].scale;
      cells.forEach((row, r) =>
        row.forEach((cell, c) => {
          kit.paint(cell, at(r, c), scale);
          cell.textContent = kit.short(at(r, c), scale);
        }),
      );
      output.textContent = facts.steps[step];
      still.textContent = `${facts.frames[frame].name}, step ${facts.steps[step]}`; // for paper, where there is no slider
      slider.setAttribute("aria-valuetext", "step " + facts.steps[step]);
      block.querySelector(".readout").textContent = kit.placed(facts, ...chosen) + ": " + say(...chosen);
      drawLines();
    }

    kit.lazily(block, async () => {
      const text = await kit.inflate(block.querySelector("script.packed").textContent).text();
      frames = JSON.parse(text).frames;
      block.querySelector(".controls").hidden = false;
      const { aim } = kit.readable(block, table, facts, say, (row, column) => {
        chosen = [row, column];
        drawLines();
      });
      aim(...chosen);
      slider.addEventListener("input", () => {
        step = Number(slider.value);
        drawStep();
      });
      picker?.addEventListener("change", () => {
        frame = picker.selectedIndex;
        kit.repaintScale(bar, facts.frames[frame]);
        drawStep();
      });
      kit.onSave(block, "svg", () => {
        const { name, scale, unit } = facts.frames[frame];
        const title = `${name}, step ${facts.steps[step]}`;
        kit.saveSvg(`${block.id}-${facts.steps[step]}`, kit.pictureOf(block, table, { ...facts, scale, unit }, title));
      });
      drawStep();
      let room = lines.clientWidth;
      new ResizeObserver(() => {
        if (lines.clientWidth === room) return;
        room = lines.clientWidth;
        drawLines();
      }).observe(lines);
      block.dataset.state = "drawn";
    });
  });
})();
