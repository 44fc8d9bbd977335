// The drawing of the network: what went where, at the step that is chosen.
page.net = {
  place: document.getElementById("drawing"),
  panel: document.getElementById("box"),
  marks: [], // one element of each box, in the order of the network
  scale: 1,
  layers: new Map(page.data.network.layers.map((layer) => [layer.name, layer])),
};

page.net.widths = (box) => {
  const layer = page.net.layers.get(box.node);
  if (!box.layer || !layer) return null;
  const before = layer.channels.reduce((sum, [, count]) => sum + count, 0);
  const gone = page.net.gone ? page.removed(layer, page.net.gone).length : 0;
  return [before, before - gone];
};

page.net.mark = (box, number) => {
  const { svg } = page;
  const group = box.group === null ? null : page.data.network.groups[box.group];
  const classes = [box.pins ? "pins" : "", box.layer && !box.removable ? "stays" : ""];
  const mark = svg("g", { class: classes.join(" ").trim(), role: "button", tabindex: number ? -1 : 0 });
  const radius = box.layer ? 3 : box.h / 2;
  mark.append(svg("rect", { class: "frame", x: box.x, y: box.y, width: box.w, height: box.h, rx: radius }));
  if (!box.layer) {
    mark.append(svg("text", { class: "centred", x: box.x + box.w / 2, y: box.y + 14 }, box.label));
    return mark;
  }
  mark.append(svg("rect", { class: "gone", y: box.y + box.h - 6, height: 5 }));
  if (group?.colour) {
    mark.append(svg("rect", { x: box.x + 1, y: box.y + 1, width: 6, height: box.h - 2, rx: 2, fill: group.colour }));
  }
  mark.append(svg("text", { x: box.x + 11, y: box.y + 13 }, box.label + " "));
  mark.append(svg("text", { class: "small widths", x: box.x + 11, y: box.y + 26 }));
  if (box.group !== null) {
    mark.append(svg("text", { class: "small end", x: box.x + box.w - 6, y: box.y + 26 }, `#${box.group + 1}`));
  }
  return mark;
};

page.net.fill = (box, mark) => {
  const widths = page.net.widths(box);
  const said = [box.label];
  if (box.layer && widths) {
    const [before, after] = widths;
    const share = 1 - after / Math.max(before, 1);
    const text = after === before ? `${before}` : `${before} \u2192 ${after} (\u2212${Math.round(100 * share)} %)`;
    const bar = mark.querySelector(".gone");
    bar.setAttribute("width", (box.w - 10) * share);
    bar.setAttribute("x", box.x + 8);
    mark.querySelector(".widths").textContent = text + " ";
    said.push(text);
  } else if (box.layer) {
    mark.querySelector(".widths").textContent = `${box.filters} `;
    said.push(box.filters);
  }
  if (box.layer && box.group !== null) said.push(`#${box.group + 1}`);
  mark.setAttribute("aria-label", page.harmless(said.join(" ")));
};

page.net.show = (number) => {
  const { net, element } = page;
  const box = page.data.network.boxes[number];
  const group = box.group === null ? null : page.data.network.groups[box.group];
  net.marks.forEach((mark, other) => {
    mark.setAttribute("tabindex", other === number ? 0 : -1);
    mark.classList.toggle("chosen", other === number);
    const same = group && page.data.network.boxes[other].group === box.group;
    mark.classList.toggle("same-group", Boolean(same) && other !== number);
  });
  const widths = net.widths(box);
  const costs = page.data.layers[box.node] ?? {};
  const lines = [...box.facts];
  if (widths) lines.push(`width ${widths[0]} \u2192 ${widths[1]}`);
  for (const [key, text] of [["params", page.amount], ["macs", page.amount], ["ms", page.ms]]) {
    const unit = { params: " parameters", macs: " MACs", ms: "" }[key];
    if (costs[key]) lines.push(`${text(costs[key][0])} \u2192 ${text(costs[key][1])}${unit} at the end of the run`);
  }
  if (group?.reasons.length) {
    lines.push(`of ${group.channels} channels ${group.channels - group.removable} stay`);
  }
  const list = element("ul", {}, ...lines.map((line) => element("li", {}, line)));
  net.panel.replaceChildren(element("b", {}, box.name), list, ...net.spread(costs.scores));
};

