"use strict";

/* What is drawn: by FLOPs, bytes, memory or time. */

const BY = {
  flops: { name: "FLOPs", unit: "flop", of: (cost) => cost.flops },
  io_bytes: { name: "bytes moved", unit: "byte", of: (cost) => cost.io_bytes },
  memory: { name: "memory", unit: "memory", of: residentBytes },
  time: { name: "time", unit: "second", of: (cost, time) => time.estimate },
};

/** Of each stage the size that its curves go over, and its name. */
const STAGES = {
  decode: { length: "decode", words: "Cached tokens" },
  prefill: { length: "prefill", words: "Prompt tokens" },
  vision: { length: "rows", words: "Rows of crops" },
};
/** Sizes that can be chosen, and the least of each. */
const LEAST = { batch: 1, prefill: 1, decode: 0, steps: 1, rows: 0, columns: 0 };

const LEGEND = { orientation: "h", yanchor: "bottom", y: 1.02, x: 0 };

/** An axis of sizes that double, marked at few of them. */
function sizeAxis(title, sizes) {
  const marked = sizes.filter((size, index) => index % Math.ceil(sizes.length / 6) === 0);
  return { type: "log", title: { text: title }, tickvals: marked, ticktext: marked.map(grouped) };
}

/** An axis of values: where they grow tenfold a logarithmic one, marked at powers of ten or, of few, at 2 and 5 too. */
function valueAxis(values) {
  const known = values.filter((value) => value > 0);
  const growth = Math.max(...known) / Math.min(...known);
  return growth > 10 ? { type: "log", dtick: growth > 100 ? 1 : "D2", exponentformat: "none" } : { rangemode: "tozero" };
}

/** As wide as the text of a sheet of paper, in A4 or letter. */
const PAPER = 640;
const printing = () => document.documentElement.classList.contains("printing");

const byId = (id) => document.getElementById(id);
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

function draw(id, description, traces, layout = {}) {
  const axis = { gridcolor: color("line"), zerolinecolor: color("line"), linecolor: color("line"), automargin: true };
  const font = { family: "system-ui, sans-serif", size: 13, color: color("text") };
  const { xaxis, yaxis, ...others } = layout;
  const plain = { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 8, r: 8, t: 8, b: 8 } };
  const axes = { xaxis: { ...axis, ...xaxis }, yaxis: { ...axis, ...yaxis } };
  byId(id).setAttribute("aria-label", description);
  const width = printing() ? PAPER : undefined;
  Plotly.react(id, traces, { height: 320, width, autosize: !width, font, legend: LEGEND, ...plain, ...axes, ...others }, { responsive: true, displayModeBar: false });
}

function cells(body, rows) {
  byId(body).replaceChildren(
    ...rows.map((row) => {
      const line = document.createElement("tr");
      Object.assign(line.dataset, row.data);
      row.cells.forEach((text, index) => {
        const cell = document.createElement(index ? "td" : "th");
        if (!index) cell.scope = "row";
        cell.textContent = text;
        cell.className = row.classes?.[index] ?? "";
        line.append(cell);
      });
      return line;
    }),
  );
}

const powersOfTwo = (first, last) => {
  const found = [];
  for (let size = first; size <= last; size *= 2) found.push(size);
  return found;
};

