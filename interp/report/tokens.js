// Texts: the values of a token in every row of a stack, and what a model expected after each token.
(() => {
  "use strict";
  const kit = window.interpReport;

  kit.eachBlock("stack", (block) => {
    const rows = [...block.querySelectorAll(".flow")].map((list) => [...list.children]);
    const names = [...block.querySelectorAll(".row-name")].map((name) => name.textContent);
    const readout = block.querySelector(".readout");
    const invitation = readout.textContent;
    kit.roam(block.querySelector(".board"), rows, (_, position) => {
      block.querySelectorAll(".hot").forEach((token) => token.classList.remove("hot"));
      if (position === null) {
        readout.textContent = invitation;
        return;
      }
      rows.forEach((row) => row[position].classList.add("hot"));
      const values = rows.map((row, r) => `${names[r]} ${row[position].dataset.value}`).join("; ");
      readout.textContent = `${position} “${rows[0][position].textContent}”: ${values}`;
    });
    block.dataset.state = "drawn";
  });

  function element(tag, kind, ...children) {
    const made = document.createElement(tag);
    if (kind) made.className = kind;
    made.append(...children);
    return made;
  }

  kit.eachBlock("next", (block) => {
    const facts = kit.facts(block);
    const list = block.querySelector(".flow");
    const tokens = [...list.children];
    const place = block.querySelector(".guesses");

    function bar(guess, probability, right) {
      const fill = element("span", "fill");
      fill.style.setProperty("--v", (100 * probability).toFixed(1) + "%");
      const percent = element("span", "percent", (100 * probability).toFixed(1) + " %");
      const name = element("span", "guess", guess);
      const item = element("li", right ? "right" : "", name, element("span", "track", fill), percent);
      if (right) item.append(element("span", "tick", "✓ came next"));
      return item;
    }

    function show(_, position) {
      const at = position ?? start;
      tokens.forEach((token, i) => token.setAttribute("aria-selected", String(i === at)));
      tokens.forEach((token, i) => token.classList.toggle("follows", i === at + 1));
      const before = facts.tokens.slice(Math.max(0, at - 3), at + 1);
      const heading = element("p", "part-title", "After ");
      heading.append(element("span", "context", (at > 3 ? "…" : "") + before.join("")), ` (position ${at})`);
      if (at >= facts.guesses.length) {
        place.replaceChildren(heading, element("p", "remark", "There is no guess after the last token."));
        return;
      }
      const rank = facts.ranks[at];
      const bars = facts.guesses[at].map((guess, i) => bar(guess, facts.probabilities[at][i], i === rank));
      place.replaceChildren(heading, element("ol", "bars", ...bars));
      const rest = 1 - facts.probabilities[at].reduce((sum, probability) => sum + probability, 0);
      let remark = `All other tokens together: ${(100 * Math.max(0, rest)).toFixed(1)} %.`;
      if (rank === -1) remark = `What came next, “${facts.tokens[at + 1]}”, is not among these guesses. ` + remark;
      if (rank === null) remark = "The text ends here. " + remark;
      place.append(element("p", "remark", remark));
    }

    const start = Math.max(0, facts.ranks.indexOf(0));
    kit.roam(list, [tokens], show, [0, start]);
    show(0, start);
    block.dataset.state = "drawn";
  });
})();
