"use strict";

/** Run the scripts that are in this file compressed: the plotting library, and each cost sheet. */
async function unpack() {
  if (typeof DecompressionStream === "undefined") {
    document.getElementById("answer").textContent = "This browser is too old to open the page: any of 2023 or later does.";
    return new Promise(() => {});
  }
  for (const packed of document.querySelectorAll("script[type='text/deflate']")) {
    const bytes = Uint8Array.from(atob(packed.textContent), (letter) => letter.charCodeAt(0));
    const text = new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).text();
    packed.replaceWith(Object.assign(document.createElement("script"), { textContent: await text }));
  }
}

/* Exact arithmetic: whole numbers are BigInt. The formulas call these by name. */

const floor = (left, right) => {
  const quotient = left / right;
  return left % right !== 0n && left < 0n !== right < 0n ? quotient - 1n : quotient;
};
const largest = (...values) => values.reduce((most, value) => (value > most ? value : most));
const toEven = (x) => (Math.abs(x % 1) === 0.5 ? 2 * Math.round(x / 2) : Math.round(x));
const nearest = (x) => BigInt(toEven(x));

/** A floating-point number to a whole power, rounded once: Math.pow is not exact in every browser. */
function power(base, exponent) {
  const shorten = ([digits, scale]) => {
    const extra = BigInt(Math.max(0, digits.toString(16).length * 4 - 256));
    return [digits >> extra, scale + Number(extra)];
  };
  const times = (one, other) => shorten([one[0] * other[0], one[1] + other[1]]);
  let [scale, whole] = [0, base];
  while (!Number.isInteger(whole)) [whole, scale] = [whole * 2, scale - 1];
  let [result, square] = [[1n, 0], [BigInt(whole), scale]];
  for (let rest = BigInt(exponent); rest; rest >>= 1n) {
    if (rest & 1n) result = times(result, square);
    square = times(square, square);
  }
  const half = Math.trunc(result[1] / 2);
  return Number(result[0]) * 2 ** half * 2 ** (result[1] - half);
}

/** What a floating-point expression does, in the order in which Python does it. */
function real(op, left, right) {
  const [a, b] = [Number(left), Number(right)];
  return { "+": () => a + b, "-": () => a - b, "*": () => a * b, "/": () => a / b, "**": () => power(a, b) }[op]();
}

/* Sheets at a point: [batch, query length, past length]. */

/** The value at each place of a sheet's formulas, worked out when it is asked for. */
function valuesAt(formulas, point) {
  const known = [];
  const value = (place) => {
    const formula = formulas[place];
    if (typeof formula !== "function") return formula;
    return (known[place] ??= formula(value, ...point));
  };
  return value;
}

const within = (value, low, high) => value >= low && (high === null || value <= high);

function holds(piece, point, value) {
  const inside =
    point.every((size, axis) => within(size, piece.lower[axis], piece.upper[axis])) &&
    within(point[1] + point[2], ...piece.sums);
  const relations = { ">=": (x) => x >= 0n, "==": (x) => x === 0n, "!=": (x) => x !== 0n };
  return inside && piece.guards.every(([place, relation]) => relations[relation](value(place)));
}

/** The cost of a pass: every figure by name, and rows of modules. Null where the sheet covers no such pass. */
function costAt(content, sheet, point) {
  const value = valuesAt(sheet.formulas, point);
  const piece = sheet.pieces.find((each) => holds(each, point, value));
  if (!piece) return null;
  const names = content.figures_of_modules;
  const of = (places) => withRatios(content, Object.fromEntries(names.map((name, index) => [name, value(places[index])])));
  const row = ([path, kind, times, places]) => ({ path, kind, times, cost: of(places) });
  const whole = of(piece.modules.find(([path]) => path === "")[3]);
  for (const [name, place] of Object.entries(piece.of_pass)) whole[name] = value(place);
  return { piece, value, cost: whole, modules: () => piece.modules.map(row) };
}

/** A cost with the figures that are one counted figure over another. */
function withRatios(content, cost) {
  for (const row of content.figures.filter((figure) => figure.unit === "ratio")) {
    const [over, under] = row.sources.map((source) => cost[source]);
    cost[row.name] = under ? Number(over) / Number(under) : 0;
  }
  return cost;
}

/** The cost of several passes one after another: each figure adds up, or is that of the largest or the last of them, as
 * the table of figures says. What parts of the largest one add up to is that of the pass which makes most. */
