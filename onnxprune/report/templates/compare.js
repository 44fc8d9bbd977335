// Curves of several runs: the harmonic mean over what is left.
page.lines = ["--accent", "--bad", "--good", "--unknown", "--muted", "--ink"];
page.dashes = [[], [8, 4], [2, 3]];

page.curve = {
  place: document.getElementById("plot"),
  over: document.getElementById("chart-over"),
  plot: null,
};

// What a run has left, as a share of what it began with, so that models of any size compare.
page.curve.points = (run, key) => {
  const whole = run.steps[0]?.[key];
  return run.steps
    .filter((step) => step.harmonic !== null && step[key] !== null)
    .map((step) => [key === "rate" ? 1 - step.rate : step[key] / whole, step.harmonic]);
};

page.curve.draw = () => {
  const { curve, colour } = page;
  const curves = page.data.runs.map((run) => curve.points(run, curve.over.value));
  const all = [...new Set(curves.flat().map(([x]) => x))].sort((a, b) => a - b);
  const columns = curves.map((points) => {
    const found = new Map(points);
    return all.map((x) => found.get(x) ?? null);
  });
  const lowest = Math.min(...curves.flat().map(([, y]) => y));
  const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") } };
  curve.plot?.destroy();
  curve.plot = new uPlot({
    width: curve.place.clientWidth,
    height: Math.min(360, Math.max(240, curve.place.clientWidth * 0.5)),
    scales: { x: { time: false }, y: { range: [Math.max(0, lowest - 0.02), 1.005] } },
    axes: [
      { ...axis, space: 70, values: page.shareTicks },
      { ...axis, size: 68, incrs: page.shares, values: page.scoreTicks },
    ],
    series: [{}, ...curves.map((_, k) => ({
      stroke: colour(page.lines[k % page.lines.length]),
      dash: page.dashes[Math.floor(k / page.lines.length) % page.dashes.length],
      width: 2,
      spanGaps: true,
      points: { show: true, size: 6, fill: colour(page.lines[k % page.lines.length]) },
    }))],
    legend: { show: false },
    cursor: { drag: { x: false, y: false } },
  }, [all, ...columns], curve.place);
};

page.curve.start = () => {
  const { curve, data } = page;
  const titles = { macs: "MACs left", ms: "milliseconds left (estimated)", bytes: "file size left", params: "parameters left", rate: "filters left" };
  for (const [key, title] of Object.entries(titles)) {
    if (data.runs.some((run) => curve.points(run, key).length > 1)) {
      curve.over.append(page.element("option", { value: key }, title));
    }
  }
  document.getElementById("chart-legend").replaceChildren(...data.runs.map((run, k) =>
    page.element("li", {}, page.element("i", { style: `background: var(${page.lines[k % page.lines.length]})` }), run.name)));
  curve.over.addEventListener("change", curve.draw);
  page.dark.addEventListener("change", curve.draw);
  let width = curve.place.clientWidth;
  new ResizeObserver(() => {
    if (curve.place.clientWidth === width) return;
    width = curve.place.clientWidth;
    curve.draw();
  }).observe(curve.place);
  curve.draw();
};
page.curve.start();
