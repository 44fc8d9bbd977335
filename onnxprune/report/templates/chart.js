// The trade-off: accuracy over what is left, with every step of the run.
page.over = {
  macs: { title: "MACs", text: page.amount },
  ms: { title: "Milliseconds", text: page.ms },
  bytes: { title: "File size", text: (bytes) => (bytes / 1e6).toPrecision(3) + " MB" },
  params: { title: "Parameters", text: page.amount },
  rate: { title: "Removed share", text: page.percent },
};
page.between = {
  ms: "Milliseconds were measured before and after; those between are estimated by the MACs.",
  bytes: "File sizes between before and after are estimated by the parameters.",
};

page.chart = {
  place: document.getElementById("plot"),
  over: document.getElementById("chart-over"),
  line: document.getElementById("chart-class"),
  back: document.getElementById("chart-back"),
  tip: page.element("div", { class: "tip", hidden: "" }),
  plot: null,
  order: [], // numbers of steps, by what the chart is drawn over
};

page.stepName = (step) =>
  `Step ${step.step}${step.kind === "back" ? ", taken back" : ""}${step.corrected ? ", weights corrected" : ""}`;

page.stepFacts = (step) => {
  const facts = [page.percent(step.rate) + " removed"];
  for (const key of ["macs", "ms", "bytes", "params"]) {
    if (step[key] === null) continue;
    const unit = { macs: " MACs", params: " parameters" }[key] ?? "";
    facts.push(page.over[key].text(step[key]) + unit);
  }
  return `${facts.join(", ")}; mean ${page.percent(step.mean)}, harmonic ${page.percent(step.harmonic)}`;
};

page.chart.columns = () => {
  const { chart, data } = page;
  const key = chart.over.value;
  chart.order = data.steps
    .map((step, number) => number)
    .filter((number) => data.steps[number][key] !== null && data.steps[number].harmonic !== null)
    .filter((number) => chart.back.checked || data.steps[number].kind === "kept")
    .sort((a, b) => data.steps[a][key] - data.steps[b][key]);
  const steps = chart.order.map((number) => data.steps[number]);
  const only = (kind, value) => steps.map((step) => (step.kind === kind ? value(step) : null));
  const line = data.lines[chart.line.value];
  return [
    steps.map((step) => step[key]),
    only("kept", (step) => step.mean),
    only("kept", (step) => step.harmonic),
    only("back", (step) => step.harmonic),
    only("kept", (step) => (line ? line.values[step.step] : null)),
    steps.map(() => data.floor),
  ];
};

page.chart.series = () => {
  const { chart, colour } = page;
  const line = page.data.lines[chart.line.value];
  const dot = (name, size, hollow) => ({
    show: true, size, stroke: colour(name), fill: hollow ? colour("--paper") : colour(name),
  });
  const none = () => null;
  return [
    {},
    { stroke: colour("--muted"), width: 1.2, spanGaps: true, points: dot("--muted", 5) },
    { stroke: colour("--accent"), width: 2, spanGaps: true, points: dot("--accent", 7) },
    { stroke: colour("--bad"), paths: none, points: { ...dot("--bad", 8, true), width: 2 } },
    { show: Boolean(line), stroke: colour("--good"), width: 1.5, spanGaps: true, points: dot("--good", 5) },
    { show: page.data.floor !== null, stroke: colour("--ink"), width: 1, dash: [4, 4], spanGaps: true, points: { show: false } },
  ];
};

page.chart.draw = () => {
  const { chart, colour } = page;
  const columns = chart.columns();
  const over = page.over[chart.over.value];
  const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") } };
  const values = columns.slice(1).flat().filter((value) => value !== null);
  const lowest = Math.min(...values);
  const floor = Math.max(0, lowest - 0.15 * (1 - lowest) - 0.01);
  chart.plot?.destroy();
  chart.plot = new uPlot({
    width: chart.place.clientWidth,
    height: Math.min(340, Math.max(240, chart.place.clientWidth * 0.5)),
    scales: { x: { time: false }, y: { range: [floor, Math.max(1, ...values) + 0.005] } },
    axes: [
      { ...axis, label: over.title, labelSize: 24, space: 80, values: (u, ticks) => ticks.map(over.text) },
      { ...axis, size: 68, incrs: page.shares, values: page.scoreTicks },
    ],
    series: chart.series(),
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: { show: false } },
    hooks: { setCursor: [(u) => chart.hover(u.cursor.idx)] },
  }, columns, chart.place);
  chart.plot.over.append(chart.tip);
  chart.plot.over.addEventListener("click", () => {
    if (chart.plot.cursor.idx !== null) page.choose(chart.order[chart.plot.cursor.idx]);
  });
  const note = page.between[chart.over.value] ?? "";
  document.getElementById("chart-note").textContent = note;
};