function costOver(content, sheet, points) {
  const each = points.map((point) => costAt(content, sheet, point));
  if (each.includes(null)) return null;
  const last = each.at(-1);
  if (each.length === 1) return last;
  const most = each.reduce((found, one) => (one.cost.activation_bytes >= found.cost.activation_bytes ? one : found));
  const fullest = each.indexOf(most);
  const over = (costs) =>
    withRatios(
      content,
      Object.fromEntries(
        content.figures
          .filter(({ name, unit }) => unit !== "ratio" && name in costs.at(-1))
          .map(({ name, over_steps, over_parts }) => {
            const values = costs.map((cost) => cost?.[name] ?? 0n);
            if (over_steps === "sum") return [name, values.reduce((sum, value) => sum + value)];
            if (over_steps === "last") return [name, values.at(-1)];
            return [name, over_parts === "sum" ? values[fullest] : largest(...values)];
          }),
      ),
    );
  const modules = () => {
    const rows = each.map((one) => new Map(one.modules().map((row) => [row.path, row.cost])));
    return last.modules().map((row) => ({ ...row, cost: over(rows.map((costs) => costs.get(row.path))) }));
  };
  return { ...last, cost: over(each.map(({ cost }) => cost)), modules };
}

const heldBytes = (cost) => cost.weight_bytes + cost.kv_bytes + cost.peak_activation_bytes;
const residentBytes = (cost) => cost.weight_bytes + cost.kv_bytes;

/* Time: the roofs of a device, joined by the 2-norm (fxmeter.annotators.timing.roofline says why). */

const ROOFS = ["compute", "vector", "memory", "network", "launch"];

/** Interpolated in the logarithms of both, that of the nearest beyond all that were measured; null without any. */
function measuredAt(table, size) {
  const known = Object.entries(table ?? {}).map(([key, rate]) => [Math.log(key), rate]);
  if (!known.length) return null;
  known.sort(([one], [other]) => one - other);
  const at = Math.min(Math.max(Math.log(Math.max(size, 1)), known[0][0]), known.at(-1)[0]);
  const next = known.findIndex(([key]) => key >= at);
  const [[low, before], [high, after]] = [known[Math.max(next - 1, 0)], known[next]];
  if (high === low) return after;
  return Math.exp(Math.log(before) + ((Math.log(after) - Math.log(before)) * (at - low)) / (high - low));
}

/** FLOPs a second of a product, by the elements that a row is multiplied by and by its rows; null without any. */
function rateOfProduct(tables, kernel, itemsize) {
  const table = tables[kernel.form];
  if (!table) return null;
  const rows = Math.max(kernel.rows, 1);
  const elements = Math.max(Math.min(kernel.matmul / (2 * rows), kernel.bytes / itemsize), 1);
  const lines = Object.fromEntries(Object.entries(table).map(([size, line]) => [size, measuredAt(line, rows)]));
  return measuredAt(lines, elements) * Math.min(1, elements / Math.min(...Object.keys(table).map(Number)));
}

function kernelTime(kernel, device) {
  const { reached, dtypes } = device;
  const { peak, vector_peak, product, product_rates, streams, fastest, itemsize } = dtypes[kernel.dtype];
  const between = kernel.kind === "elementwise";
  const within = fastest && !["mm", "mm_t", "cache"].includes(kernel.form);
  const ideal = [kernel.matmul / peak, kernel.vector / vector_peak, kernel.bytes / (within ? fastest : device.bandwidth)];
  const share = { attention: reached.attention, product }[kernel.kind] ?? 1;
  const stream = kernel.bytes / device.bandwidth / (between ? reached.elementwise : reached.bandwidth);
  let roofs = [ideal[0] / share, ideal[1] / reached.vector, stream];
  if (within && between) roofs[2] = kernel.bytes / measuredAt(streams, kernel.bytes);
  const rate = rateOfProduct(product_rates, kernel, itemsize);
  if (rate) {
    const taken = Math.max(kernel.matmul / rate, ideal[0], ideal[2]);
    roofs = ideal[0] >= ideal[2] ? [taken, roofs[1], 0] : [0, roofs[1], taken];
  }
  const sent = kernel.network ? kernel.network / device.link : 0;
  const launch = kernel.kind === "collective" ? reached.collective_s : reached.launch_s;
  const norm = Math.sqrt(roofs[0] * roofs[0] + roofs[1] * roofs[1] + roofs[2] * roofs[2]);
  const heights = [...roofs, sent / reached.network, launch];
  const estimate = norm + heights[3] + launch;
  return { bound: Math.max(...ideal, sent), estimate, launch, roof: heights.indexOf(Math.max(...heights)) };
}

