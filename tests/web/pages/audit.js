// What is wrong with a page for those who cannot see it as it was drawn: run in the page, gives a list of complaints.
() => {
  const wrong = [];
  const shown = (e) => e.getClientRects().length && getComputedStyle(e).visibility !== "hidden";
  const brief = (e) => `${e.tagName.toLowerCase()}.${e.getAttribute("class") || ""} ${e.textContent.trim().slice(0, 40)}`;

  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  for (const id of new Set(ids.filter((id, at) => ids.indexOf(id) !== at))) wrong.push(`id twice: ${id}`);

  let last = 0;
  const headings = [...document.querySelectorAll("h1, h2, h3, h4")].filter(shown);
  if (headings.filter((e) => e.tagName === "H1").length !== 1) wrong.push("not one h1");
  for (const heading of headings) {
    const level = Number(heading.tagName[1]);
    if (level > last + 1) wrong.push(`heading jumps: ${brief(heading)}`);
    if (!heading.textContent.trim()) wrong.push("heading is empty");
    last = level;
  }

  const nameOf = (e) => {
    if (e.getAttribute("aria-label")) return e.getAttribute("aria-label");
    if (e.labels && e.labels.length) return [...e.labels].map((l) => l.textContent).join(" ");
    return e.textContent || e.getAttribute("title") || "";
  };
  for (const e of document.querySelectorAll("a[href], button, input:not([type=hidden]), select, textarea, meter, img, audio, video")) {
    if (!shown(e) || e.closest("[aria-hidden=true]")) continue;
    if (e.tagName === "IMG") { if (!e.hasAttribute("alt")) wrong.push("img without alt"); continue; }
    if (!nameOf(e).trim()) wrong.push(`no name: ${e.outerHTML.slice(0, 90)}`);
  }
  for (const e of document.querySelectorAll("[aria-labelledby]"))
    if (!document.getElementById(e.getAttribute("aria-labelledby"))) wrong.push(`labelled by nothing: ${brief(e)}`);
  for (const e of document.querySelectorAll("[aria-hidden=true] a, [aria-hidden=true] button"))
    if (e.tabIndex >= 0) wrong.push(`hidden, and in the tab order: ${brief(e)}`);
  for (const landmark of ["header", "main", "footer", "nav"])
    if (!document.querySelector(landmark)) wrong.push(`no ${landmark}`);
  const navs = [...document.querySelectorAll("nav")].map((e) => e.getAttribute("aria-label"));
  if (navs.some((name) => !name) || new Set(navs).size !== navs.length) wrong.push(`navs: ${navs}`);
  if (document.documentElement.lang !== "en") wrong.push("no language");
  if (!document.title.trim()) wrong.push("no title");
  for (const e of document.querySelectorAll("th")) if (!e.scope) wrong.push(`th without scope: ${brief(e)}`);
  for (const e of document.querySelectorAll("table")) if (!e.caption) wrong.push("table without caption");
  if (document.querySelector("[style]")) wrong.push("style attribute");

  const colour = (text) => {
    const m = text.match(/^rgba?\(([^)]+)\)$/);
    if (m) { const [r, g, b, a = 1] = m[1].split(/[ ,/]+/).map(Number); return [r, g, b, a]; }
    const n = text.match(/^color\(srgb ([^)]+)\)$/);
    if (n) { const [r, g, b, a = 1] = n[1].split(/[ /]+/).map(Number); return [r * 255, g * 255, b * 255, a]; }
    return [0, 0, 0, 0];
  };
  const over = (top, low) => [0, 1, 2].map((c) => top[c] * top[3] + low[c] * (1 - top[3])).concat(1);
  const light = (c) => {
    const [r, g, b] = c.map((v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (e) => {
    const layers = [];
    for (let at = e; at; at = at.parentElement) {
      const c = colour(getComputedStyle(at).backgroundColor);
      if (c[3] > 0) layers.push(c);
      if (c[3] === 1) break;
    }
    return layers.reverse().reduce((low, top) => over(top, low), [255, 255, 255, 1]);
  };
  const told = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !shown(e) || e.closest(".sr, script, svg, option, .skip")) continue;
    const style = getComputedStyle(e);
    const low = behind(e);
    let alpha = 1;
    for (let at = e; at; at = at.parentElement) alpha *= Number(getComputedStyle(at).opacity);
    const fore = colour(style.color);
    const top = over([...fore.slice(0, 3), fore[3] * alpha], low);
    const [a, b] = [light(top), light(low)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && Number(style.fontWeight) >= 700);
    const complaint = `contrast ${ratio.toFixed(2)}: ${brief(e)}`;
    if (ratio < (large ? 3 : 4.5) && !told.has(complaint)) { told.add(complaint); wrong.push(complaint); }
  }
  const labels = [...document.querySelectorAll(".treemap a, .treemap g")];
  for (const cell of labels) {
    const text = cell.querySelector("text"), rect = cell.querySelector("rect");
    if (!text) continue;
    const [a, b] = [light(colour(getComputedStyle(text).fill)), light(colour(getComputedStyle(rect).fill))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) wrong.push(`contrast in the treemap: ${text.textContent}`);
  }

  for (const e of document.querySelectorAll("td:not(.get), th, dt, dd, bdi, h1, h2, h3")) {
    const box = e.getBoundingClientRect(), letters = e.textContent.trim().length;
    if (letters > 4 && shown(e) && !e.closest(".sr, svg, pre") && box.width < 60 && box.height > 80)
      wrong.push(`squeezed: ${brief(e)}`);
  }
  const room = Math.min(innerWidth, screen.width); // a phone's window grows with what is in it
  const wide = [...document.body.querySelectorAll("*")].find((e) => {
    const box = e.getBoundingClientRect();
    return box.right > room + 1 && shown(e) && !e.closest(".scroll, .code, .sr, svg, .skip") && box.width > 1;
  });
  if (document.documentElement.scrollWidth > room) wrong.push(`wider than the window: ${wide ? brief(wide) : ""}`);
  return wrong;
}
