// Look at pages as a reader would: light, dark, on a phone, printed, with scripts forbidden; say what is wrong as JSON.
//   node pages.mjs [--shots FOLDER] PAGE.html…        $CHROMIUM is the browser
import { readFileSync, mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import puppeteer from "puppeteer-core";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const looks = {
  light: { scheme: "light", width: 1280, height: 900 },
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
    const texts = [...svg.querySelectorAll("text")]
      .filter((one) => one.textContent.trim() && one.getAttribute("opacity") !== "0" && one.getBoundingClientRect().width > 0)
      .map((one) => ({ text: one.textContent, box: one.getBoundingClientRect() }));
    for (const { text, box } of texts)
      if (box.left < frame.left - 2 || box.right > frame.right + 2) wrong.push(`${figure.id}: "${text}" is cut`);
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
  if (look.scripts !== false && !look.media) {
    await page.evaluate(axe);
    const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
    seen.violations = found.violations.map((one) => ({
      id: one.id, impact: one.impact, help: one.help, places: one.nodes.slice(0, 4).map((node) => node.target.join(" ")),
    }));
  }
  if (shots) await page.screenshot({ path: `${shots}/${basename(file, ".html")}-${name}.png`, fullPage: true });
  await page.close();
  return seen;
}

const given = process.argv.slice(2);
const shots = given[0] === "--shots" ? given.splice(0, 2)[1] : null;
if (shots) mkdirSync(shots, { recursive: true });
const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
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
