// Lays out the look that `analysis watch` wrote; every number comes from there. Names are other people's: they enter
// the page as text only.
"use strict";
const EVERY_MS = 2000, STALE_S = 20, SVG = "http://www.w3.org/2000/svg";
const at = (id) => document.getElementById(id);
let tag = null;

function make(name, text, className) {
  const node = document.createElement(name);
  if (text !== undefined) node.textContent = text;
  if (className) node.className = className;
  return node;
}

function draw(name, attributes, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

const number = (value, digits = 0) => value.toLocaleString("en", { maximumFractionDigits: digits });
const percent = (value) => value === null || value === undefined ? "unknown" : `${number(100 * value, 100 * value < 10 ? 2 : 1)}%`;
function milliseconds(us) {
  if (us === null || us === undefined) return "–";
  const value = us / 1000;
  return `${number(value, value < 10 ? 2 : value < 100 ? 1 : 0)} ms`;
}
const between = (interval) => `${percent(interval.low)} – ${interval.high === null ? "no bound" : percent(interval.high)}`;

function table(id, heads, rows, empty) {
  const head = make("tr");
  for (const [title, className] of heads) {
    const cell = make("th", title, className);
    cell.scope = "col";
    head.append(cell);
  }
  const top = make("thead"), body = make("tbody");
  top.append(head);
  for (const { cells, now } of rows) {
    const row = make("tr", undefined, now ? "now" : "");
    cells.forEach((cell, index) => {
      if (cell instanceof Node) {
        const holder = make("td", undefined, "picture");
        holder.append(cell);
        row.append(holder);
        return;
      }
      const holder = make("td", undefined, heads[index][1] || "word-cell");
      holder.append(make("bdi", cell));
      row.append(holder);
    });
    body.append(row);
  }
  if (!rows.length) {
    const cell = make("td", empty);
    cell.colSpan = heads.length;
    const row = make("tr");
    row.append(cell);
    body.append(row);
  }
  at(id).replaceChildren(top, body);
}

function bar(share) {
  const x = (value) => 2 + 126 * value, high = share.share.high === null ? 1 : share.share.high;
  const told = `seen ${percent(share.share.estimate)}, between ${between(share.share)}`;
  const svg = draw("svg", { viewBox: "0 0 130 14", role: "img", "aria-label": told });
  svg.append(draw("line", { class: "axis", x1: 2, x2: 128, y1: 7, y2: 7 }));
  svg.append(draw("rect", { class: "interval", x: x(share.share.low), width: Math.max(1.5, x(high) - x(share.share.low)), y: 3, height: 8 }));
  if (share.share.estimate !== null) svg.append(draw("circle", { class: "dot", cx: x(share.share.estimate), cy: 7, r: 2.5 }));
  if (share.expected !== null) svg.append(draw("line", { class: "expected", x1: x(share.expected), x2: x(share.expected), y1: 0, y2: 14 }));
  return svg;
}

function shares(report, phase) {
  const seen = report.shares.filter((share) => share.requests > 0);
  seen.sort((a, b) => (b.phase === phase) - (a.phase === phase));
  const rows = seen.map((share) => ({
    now: share.phase === phase,
    cells: [share.phase, share.cohorts.join(", "), share.arm, share.expected === null ? "not configured" : percent(share.expected),
      percent(share.share.estimate), between(share.share), bar(share), number(share.requests), number(share.unknown)],
  }));
  table("shares", [["Phase"], ["Cohort"], ["Arm"], ["Configured", "n"], ["Seen", "n"], ["Confidence sequence", "n"], ["0 – 100%"],
    ["Requests", "n"], ["Unattributed", "n"]], rows, "No request could be judged yet.");
  const level = seen.length ? `${percent(seen[0].share.level)}, for all looks together` : "valid at every look";
  at("split-note").textContent = `The bar is the confidence sequence (${level}), the upright line what is configured.`;
}

// One picture for each cohort and arm of the phase in force: the confidence sequence as it closes in.
function charts(look) {
  const points = look.history.filter((point) => point.phase === look.phase);
  const arms = look.report.subject.arms.filter((arm) => arm !== look.report.subject.baseline);
  const wanted = look.report.shares.filter((share) => share.phase === look.phase && arms.includes(share.arm) && share.requests > 0);
  const figures = points.length < 2 ? [] : wanted.map((share) => chart(share, points)).filter(Boolean);
  at("charts").replaceChildren(...figures);
}

function chart(share, points) {
  const cohort = share.cohorts.join("+"), own = [];
  for (const point of points) {
    const found = point.shares.find(([names, arm]) => names === cohort && arm === share.arm);
    if (found && found[2] !== null) own.push({ t: point.t_s, estimate: found[2], low: found[3], high: found[4] === null ? 1 : found[4] });
  }
  if (own.length < 2) return null;
  const first = own[0].t, last = own[own.length - 1].t;
  const x = (t) => 34 + 276 * (t - first) / Math.max(last - first, 1e-9), y = (value) => 8 + 104 * (1 - value);
  const svg = draw("svg", { viewBox: "0 0 320 130", role: "img", "aria-label": `share of ${share.arm} over time, now ${percent(share.share.estimate)}` });
  for (const value of [0, 0.5, 1]) {
    svg.append(draw("line", { class: "axis", x1: 34, x2: 310, y1: y(value), y2: y(value) }));
    svg.append(draw("text", { x: 30, y: y(value) + 4, "text-anchor": "end" }, percent(value)));
  }
  const upper = own.map((p) => `${x(p.t)},${y(p.high)}`), lower = own.map((p) => `${x(p.t)},${y(p.low)}`).reverse();
  svg.append(draw("polygon", { class: "band", points: [...upper, ...lower].join(" ") }));
  svg.append(draw("polyline", { class: "line", points: own.map((p) => `${x(p.t)},${y(p.estimate)}`).join(" ") }));
  if (share.expected !== null) svg.append(draw("line", { class: "aim", x1: 34, x2: 310, y1: y(share.expected), y2: y(share.expected) }));
  svg.append(draw("text", { x: 34, y: 127 }, `${number(first)} s`), draw("text", { x: 310, y: 127, "text-anchor": "end" }, `${number(last)} s`));
  const figure = make("figure");
  figure.append(make("figcaption", `${share.arm} ← ${share.cohorts.join(", ")}, phase ${share.phase}`), svg);
  return figure;
}

function latencies(report, phase) {
  const rows = [...report.latencies].sort((a, b) => (b.phase === phase) - (a.phase === phase)).map((one) => ({
    now: one.phase === phase,
    cells: [one.phase, one.arm, number(one.requests), ...["p50", "p90", "p95", "p99"].map((name) => milliseconds(one.quantiles_us[name]))],
  }));
  table("latencies", [["Phase"], ["Arm"], ["Requests", "n"], ["p50", "n"], ["p90", "n"], ["p95", "n"], ["p99", "n"]], rows, "No answer yet.");
}

function failures(report, phase) {
  const rows = [...report.failures].sort((a, b) => (b.phase === phase) - (a.phase === phase)).map((one) => ({
    now: one.phase === phase,
    cells: [one.phase, one.arm, number(one.requests), number(one.failed), percent(one.rate.estimate), between(one.rate),
      Object.entries(one.kinds).map(([kind, count]) => `${kind}: ${number(count)}`).join(", ")],
  }));
  table("failures", [["Phase"], ["Arm"], ["Requests", "n"], ["Failed", "n"], ["Rate", "n"], ["Confidence sequence", "n"], ["How"]],
    rows, "No phase with both arms has been judged yet.");
}

function list(id, items) {
  at(id).replaceChildren(...items.map(([state, className, sentence]) => {
    const item = make("li", undefined, className), words = make("span");
    words.append(make("bdi", sentence));
    item.append(make("span", state, "state"), words);
    return item;
  }));
}

function where(look) {
  const judged = look.report.records, age = Date.now() / 1000 - look.at_us / 1e6;
  const parts = [look.state === "ended" ? "final" : `look ${look.look}`];
  if (look.phase && look.state !== "ended") parts.push(`phase ${look.phase}, ${number(look.phase_s)} s in force`);
  parts.push(`${number(judged.judged)} of ${number(judged.requests)} requests judged`);
  if (look.state !== "ended" && age > STALE_S) parts.push(`last look ${number(age)} s ago`);
  return parts.join(" · ");
}

function show(look) {
  const report = look.report, word = report.verdict.word;
  at("word").textContent = word[0].toUpperCase() + word.slice(1);
  at("sentence").textContent = report.verdict.sentence;
  at("verdict").className = `verdict ${word.replace(" ", "-")}`;
  at("where").textContent = where(look);
  document.title = `${word} – ${report.subject.experiment}`;
  at("body").hidden = false;
  shares(report, look.phase);
  charts(look);
  latencies(report, look.phase);
  failures(report, look.phase);
  list("checks", report.checks.map((check) => [check.ok ? "ok" : "failed", check.ok ? "ok" : "failed", `${check.name}: ${check.sentence}`]));
  list("claims", report.claims.map((claim) => [claim.state, claim.state, claim.sentence + (claim.required ? "" : " (not required)")]));
}

function waiting(message) {
  at("word").textContent = "Waiting";
  at("verdict").className = "verdict";
  at("sentence").textContent = message;
  at("where").textContent = "";
  at("body").hidden = true;
}

function trouble(message) {
  at("trouble").textContent = message;
  at("trouble").hidden = !message;
}

function fit() {
  if (window.frameElement) window.frameElement.style.height = `${document.body.scrollHeight + 8}px`;
}

async function refresh() {
  try {
    const answer = await fetch("experiment/look", { headers: tag ? { "If-None-Match": tag } : {}, cache: "no-store" });
    if (answer.status !== 304) {
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      const { message, trouble: wrong, look } = await answer.json();
      tag = answer.headers.get("ETag");
      trouble(wrong);
      if (look && look.report) show(look); else waiting(message);
    }
  } catch (error) {
    tag = null;
    trouble(`Locust does not answer (${error.message}); what is shown may be old.`);
  }
  fit();
  setTimeout(refresh, EVERY_MS);
}

if (window.frameElement) document.documentElement.classList.add("framed");
addEventListener("resize", fit);
refresh();
