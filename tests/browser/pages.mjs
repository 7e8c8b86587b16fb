// Look at pages as a reader would: light, dark, on a phone, printed, with scripts forbidden; say what is wrong as JSON.
//   node pages.mjs [--shots FOLDER] PAGE.html…        $CHROMIUM is the browser
import { readFileSync, mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import puppeteer from "puppeteer-core";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const looks = {
  light: { scheme: "light", width: 1280, height: 900, used: true },
  dark: { scheme: "dark", width: 1280, height: 900 },
  phone: { scheme: "light", width: 390, height: 844, phone: true },
  print: { scheme: "light", width: 760, height: 1000, media: "print" },
  "no-scripts": { scheme: "light", width: 1280, height: 900, scripts: false },
};

// Runs in the page: wider than the screen? labels of pictures on top of each other? pictures without anything?
function crooked() {
  const wrong = [];
  if (document.documentElement.scrollWidth > window.innerWidth + 1)
    wrong.push(`page is ${document.documentElement.scrollWidth} px wide on ${window.innerWidth}`);
  for (const figure of document.querySelectorAll("figure")) {
    const svg = [...figure.querySelectorAll("svg")].find((one) => one.getBoundingClientRect().width > 0);
    if (!svg) {
      if (!figure.querySelector("p.still")?.textContent.trim()) wrong.push(`${figure.id}: no picture, and no word why`);
      continue;
    }
    const frame = svg.getBoundingClientRect();
    const entries = [...svg.querySelectorAll(".role-legend-label text")].map((one) => one.textContent);
    for (const twice of new Set(entries.filter((one, at) => entries.indexOf(one) !== at)))
      wrong.push(`${figure.id}: two entries of a legend are both "${twice}"`);
    const texts = [...svg.querySelectorAll("text")]
      .filter((one) => one.textContent.trim() && one.getAttribute("opacity") !== "0" && one.getBoundingClientRect().width > 0)
      .map((one) => ({ text: one.textContent, box: one.getBoundingClientRect() }));
    for (const { text, box } of texts)
      if (box.left < frame.left - 2 || box.right > frame.right + 2 || box.top < frame.top - 2 || box.bottom > frame.bottom + 2) wrong.push(`${figure.id}: "${text}" is cut`);
    for (let i = 0; i < texts.length; i++)
      for (let j = i + 1; j < texts.length; j++) {
        const a = texts[i].box, b = texts[j].box;
        const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left), high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (wide > 3 && high > 4) wrong.push(`${figure.id}: "${texts[i].text}" over "${texts[j].text}"`);
      }
  }
  return wrong;
}

async function scrolled(page) {
  const height = await page.evaluate(() => document.documentElement.scrollHeight);
  for (let at = 0; at < height; at += 700) {
    await page.evaluate((y) => window.scrollTo(0, y), at);
    await new Promise((done) => setTimeout(done, 60));
  }
  await page.waitForFunction(
    () => [...document.querySelectorAll("figure[data-chart] .live")].every((one) => one.hidden || one.querySelector("svg")),
    { timeout: 30000 },
  );
  await page.evaluate(() => window.scrollTo(0, 0));
}

const shortly = (ms) => new Promise((done) => setTimeout(done, ms));

// The window made narrower, then as it was: pictures that live must be whole at either width.
async function resized(page, look) {
  const found = [];
  for (const width of [Math.round(look.width * 0.7), look.width]) {
    await page.setViewport({ width, height: look.height, isMobile: false, deviceScaleFactor: 1 });
    await shortly(600);
    found.push(...(await page.evaluate(crooked)).map((one) => `at ${width} px: ${one}`));
  }
  return found;
}

// With the mouse over marks of each living picture, until one tells its numbers.
async function hovered(page) {
  const told = {};
  for (const figure of await page.$$("figure[data-chart]")) {
    const id = await figure.evaluate((one) => { one.scrollIntoView({ block: "center" }); return one.id; });
    const marks = await figure.$$(".live .mark-symbol.role-mark path, .live .mark-rect.role-mark path, .live .mark-rule.role-mark line");
    told[id] = "";
    for (let at = 0; at < marks.length && !/\d/.test(told[id]); at += Math.ceil(marks.length / 40)) {
      const box = await marks[at].boundingBox();
      if (!box) continue;
      await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
      await shortly(40);
      told[id] = await page.evaluate(() => document.querySelector("#vg-tooltip-element.visible")?.innerText ?? "");
    }
    await page.mouse.move(2, 2);
  }
  return told;
}

// Every switch of every picture: an arrow key on it, then a click on it and another choice; does the picture change?
async function switched(page) {
  const told = [];
  for (const select of await page.$$(".switches:not([hidden]) select")) {
    const drawn = () => select.evaluate((one) => one.closest("figure").querySelector(".live svg").innerHTML);
    const chosen = () => select.evaluate((one) => one.value);
    const place = await select.evaluate((one) => ({ picture: one.closest("figure").id, name: one.name, at: one.selectedIndex, last: one.length - 1 }));
    const seen = [[await chosen(), await drawn()]];
    await select.focus();
    await page.keyboard.press(place.at === place.last ? "ArrowUp" : "ArrowDown");
    await shortly(150);
    seen.push([await chosen(), await drawn()]);
    await select.click();
    await page.keyboard.press("Escape");
    const focused = await select.evaluate((one) => one === document.activeElement);
    await select.select(seen[0][0]);
    await shortly(150);
    seen.push([await chosen(), await drawn()]);
    const changes = (a, b) => seen[a][0] !== seen[b][0] && seen[a][1] !== seen[b][1];
    told.push({ picture: place.picture, name: place.name, keyboard: changes(0, 1), mouse: focused && changes(1, 2) });
  }
  return told;
}

