// Plans: which channels are gone at a step, and the plan.json of it.
page.gone = (step) => {
  const { steps, network } = page.data;
  if (!network || step.plan === null) return null;
  const gone = new Uint8Array(network.channels);
  const base = steps.filter((one) => one.kind === "kept" && one.step < step.step);
  if (step.kind === "back") base.push(...steps.filter((o) => o.kind === "kept" && o.step === step.step));
  for (const one of [...base, step]) {
    if (one.plan === null) return null;
    for (const channel of page.decoded(one.plan)) gone[channel] = 1;
  }
  return gone;
};

// Numbers as gaps and lengths of runs, to the base of 36: "0.3,6" is 0, 1, 2, 9.
page.decoded = (code) => {
  const numbers = [];
  let end = 0;
  for (const word of code ? code.split(",") : []) {
    const [gap, count] = word.split(".");
    const first = end + parseInt(gap, 36);
    end = first + (count ? parseInt(count, 36) : 1);
    for (let number = first; number < end; number += 1) numbers.push(number);
  }
  return numbers;
};

// The numbers of the filters of a layer that are gone.
page.removed = (layer, gone) => {
  const found = [];
  let filter = 0;
  for (const [first, count] of layer.channels) {
    for (let k = 0; k < count; k += 1, filter += 1) {
      if (first + k >= 0 && gone[first + k]) found.push(filter);
    }
  }
  return found;
};

page.plan = (step) => {
  const gone = page.gone(step);
  if (gone === null) return null;
  const removed = Object.create(null); // a layer may be called __proto__
  for (const layer of page.data.network.layers) {
    const filters = page.removed(layer, gone);
    if (filters.length) removed[layer.name] = filters;
  }
  const asked = Object.entries(page.data.plan).filter(([, names]) => names.length);
  return { format: 1, ...Object.fromEntries(asked), removed };
};

page.download = (name, text) => {
  const link = page.element("a", { download: name });
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
};

// Everything that shows a step listens to this.
page.listeners = [];
page.choose = (number) => {
  page.chosen = number;
  for (const listener of page.listeners) listener(page.data.steps[number], number);
};

for (const button of document.querySelectorAll("[data-step]")) {
  button.addEventListener("click", () => {
    page.choose(Number(button.dataset.step));
    document.getElementById("chart").scrollIntoView();
    document.getElementById("plot")?.focus({ preventScroll: true });
  });
}
page.listeners.push((step, number) => {
  const rows = document.querySelectorAll("#step-table tr.chosen");
  for (const row of rows) row.classList.remove("chosen");
  document.querySelector(`[data-step="${number}"]`)?.closest("tr").classList.add("chosen");
});