page.chart.hover = (place) => {
  const { chart } = page;
  chart.tip.hidden = place === null || place === undefined;
  if (chart.tip.hidden || !chart.plot) return;
  const step = page.data.steps[chart.order[place]];
  const line = page.data.lines[chart.line.value];
  const lines = [page.stepName(step), ...page.stepFacts(step).split(/; |, (?=harmonic)/)];
  if (line && step.kind === "kept") lines.push(`${line.name} ${page.percent(line.values[step.step])}`);
  chart.tip.replaceChildren(...lines.map((text) => page.element("div", {}, text)));
  const left = chart.plot.valToPos(step[chart.over.value], "x");
  const width = chart.plot.over.clientWidth;
  chart.tip.style.left = `${Math.max(0, Math.min(left + 10, width - chart.tip.offsetWidth))}px`;
  chart.tip.style.top = `${Math.max(0, chart.plot.valToPos(step.harmonic, "y") - 90)}px`;
  chart.place.setAttribute("aria-valuenow", place);
  chart.place.setAttribute("aria-valuetext", `${page.stepName(step)}: ${page.stepFacts(step)}`);
};

page.chart.move = (place) => {
  const { chart } = page;
  const step = page.data.steps[chart.order[place]];
  const left = chart.plot.valToPos(step[chart.over.value], "x");
  chart.plot.setCursor({ left, top: chart.plot.valToPos(step.harmonic, "y") });
  chart.hover(place);
};

page.chart.key = (event) => {
  const { chart } = page;
  const last = chart.order.length - 1;
  const now = Number(chart.place.getAttribute("aria-valuenow"));
  const to = { ArrowRight: now + 1, ArrowUp: now + 1, ArrowLeft: now - 1, ArrowDown: now - 1, Home: 0, End: last }[event.key];
  if (event.key === "Enter" || event.key === " ") page.choose(chart.order[now]);
  else if (to === undefined) return;
  else chart.move(Math.min(Math.max(to, 0), last));
  event.preventDefault();
};

page.quoted = (word) => (/^[\w./:@%+=-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);

page.listeners.push((step) => {
  const panel = document.getElementById("step");
  const bold = page.element("b", {}, page.stepName(step) + ". ");
  const parts = [page.element("p", {}, bold, page.stepFacts(step) + ".")];
  const plan = page.plan(step);
  if (plan === null) {
    parts.push(page.element("p", {}, "Its plan is not in this page; journal.jsonl has its channels."));
  } else {
    const number = page.data.steps.indexOf(step);
    const file = `plan-${step.step}${step.kind === "back" ? `-back-${number}` : ""}.json`;
    const shapes = page.data.shapes.map((one) => ` --input-shape ${page.quoted(one)}`).join("");
    const command = `onnxprune apply ${page.quoted(page.data.model)} ${file} -o small-${step.step}.onnx${shapes}`;
    const button = page.element("button", { type: "button" }, `Download ${file}`);
    button.addEventListener("click", () => page.download(file, JSON.stringify(plan, null, 1) + "\n"));
    parts.push(page.element("code", {}, command), button);
    if (step.corrected) {
      parts.push(page.element("p", { class: "muted" }, "Its weights were corrected. A plan has no weights: apply gives the network without the correction."));
    }
  }
  panel.replaceChildren(...parts);
});

page.chart.legend = () => {
  const line = page.data.lines[page.chart.line.value];
  const entries = [["--accent", "harmonic mean"], ["--muted", "mean"]];
  if (page.chart.back.checked && page.data.steps.some((step) => step.kind === "back")) {
    entries.push(["--bad", "taken back (ring)"]);
  }
  if (line) entries.push(["--good", line.name]);
  if (page.data.floor !== null) entries.push(["--ink", "floor (dashed)"]);
  document.getElementById("chart-legend").replaceChildren(...entries.map(([name, text]) =>
    page.element("li", {}, page.element("i", { style: `background: var(${name})` }), text)));
};

page.chart.start = () => {
  const { chart, data } = page;
  for (const [key, { title }] of Object.entries(page.over)) {
    const values = new Set(data.steps.map((step) => step[key]).filter((value) => value !== null));
    if (values.size > 1 || key === "rate") chart.over.append(page.element("option", { value: key }, title));
  }
  chart.line.append(page.element("option", { value: "" }, "none"));
  data.lines.forEach((line, number) => {
    chart.line.append(page.element("option", { value: number }, line.name));
  });
  document.getElementById("chart-class-label").hidden = data.lines.length === 0;
  const again = () => {
    chart.draw();
    chart.legend();
  };
  for (const control of [chart.over, chart.line, chart.back]) control.addEventListener("change", again);
  page.dark.addEventListener("change", again);
  chart.place.addEventListener("keydown", chart.key);
  chart.place.addEventListener("focus", () => chart.move(Number(chart.place.getAttribute("aria-valuenow"))));
  let width = chart.place.clientWidth;
  new ResizeObserver(() => {
    if (chart.place.clientWidth === width) return;
    width = chart.place.clientWidth;
    chart.draw();
  }).observe(chart.place);
  again();
};
page.chart.start();
