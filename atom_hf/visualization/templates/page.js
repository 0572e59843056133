"use strict";
const $ = (query, within = document) => [...within.querySelectorAll(query)];
const count = (number) => number.toLocaleString("en");
const make = (tag, what = {}) => Object.assign(document.createElement(tag), what);

// Light or dark: the system's choice until the button is pressed.
const root = document.documentElement;
const systemDark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : systemDark.matches);
const theme = make("button", { type: "button", className: "theme" });
const nameTheme = () => (theme.textContent = isDark() ? "Light" : "Dark") && (theme.ariaLabel = theme.textContent + " colours");
theme.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  nameTheme();
});
systemDark.addEventListener("change", nameTheme);
nameTheme();
$(".top")[0].append(theme);

// The value of a word: under the pointer, at a tap, or by arrow keys from word to word.
const tip = make("div", { id: "tip", role: "tooltip", hidden: true });
$("main")[0].append(tip);
let shown = null;
function show(word) {
  if (shown) shown.removeAttribute("aria-describedby");
  shown = word;
  tip.hidden = !word;
  if (!word) return;
  if (word.title) {
    word.dataset.says = word.title;
    word.removeAttribute("title");
  }
  tip.textContent = word.dataset.says;
  word.setAttribute("aria-describedby", "tip");
  const at = word.getClientRects()[0];
  const left = Math.min(at.left, innerWidth - tip.offsetWidth - 8);
  tip.style.left = Math.max(8, left) + "px";
  tip.style.top = (at.top > tip.offsetHeight + 10 ? at.top - tip.offsetHeight - 6 : at.bottom + 6) + "px";
}
function go(from, to) {
  if (!to) return;
  from.tabIndex = -1;
  to.tabIndex = 0;
  to.focus();
}
for (const text of $(".words")) {
  const first = text.querySelector(".w");
  if (first) first.tabIndex = 0;
  const near = (event) => event.target.closest(".w");
  text.addEventListener("pointerover", (event) => near(event) && show(near(event)));
  text.addEventListener("pointerout", () => show(document.activeElement.matches(".w") ? document.activeElement : null));
  text.addEventListener("focusin", (event) => show(near(event)));
  text.addEventListener("focusout", () => show(null));
  text.addEventListener("click", (event) => near(event) && go(text.querySelector("[tabindex='0']"), near(event)));
  text.addEventListener("keydown", (event) => {
    const word = near(event);
    const forward = getComputedStyle(text).direction === "rtl" ? "ArrowLeft" : "ArrowRight";
    const steps = { ArrowLeft: -1, ArrowRight: -1, ArrowUp: -1, ArrowDown: 1, Home: -Infinity, End: Infinity, [forward]: 1 };
    if (event.key === "Escape") show(null);
    if (!word || !(event.key in steps)) return;
    event.preventDefault();
    const all = $(".w", text);
    go(word, all[Math.min(Math.max(all.indexOf(word) + steps[event.key], 0), all.length - 1)]);
  });
}
addEventListener("scroll", () => shown && show(shown), { passive: true });

// All samples: sorted by any column, filtered by words and by being wrong.
for (const table of $("table.samples")) {
  const rows = $("tbody tr", table);
  const heads = $("thead th", table);
  const names = new Intl.Collator(undefined, { numeric: true });
  heads.forEach((head, column) => {
    const button = make("button", { type: "button", textContent: head.textContent });
    head.replaceChildren(button);
    head.ariaSort = "none";
    const numeric = head.classList.contains("number");
    const key = (row) => row.cells[column].dataset.v ?? row.cells[column].textContent;
    button.addEventListener("click", () => {
      const down = head.ariaSort === "ascending" || (numeric && head.ariaSort !== "descending");
      heads.forEach((other) => (other.ariaSort = other === head ? (down ? "descending" : "ascending") : "none"));
      const sorted = [...rows].sort((a, b) => {
        const [one, two] = [key(a), key(b)];
        // What is unknown stays last in either direction.
        if (one === "" || two === "") return (one === "") - (two === "");
        const order = numeric ? one - two : names.compare(one, two);
        return down ? -order : order;
      });
      table.tBodies[0].append(...sorted);
    });
  });

  const tools = make("div", { className: "tools" });
  const label = make("label", { textContent: "Find " });
  const find = make("input", { type: "search" });
  label.append(find);
  const told = make("span", { className: "hint", role: "status" });
  let only = null;
  const filter = () => {
    const wanted = find.value.trim().toLocaleLowerCase();
    let left = 0;
    for (const row of rows) {
      const away = !row.textContent.toLocaleLowerCase().includes(wanted) || (only?.checked && !row.classList.contains("miss"));
      row.hidden = away;
      document.getElementById("sample-" + row.dataset.sample).hidden = away;
      left += !away;
    }
    const all = count(rows.length) + " samples";
    told.textContent = left === rows.length ? all : count(left) + " of " + all;
  };
  tools.append(label);
  if (rows.some((row) => row.classList.contains("miss"))) {
    const box = make("label", { textContent: "Only wrong " });
    only = make("input", { type: "checkbox" });
    box.prepend(only);
    tools.append(box);
    only.addEventListener("change", filter);
  }
  tools.append(told);
  find.addEventListener("input", filter);
  table.parentElement.before(tools);
  filter();
}

// A mark of the map leads to its sample.
for (const map of $(".map")) {
  map.addEventListener("click", (event) => {
    const mark = event.target.closest("[data-s]");
    if (mark) location.hash = "sample-" + mark.dataset.s;
  });
}