// How the filters of a layer were scored: bars of those that stay, on them those that went.
page.net.spread = (spread) => {
  const { svg, element } = page;
  if (!spread) return [];
  const most = Math.max(1, ...spread.kept.map((count, k) => count + spread.gone[k]));
  const sum = (counts) => counts.reduce((one, other) => one + other, 0);
  const said = `Scores of its filters, from ${spread.low.toPrecision(3)} to ${spread.high.toPrecision(3)}: `;
  const sides = { kept: `${sum(spread.kept)} stay`, went: `${sum(spread.gone)} went at the end of the run` };
  const [wide, high] = [14, 60];
  const drawn = svg("svg", { class: "spread", role: "img", "aria-label": `${said}${sides.kept}, ${sides.went}`, width: wide * spread.kept.length, height: high });
  spread.kept.forEach((kept, k) => {
    let y = high;
    for (const [count, side] of [[kept, "kept"], [spread.gone[k], "went"]]) {
      const height = (count / most) * high;
      y -= height;
      drawn.append(svg("rect", { class: side, x: k * wide, y, width: wide - 1, height }));
    }
  });
  const key = Object.entries(sides).map(([side, text]) => element("li", {}, element("i", { class: side }), text));
  return [element("p", { class: "muted" }, said), drawn, element("ul", { class: "legend" }, ...key)];
};

page.net.zoom = (scale, around) => {
  const { net } = page;
  const before = net.scale;
  net.scale = Math.min(Math.max(scale, 0.15), 4);
  const { width, height } = page.data.network;
  net.svg.setAttribute("width", (width + 20) * net.scale);
  net.svg.setAttribute("height", (height + 20) * net.scale);
  const [x, y] = around ?? [net.place.clientWidth / 2, net.place.clientHeight / 2];
  const grown = net.scale / before;
  net.place.scrollLeft = (net.place.scrollLeft + x) * grown - x;
  net.place.scrollTop = (net.place.scrollTop + y) * grown - y;
};

page.net.fit = () => page.net.place.clientWidth / (page.data.network.width + 24);

page.net.key = (event) => {
  const { net } = page;
  const now = net.marks.indexOf(document.activeElement);
  const last = net.marks.length - 1;
  const to = { ArrowRight: now + 1, ArrowDown: now + 1, ArrowLeft: now - 1, ArrowUp: now - 1, Home: 0, End: last }[event.key];
  if (event.key === "+" || event.key === "=") net.zoom(net.scale * 1.25);
  else if (event.key === "-") net.zoom(net.scale / 1.25);
  else if (event.key === "Enter" || event.key === " ") net.show(Math.max(now, 0));
  else if (to === undefined) return;
  else net.marks[Math.min(Math.max(to, 0), last)].focus();
  event.preventDefault();
};

page.net.start = () => {
  const { net, svg } = page;
  const { boxes, lines, width, height } = page.data.network;
  net.svg = svg("svg", { viewBox: `-10 -10 ${width + 20} ${height + 20}` });
  net.svg.append(...lines.map((d) => svg("path", { class: "edge", d })));
  net.marks = boxes.map(net.mark);
  net.marks.forEach((mark, number) => {
    mark.addEventListener("click", () => {
      mark.focus();
      net.show(number);
    });
    mark.addEventListener("focus", () => net.show(number));
  });
  net.svg.append(...net.marks);
  net.place.append(net.svg);
  const draw = (step) => {
    net.gone = step ? page.gone(step) : null;
    boxes.forEach((box, number) => net.fill(box, net.marks[number]));
    const chosen = net.marks.findIndex((mark) => mark.classList.contains("chosen"));
    if (chosen >= 0) net.show(chosen);
  };
  page.listeners.push(draw);
  draw(page.data.steps.findLast((step) => step.kind === "kept"));
  net.zoom(Math.min(Math.max(net.fit(), 0.9), 1.2));
  net.place.scrollTo(0, 0);
  net.place.addEventListener("keydown", net.key);
  net.place.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const frame = net.place.getBoundingClientRect();
    net.zoom(net.scale * (event.deltaY < 0 ? 1.15 : 1 / 1.15), [event.clientX - frame.left, event.clientY - frame.top]);
  }, { passive: false });
  const zooms = { in: () => net.zoom(net.scale * 1.25), out: () => net.zoom(net.scale / 1.25), fit: () => net.zoom(net.fit()) };
  for (const button of document.querySelectorAll("[data-zoom]")) {
    button.addEventListener("click", zooms[button.dataset.zoom]);
  }
};
page.net.start();
