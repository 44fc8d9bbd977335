"use strict";
// What all parts of the page share: the data, elements, and figures as text.
const page = {
  data: JSON.parse(document.getElementById("data").textContent),
  dark: matchMedia("(prefers-color-scheme: dark)"),
};

page.colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Names come from models and files: no browser shall obey a character in them.
page.harmless = (text) =>
  text.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, (one) => `\\u{${one.codePointAt(0).toString(16)}}`);

page.shown = (child) => (typeof child === "string" ? page.harmless(child) : child);

page.element = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, page.shown(value));
  made.append(...children.map(page.shown));
  return made;
};

page.svg = (tag, attributes = {}, ...children) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, page.shown(value));
  made.append(...children.map(page.shown));
  return made;
};

page.percent = (share, digits = 1) =>
  share === null || share === undefined ? "\u2013" : (100 * share).toFixed(digits) + " %";

// Ticks of an axis of shares, with a decimal only where they are less than 1 % apart.
page.shares = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5];
page.shareTicks = (u, ticks) =>
  ticks.map((tick) => page.percent(tick, ticks.length > 1 && ticks[1] - ticks[0] < 0.0099 ? 1 : 0));

// The same of scores, of which there are none above 1.
page.scoreTicks = (u, ticks) =>
  page.shareTicks(u, ticks).map((text, k) => (ticks[k] > 1.0001 ? "" : text));

page.points = (change) =>
  (change < 0 ? "\u2212" : "+") + Math.abs(100 * change).toFixed(1) + " points";

page.amount = (number) => {
  if (number === null || number === undefined) return "unknown";
  let unit = 0;
  while (Math.abs(number) >= 1000 && unit < 4) {
    number /= 1000;
    unit += 1;
  }
  const text = unit ? number.toPrecision(3) : String(Math.round(number));
  return text + ["", " k", " M", " G", " T"][unit];
};

page.ms = (time) =>
  time === null || time === undefined ? "\u2013" : time.toPrecision(3) + " ms";

for (const part of document.querySelectorAll(".needs-script")) part.hidden = false;

for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const source = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(source); // a page from a file may not write there
      button.textContent = "Selected: copy it";
    }
  });
}

addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details")) part.open = true;
});