/** Show the page: fill the choices, then work out everything anew whenever one changes. */
function show(content, sheets) {
  const form = byId("controls");
  const choices = ["stage", "attention", "kernels", "weights", "kv", "tp"];
  const state = { by: "flops", inside: "all", ...Object.fromEntries(choices.map((name) => [name, sheets[0][name]])), ...content.start };
  const deviceNow = () => content.devices.find((device) => device.name === state.device);
  const lengthName = () => STAGES[state.stage].length;
  const lengthWords = () => STAGES[state.stage].words;
  /** The passes that are asked for, each [batch, query length, past length]; of vision [batch, rows, columns]. */
  const passesOf = (batch, length) => {
    const [b, x] = [BigInt(batch), BigInt(length)];
    if (state.stage === "vision") return [[b, x && state.columns ? x : 0n, x ? BigInt(state.columns) : 0n]];
    if (state.stage === "prefill") return [[b, x, 0n]];
    return Array.from({ length: state.steps }, (_, step) => [b, 1n, x + BigInt(step)]);
  };
  const sheetNow = () => sheets.find((sheet) => choices.every((name) => sheet[name] === state[name]));
  const costOf = (sheet, batch, length) => costOver(content, sheet, passesOf(batch, length));
  const timeOf = (sheet, batch, length) => (deviceNow() ? timeOver(sheet, passesOf(batch, length), deviceNow()) : null);

  function offer() {
    for (const name of choices) {
      const select = form.elements[name];
      const different = [...new Set(sheets.map((sheet) => sheet[name]))];
      select.replaceChildren(...different.map((text) => new Option(text, text)));
      select.closest("label").hidden = different.length < 2;
    }
  }

  /** After a choice that the others leave no sheet for, take the sheet of it that has most of them. */
  function settle(changed) {
    const alike = (sheet) => choices.filter((name) => sheet[name] === state[name]).length;
    const near = sheets.filter((sheet) => sheet[changed] === state[changed]).sort((a, b) => alike(b) - alike(a))[0];
    if (near && !sheetNow()) for (const name of choices) state[name] = near[name];
  }

  /** The largest batch whose weights, cache and peak fit into a memory; 0 where none does. */
  function largestBatch(sheet, memory) {
    const fits = (batch) => {
      const found = costOf(sheet, batch, state[lengthName()]);
      return found !== null && heldBytes(found.cost) <= memory;
    };
    let [low, high] = [0, 1];
    while (high <= content.largest_size && fits(high)) [low, high] = [high, high * 2];
    while (high - low > 1) {
      const middle = Math.floor((low + high) / 2);
      if (fits(middle)) low = middle;
      else high = middle;
    }
    return low;
  }

  function answer(sheet, found, time, most) {
    const [cost, device] = [found.cost, deviceNow()];
    const [batch, length] = [state.batch, grouped(state[lengthName()])];
    const who = batch === 1 ? "one sequence" : `${grouped(batch)} sequences`;
    const pages = batch === 1 ? "a page" : `${grouped(batch)} pages`;
    const pass = {
      decode: state.steps > 1 ? `Generating ${grouped(state.steps)} tokens for ${who} with ${length} cached ones` : `A decode step for ${who} with ${length} cached tokens`,
      prefill: `A prompt of ${length} tokens for ${who}`,
      vision: `Reading ${pages} of ${state.rows && state.columns ? `${length}×${state.columns}` : "no"} crops`,
    }[state.stage];
    const said = [
      `${pass} takes ${quantity(cost.flops, "flop")} and moves ${quantity(cost.io_bytes, "byte")}.`,
      `It holds ${quantity(heldBytes(cost), "memory")}: weights ${quantity(cost.weight_bytes, "memory")}, ` +
        `KV cache ${quantity(cost.kv_bytes, "memory")}, and ${quantity(cost.peak_activation_bytes, "memory")} of activations at the peak.`,
    ];
    if (device) {
      const memory = quantity(device.memory_bytes, "memory");
      said.push(most ? `In the ${memory} of ${device.name} fit up to ${grouped(most)} such ${state.stage === "vision" ? "pages" : "sequences"}.` : `Not even one such ${state.stage === "vision" ? "page" : "sequence"} fits into the ${memory} of ${device.name}.`);
    }
    if (time) {
      const done = batch * { decode: state.steps, prefill: state.prefill, vision: 1 }[state.stage];
      said.push(
        `${most ? "There it takes" : "If they did, it would take"} about ${quantity(time.total.estimate, "second")}, at least ${quantity(time.total.bound, "second")}, ` +
          `mostly bound by ${time.boundBy}: ${grouped(toEven(done / time.total.estimate))} ${state.stage === "vision" ? "pages" : "tokens"}/s.`,
      );
    }
    byId("answer").textContent = said.join(" ");
  }

  function notes(sheet, found, time) {
    const [said, device, length] = [[], deviceNow(), state[lengthName()]];
    const positions = { decode: length + state.steps, prefill: length, vision: 0 }[state.stage];
    const limit = content.model.max_positions;
    if (sheet.encoder_len) said.push(`The output of the encoder has ${grouped(sheet.encoder_len)} positions.`);
    if (sheet.rank) said.push(`All of this is of one rank: ${sheet.rank}.`);
    if (limit !== null && positions > limit) said.push(`${grouped(positions)} tokens are more than the ${grouped(limit)} positions of this model.`);
    if (found.piece.uncosted) said.push(`${found.piece.uncosted} op executions have no rule: their FLOPs are missing.`);
    if (device && !time) said.push(`No time: nothing is known of the links of ${device.name}, over which ranks exchange bytes.`);
    if (time) {
      const limit = content.limits[state.stage];
      const exceeds = { decode: () => state.batch > limit.batch, prefill: () => state.batch * length < limit.tokens, vision: () => false };
      const beyond = exceeds[state.stage]() ? [limit.reason] : [];
      const reasons = [...beyond, ...sheet.extrapolated[device.name]];
      if (reasons.length) said.push(`The estimate is an extrapolation: ${reasons.join("; ")}.`);
      else said.push(`Efficiencies: ${device.source}.`);
      if (device.unconfirmed.length) said.push(`Not confirmed of ${device.name}: ${device.unconfirmed.join(", ")}.`);
    }
    byId("notes").replaceChildren(...said.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
  }

  function figures(found, time) {
    const isShown = ({ name, under, hidden_at_zero, if_other }) =>
      !(hidden_at_zero && !found.cost[name]) && !(if_other && found.cost[name] === found.cost[under]);
    const rows = content.figures.filter(isShown).map((figure) => {
      const value = found.cost[figure.name];
      const exact = figure.unit === "ratio" ? "" : grouped(value);
      return { data: { figure: figure.name }, cells: [figure.label, quantity(value, figure.unit), exact], classes: [figure.under ? "part" : "", "number", "number exact"] };
    });
    const seconds = time ? [["bound", "time, bound"], ["estimate", "time, estimate"], ["launch", "time in launches"]] : [];
    rows.push(...seconds.map(([name, label]) => ({ data: { figure: `${name}_s` }, cells: [label, quantity(time.total[name], "second"), ""], classes: ["", "number", "number"] })));
    cells("figures", rows);
  }

  function modules(rows, time) {
    const number = ["", "", "number", "number", "number", "number", "number"];
    const timed = (path) => (time ? quantity(time.modules[path]?.estimate ?? 0, "second") : "–");
    cells(
      "modules",
      rows.map(({ path, kind, times, cost }) => ({
        data: { module: path },
        cells: [path || "all", kind, grouped(times), quantity(cost.flops, "flop"), quantity(cost.io_bytes, "byte"), quantity(residentBytes(cost), "memory"), timed(path)],
        classes: number,
      })),
    );
    for (const row of byId("modules").rows) {
      const name = Object.assign(document.createElement("button"), { type: "button", className: "inside", textContent: row.cells[0].textContent });
      name.addEventListener("click", () => lookInside(row.dataset.module || "all"));
      row.cells[0].replaceChildren(name);
    }
  }

  /** Show a module and what is in it; "all" for everything. */
  function lookInside(path) {
    state.inside = path;
    update();
    for (const row of byId("modules").rows) if ((row.dataset.module || "all") === path) row.cells[0].firstChild.focus();
  }

  function icicle(rows, by, time) {
    const paths = new Set(rows.map((row) => row.path));
    const parent = (path) => {
      let above = path;
      do above = above.includes(".") ? above.slice(0, above.lastIndexOf(".")) : "";
      while (!paths.has(above));
      return above;
    };
    const value = new Map(rows.map(({ path, times, cost }) => [path, times * Number(by.of(cost, time?.modules[path] ?? nothing()))]));
    const drawn = new Map(value);
    for (const { path } of [...rows].reverse()) {
      // a weight that two modules share is in both: what is drawn around them is as wide as both
      const inside = rows.filter((row) => row.path && parent(row.path) === path);
      drawn.set(path, Math.max(value.get(path), inside.reduce((sum, row) => sum + drawn.get(row.path), 0)));
    }
    const shown = rows.filter(({ path }) => drawn.get(path) > 0);
    const share = (path) => value.get(path) / value.get("");
    const title = ({ path, kind, times }) => (path ? path.slice(path.lastIndexOf(".") + 1) : kind) + (times > 1 ? ` ×${times}` : "");
    draw("icicle", `Modules by ${by.name}; the table below has the same figures`, [
      {
        type: "icicle",
        ids: shown.map(({ path }) => path || "all"),
        parents: shown.map(({ path }) => (path ? parent(path) || "all" : "")),
        labels: shown.map(title),
        values: shown.map(({ path }) => drawn.get(path)),
        text: shown.map(({ path }) => `${quantity(value.get(path), by.unit)}, ${percent(share(path))}`),
        hovertext: shown.map(({ path, kind }) => `${path || "all"} (${kind})`),
        branchvalues: "total",
        textinfo: "label+text",
        hoverinfo: "text",
        marker: { colors: shown.map(({ path }) => share(path)), colorscale: [[0, color("low")], [1, color("high")]], cmin: 0, cmax: 1, line: { color: color("page"), width: 1 } },
        textfont: { color: color("text") },
        level: shown.some(({ path }) => path === state.inside) ? state.inside : "all",
        pathbar: { visible: true },
        tiling: { orientation: innerWidth < 600 ? "v" : "h" },
      },
    ], { height: 420, margin: { l: 0, r: 0, t: 28, b: 0 }, uniformtext: printing() ? {} : { minsize: 10, mode: "hide" } });
  }

  function memoryCurve(sheet, most) {
    const device = deviceNow();
    const last = Math.max(64, 2 * state.batch, 4 * most);
    const batches = powersOfTwo(1, Math.min(last, content.largest_size));
    const costs = batches.map((batch) => costOf(sheet, batch, state[lengthName()])?.cost);
    const gib = (value) => Number(value) / 2 ** 30;
    const area = (name, key, tone) => ({ x: batches, y: costs.map((cost) => (cost ? gib(cost[key]) : null)), name, stackgroup: "held", mode: "lines", line: { color: color(tone) } });
    const traces = [area("weights", "weight_bytes", "first"), area("KV cache", "kv_bytes", "second"), area("peak activations", "peak_activation_bytes", "third")];
    const line = (x, y, name, dash) => ({ x, y, name, mode: "lines", line: { color: color("text"), dash } });
    const top = 1.1 * Math.max(device ? gib(device.memory_bytes) : 0, ...costs.map((cost) => (cost && !device ? gib(heldBytes(cost)) : 0)), gib(heldBytes(costOf(sheet, state.batch, state[lengthName()]).cost)));
    if (device) traces.push(line([batches[0], batches.at(-1)], Array(2).fill(gib(device.memory_bytes)), device.name, "dash"));
    if (most) traces.push(line([most, most], [0, top], `largest batch ${grouped(most)}`, "dot"));
    const said = device ? (most ? `${device.name} holds a batch of up to ${grouped(most)}.` : `No batch fits into ${device.name}.`) : "Choose a device to see what fits.";
    byId("memory-caption").textContent = said;
    draw("memory", `Memory in GiB over the batch. ${said}`, traces, { legend: { ...LEGEND, traceorder: "normal" }, xaxis: sizeAxis("batch", batches), yaxis: { title: { text: "GiB" }, range: [0, top] } });
  }

  function curve(id, axis, sizes, sizesOf, now, sheet, by) {
    const height = (size) => {
      const found = costOf(sheet, ...sizesOf(size));
      const time = by === BY.time ? timeOf(sheet, ...sizesOf(size)) : null;
      return !found || (by === BY.time && !time) ? null : Number(by.of(found.cost, time?.total));
    };
    const [x, y] = [sizes, sizes.map(height)];
    const [most] = [Math.max(...y.filter((value) => value !== null), 0)];
    const [unit, name] = UNITS[by.unit].findLast(([least]) => most >= least) ?? UNITS[by.unit][0];
    const scaled = (value) => (value === null ? null : value / unit);
    draw(id, `${by.name} over the ${axis}`, [
      { x, y: y.map(scaled), mode: "lines+markers", line: { color: color("first") }, showlegend: false, hovertemplate: `%{x}: %{y} ${name}<extra></extra>` },
      { x: [now], y: [scaled(height(now))], mode: "markers", marker: { color: color("second"), size: 12, symbol: "diamond" }, showlegend: false, hoverinfo: "skip" },
    ], { xaxis: sizeAxis(axis, sizes), yaxis: { title: { text: `${by.name}, ${name}` }, ...valueAxis(y) } });
  }

  function curves(sheet, by) {
    const [batch, length] = [state.batch, state[lengthName()]];
    const [first, longest] = state.stage === "vision" ? [1, 32] : [16, content.model.max_positions ?? 131072];
    curve("over-batch", "batch", powersOfTwo(1, Math.max(1024, batch)), (size) => [size, length], batch, sheet, by);
    curve("over-length", lengthWords().toLowerCase(), powersOfTwo(first, Math.max(longest, length)), (size) => [batch, size], length, sheet, by);
  }

  function roofline(time) {
    const device = deviceNow();
    document.body.classList.toggle("with-device", Boolean(time));
    if (!time) return;
    const dots = time.kernels.filter((kernel) => kernel.bytes && (kernel.matmul || kernel.vector));
    const intensity = ({ matmul, vector, bytes }) => (matmul + vector) / bytes;
    const kinds = [["product", "first"], ["attention", "second"], ["elementwise", "third"]];
    const trace = ([kind, tone]) => {
      const chosen = dots.filter((kernel) => kernel.kind === kind);
      return {
        x: chosen.map(intensity),
        y: chosen.map(({ matmul, vector, time: one }) => (matmul + vector) / one.estimate / 1e12),
        text: chosen.map((kernel) => `${kernel.module || "all"}<br>${kernel.op} ×${kernel.times}<br>${quantity(kernel.time.estimate, "second")} each, bound by ${ROOFS[kernel.time.roof]}`),
        name: kind,
        mode: "markers",
        hoverinfo: "text",
        marker: { color: color(tone), opacity: 0.75, size: chosen.map(({ times, time: one }) => 6 + 40 * Math.sqrt((times * one.estimate) / time.last.estimate)) },
      };
    };
    const all = dots.map(intensity);
    const ends = [Math.min(0.1, ...all), Math.max(10000, ...all)];
    const roof = (peak, name, dash) => ({ x: [ends[0], peak / device.bandwidth, ends[1]], y: [ends[0] * device.bandwidth, peak, peak].map((rate) => rate / 1e12), name, mode: "lines", line: { color: color("text"), dash } });
    const computed = [...new Set(dots.filter(({ kind }) => kind !== "elementwise").map(({ dtype }) => dtype))];
    const dashes = ["solid", "dash", "dot", "dashdot"];
    const roofs = computed.map((dtype, index) => roof(device.dtypes[dtype].peak, `${dtype} peak`, dashes[index % 4]));
    draw("roofline", `Kernels under the roofs of ${device.name}`, [...roofs, ...kinds.map(trace)], { height: 420, xaxis: { type: "log", title: { text: "FLOP per byte" }, dtick: 1 }, yaxis: { type: "log", title: { text: "TFLOP/s" }, dtick: 1, exponentformat: "power" } });
  }

  function cache(found) {
    const rows = [];
    for (const [layer, kind, shapes, bytes] of found.piece.kv_cache) {
      const shown = shapes.map((shape) => shape.map((size) => found.value(size)).join("×")).join(", ");
      const [last, size] = [rows.at(-1), quantity(found.value(bytes), "memory")];
      if (last && last.to === layer - 1 && last.shown === shown && last.kind === kind && last.size === size) last.to = layer;
      else rows.push({ from: layer, to: layer, kind, shown, size });
    }
    cells("kv", rows.map(({ from, to, kind, shown, size }) => ({ data: {}, cells: [from === to ? String(from) : `${from}–${to}`, kind, shown, size], classes: ["", "", "", "number"] })));
  }

  function conventions(sheet) {
    const pairs = Object.entries(sheet.conventions).flatMap(([name, text]) => [
      Object.assign(document.createElement("dt"), { textContent: name.replaceAll("_", " ") }),
      Object.assign(document.createElement("dd"), { textContent: text }),
    ]);
    byId("conventions").replaceChildren(...pairs);
  }

  /* The controls and the address show what is chosen. */

  const toSlider = (size, steps) => Math.round(steps * Math.log2(Math.max(1, size)));
  const fromSlider = (place, steps) => Math.round(2 ** (place / steps));
  const SIZES = [["batch", () => "batch", 4], ["tokens", lengthName, 8]];

  function fill() {
    for (const name of [...choices, "device", "by"]) form.elements[name].value = state[name];
    for (const [id, name, steps] of SIZES) {
      const [field, slider] = [byId(id), byId(`${id}-slider`)];
      if (document.activeElement !== field) field.value = state[name()];
      if (document.activeElement !== slider) slider.value = toSlider(state[name()], steps);
      slider.setAttribute("aria-valuetext", grouped(state[name()]));
    }
    byId("tokens").min = LEAST[lengthName()];
    byId("tokens-label").textContent = lengthWords();
    for (const [name, stage] of [["columns", "vision"], ["steps", "decode"]]) {
      const field = form.elements[name];
      if (document.activeElement !== field) field.value = state[name];
      field.closest("label").hidden = state.stage !== stage;
    }
  }

  function update() {
    const sheet = sheetNow();
    const found = sheet && costOf(sheet, state.batch, state[lengthName()]);
    fill();
    document.querySelector("main").classList.toggle("uncovered", !found);
    if (!found) {
      byId("answer").textContent = sheet ? "The cost sheets in this page do not cover such a pass." : "This combination is not in this page.";
      return;
    }
    const [time, device] = [timeOf(sheet, state.batch, state[lengthName()]), deviceNow()];
    const most = device ? largestBatch(sheet, device.memory_bytes) : 0;
    const by = state.by === "time" && !time ? BY.flops : BY[state.by];
    const rows = found.modules();
    const labels = [...form.querySelectorAll("label:not([hidden]) select")].map((select) => [select.closest("label").firstChild.textContent.trim(), select.value || "none"]);
    byId("chosen").textContent = labels.map((pair) => pair.join(" ")).join(" · ");
    answer(sheet, found, time, most);
    notes(sheet, found, time);
    figures(found, time);
    modules(rows, time);
    cache(found);
    conventions(sheet);
    document.querySelectorAll(".by-name").forEach((each) => (each.textContent = by.name));
    cancelAnimationFrame(update.frame);
    const pictures = () => {
      icicle(rows, by, time);
      memoryCurve(sheet, most);
      curves(sheet, by);
      roofline(time);
    };
    if (printing()) pictures();
    else update.frame = requestAnimationFrame(pictures);
  }

  /** Before a page is printed its pictures are drawn in dark on white, as wide as paper; afterwards as before. */
  function print(on) {
    document.documentElement.classList.toggle("printing", on);
    update();
  }

  function remember() {
    const { inside, ...others } = state;
    history.replaceState(null, "", `#${new URLSearchParams(others)}`);
  }

  /** Take what a text says, as far as it can be. */
  function take(name, text) {
    if (name in LEAST) {
      const size = Number(text);
      const most = name === "steps" ? content.most_steps : content.largest_size;
      if (text !== "" && Number.isInteger(size) && size >= LEAST[name] && size <= most) state[name] = size;
    } else if (choices.includes(name) ? sheets.some((sheet) => sheet[name] === text) : [...(form.elements[name]?.options ?? [])].some((option) => option.value === text)) {
      state[name] = text;
    }
  }

  function restore() {
    for (const [name, text] of new URLSearchParams(location.hash.slice(1))) take(name, text);
    settle("stage");
    update();
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", ({ target }) => {
    const size = SIZES.find(([id]) => target.id.startsWith(id));
    if (size && target.type === "range") take(size[1](), String(fromSlider(Number(target.value), size[2])));
    else take(size ? size[1]() : target.name, target.value);
    settle(target.name);
    update();
    remember();
  });
  form.addEventListener("focusout", fill);
  addEventListener("hashchange", restore);
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", update);
  offer();
  restore();
  document.body.dataset.shown = "yes";
}
