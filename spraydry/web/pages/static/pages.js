// What makes the pages quicker to use; all of them work without it.
"use strict";

const rows = () => Array.from(document.querySelectorAll("[data-row]")).filter((row) => row.offsetParent !== null);

function move(by) {
  const all = rows();
  if (!all.length) return;
  const at = all.indexOf(document.activeElement);
  const next = at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(Math.max(at + by, 0), all.length - 1);
  all[next].focus();
  all[next].scrollIntoView({ block: "nearest" });
}

const follow = (selector) => {
  const link = document.querySelector(selector);
  if (link) link.click();
  return Boolean(link);
};

const keys = {
  j: () => move(1),
  k: () => move(-1),
  ArrowDown: () => (document.activeElement && document.activeElement.matches("[data-row]") ? move(1) : false),
  ArrowUp: () => (document.activeElement && document.activeElement.matches("[data-row]") ? move(-1) : false),
  u: () => follow("[data-up]"),
  n: () => follow("[rel=next]"),
  p: () => follow("[rel=prev]"),
  "/": () => {
    const field = document.querySelector("[data-search]");
    if (!field) return false;
    field.focus();
    field.select();
  },
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  const field = event.target.closest("input, select, textarea");
  if (field) {
    if (event.key === "Escape") field.blur();
    return;
  }
  const action = keys[event.key];
  if (action && action() !== false) event.preventDefault();
});

for (const select of document.querySelectorAll("select[data-submit]")) {
  // With the keyboard a choice is complete when the field is left or Enter is pressed, not at each arrow key.
  let byKey = false;
  select.addEventListener("keydown", (event) => {
    byKey = event.key !== "Enter";
    if (event.key === "Enter") select.form.requestSubmit();
  });
  select.addEventListener("pointerdown", () => { byKey = false; });
  select.addEventListener("change", () => { if (!byKey) select.form.requestSubmit(); });
}

for (const hint of document.querySelectorAll("[data-keys]")) hint.hidden = false;

for (const digest of document.querySelectorAll(".digest")) {
  if (!navigator.clipboard || !/^[0-9a-f]{64}$/.test(digest.textContent)) continue;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "plain copy";
  button.textContent = "Copy";
  button.setAttribute("aria-label", "Copy the digest");
  const value = digest.textContent;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(value);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  digest.after(button);
}