// Every column of every table, by Enter and by the space bar: what it says of its order, and the order that it has.
async function sorted(page) {
  const told = [];
  await page.evaluate(() => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
  for (const button of await page.$$("table.sorted th button")) {
    const state = () => button.evaluate((one) => {
      const head = one.closest("th"), rows = [...head.closest("table").tBodies[0].rows];
      return {
        table: head.closest("table").dataset.table, column: head.cellIndex, order: head.getAttribute("aria-sort"),
        others: [...head.parentNode.cells].filter((cell) => cell !== head && cell.hasAttribute("aria-sort")).length,
        values: rows.map((row) => row.cells[head.cellIndex].dataset.value ?? row.cells[head.cellIndex].textContent.trim()),
      };
    });
    await button.focus();
    for (const key of ["Enter", "Space"]) {
      await page.keyboard.press(key);
      told.push(await state());
    }
  }
  return told;
}

// The Tab key through the page: where it stops, which stops cannot be seen, and what it never comes to.
async function tabbed(page) {
  const told = { stops: 0, unseen: [] };
  await page.evaluate(() => { document.activeElement?.blur(); window.scrollTo(0, 0); });
  for (; told.stops < 600; told.stops++) {
    await page.keyboard.press("Tab");
    const stop = await page.evaluate(() => {
      const one = document.activeElement;
      if (!one || one === document.body || one.dataset.stop) return null;
      one.dataset.stop = "yes";
      const style = getComputedStyle(one), box = one.getBoundingClientRect();
      const inside = box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth;
      const outlined = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
      return { what: `${one.tagName} ${(one.getAttribute("aria-label") ?? one.textContent).trim().slice(0, 40)}`, seen: inside && outlined };
    });
    if (!stop) break;
    if (!stop.seen) told.unseen.push(stop.what);
  }
  told.missed = await page.$$eval("a[href], button, select, summary, [tabindex='0']", (all) =>
    all.filter((one) => one.checkVisibility() && !one.dataset.stop).map((one) => `${one.tagName} ${one.textContent.trim().slice(0, 40)}`));
  return told;
}

// As high as the page before the picture is taken: else it shows what is between two sizes.
async function shot(page, look, path) {
  const height = await page.evaluate(() => document.documentElement.scrollHeight);
  await page.setViewport({ width: look.width, height, isMobile: !!look.phone, deviceScaleFactor: 1 });
  await shortly(400);
  await page.screenshot({ path, captureBeyondViewport: false }); // beyond it, the window would change its size once more
}

async function looked(browser, file, name, look, shots) {
  const page = await browser.newPage();
  const seen = { errors: [], requests: [], violations: [], crooked: [] };
  page.on("console", (said) => { if (["error", "warn"].includes(said.type())) seen.errors.push(said.text()); });
  page.on("pageerror", (error) => seen.errors.push(String(error)));
  page.on("request", (one) => { if (!/^(file|data|blob):/.test(one.url())) seen.requests.push(one.url()); });
  await page.setJavaScriptEnabled(look.scripts !== false);
  await page.setViewport({ width: look.width, height: look.height, isMobile: !!look.phone, deviceScaleFactor: 1 });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: look.scheme }]);
  const begun = performance.now();
  await page.goto(pathToFileURL(resolve(file)).href, { waitUntil: "load" });
  seen.load_ms = Math.round(performance.now() - begun);
  if (look.scripts !== false) await scrolled(page);
  seen.alive = await page.$$eval("figure .live svg", (all) => all.length);
  seen.still = await page.$$eval("figure .still svg", (all) => all.length);
  if (look.media) {
    await page.emulateMediaType(look.media);
    await page.evaluate(() => window.dispatchEvent(new Event("beforeprint")));
  }
  seen.crooked = await page.evaluate(crooked);
  if (look.used) seen.crooked.push(...await resized(page, look));
  if (look.scripts !== false && !look.media) {
    await page.evaluate(axe);
    const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
    seen.violations = found.violations.map((one) => ({
      id: one.id, impact: one.impact, help: one.help, places: one.nodes.slice(0, 4).map((node) => node.target.join(" ")),
    }));
  }
  seen.stills = await page.$$eval("figure", (all) => Object.fromEntries(
    all.filter((one) => one.querySelector(".still svg")?.getBoundingClientRect().height > 50)
      .map((one) => [one.id, one.querySelector(".said")?.textContent.trim() ?? ""])));
  if (shots) await shot(page, look, `${shots}/${basename(file, ".html")}-${name}.png`);
  if (look.used) seen.used = { tabs: await tabbed(page), tooltips: await hovered(page), switches: await switched(page), columns: await sorted(page) };
  await page.close();
  return seen;
}

const given = process.argv.slice(2);
const shots = given[0] === "--shots" ? given.splice(0, 2)[1] : null;
if (shots) mkdirSync(shots, { recursive: true });
const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
  protocolTimeout: 900000, // axe on a large page takes minutes where other programs have the cores
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"],
});
const told = {};
try {
  for (const file of given) {
    told[file] = {};
    for (const [name, look] of Object.entries(looks)) told[file][name] = await looked(browser, file, name, look, shots);
  }
} finally {
  await browser.close();
}
process.stdout.write(`${JSON.stringify(told, null, 1)}\n`);