const nothing = () => ({ bound: 0, estimate: 0, launch: 0, roofs: [0, 0, 0, 0, 0] });

function spend(total, time, times) {
  total.bound += time.bound * times;
  total.estimate += time.estimate * times;
  total.launch += time.launch * times;
  total.roofs[time.roof] += time.estimate * times;
}

/** The time of a pass in all, of one instance of each module, and by kernel. Null where it cannot be told. */
function timeAt(sheet, point, device) {
  const value = valuesAt(sheet.formulas, point);
  const piece = sheet.timed.find((each) => holds(each, point, value));
  if (!piece) return null;
  const [total, modules, kernels] = [nothing(), {}, []];
  for (const [op, module, times, kind, dtype, form, ...places] of piece.kernels) {
    const [matmul, vector, bytes, network, rows] = places.map((place) => Number(value(place)));
    if (network && !device.link) return null;
    const kernel = { op, module, times, kind, dtype, form, matmul, vector, bytes, network, rows };
    const time = kernelTime(kernel, device);
    kernels.push({ ...kernel, time });
    spend(total, time, times);
    for (let path = module; path; path = path.includes(".") ? path.slice(0, path.lastIndexOf(".")) : "") {
      spend((modules[path] ??= nothing()), time, Math.floor(times / (piece.times[path] ?? 1)));
    }
  }
  if (sheet.stage === "prefill") {
    const host = device.reached.prefill_host_s;
    spend(total, { bound: 0, estimate: host, launch: host, roof: ROOFS.indexOf("launch") }, 1);
  }
  modules[""] = total;
  return { total, modules, kernels, boundBy: ROOFS[total.roofs.indexOf(Math.max(...total.roofs))] };
}

/** The time of several passes one after another; kernels and their total are those of the last. */
function timeOver(sheet, points, device) {
  const each = points.map((point) => timeAt(sheet, point, device));
  if (each.includes(null)) return null;
  const last = each.at(-1);
  const modules = {};
  for (const time of each) {
    for (const [path, one] of Object.entries(time.modules)) {
      const sum = (modules[path] ??= nothing());
      for (const name of ["bound", "estimate", "launch"]) sum[name] += one[name];
      one.roofs.forEach((seconds, roof) => (sum.roofs[roof] += seconds));
    }
  }
  const total = modules[""];
  return { total, modules, kernels: last.kernels, last: last.total, boundBy: ROOFS[total.roofs.indexOf(Math.max(...total.roofs))] };
}

/* Numbers as text, as the command line shows them. */

const PREFIXES = ["", "k", "M", "G", "T", "P", "E", "Z"];
const UNITS = {
  second: [[1e-9, "ns"], [1e-6, "us"], [1e-3, "ms"], [1, "s"]],
  flop: PREFIXES.map((prefix, index) => [1000 ** index, `${prefix}FLOP`]),
  byte: PREFIXES.map((prefix, index) => [1000 ** index, `${prefix}B`]),
  memory: PREFIXES.map((prefix, index) => [1024 ** index, prefix ? `${prefix.toUpperCase()}iB` : "B"]),
};

const grouped = (text) => String(text).replace(/^-?\d+/, (digits) => digits.replace(/\B(?=(\d{3})+$)/g, ","));

/** So many digits behind the point; what lies exactly between two goes to the even one, as in Python. */
function fixed(value, digits) {
  const isBetween = Number.isInteger(value * 2 ** (digits + 1)) && Math.abs((value * 10 ** digits) % 1) === 0.5;
  return grouped((isBetween ? toEven(value * 10 ** digits) / 10 ** digits : value).toFixed(digits));
}

const fourDigits = (value) =>
  fixed(value, value >= 1000 ? 0 : value >= 100 ? 1 : value >= 10 ? 2 : value >= 0.1 ? 3 : 5);

function quantity(value, kind) {
  if (kind === "ratio") return fixed(value, value >= 10 ? 1 : 3);
  const [size, name] = UNITS[kind].findLast(([least]) => value >= least) ?? UNITS[kind][0];
  const amount = Number(value) / size;
  return `${size === 1 && kind !== "second" ? fixed(amount, 0) : fourDigits(amount)} ${name}`;
}

const percent = (share) => `${fixed(100 * share, 1)}%`;
