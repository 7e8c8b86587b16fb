// Look at a load that runs, as one would: our page and the tab of Locust's, light, dark, on a phone, and by keyboard alone.
//   node live.mjs [--shots FOLDER] URL        $CHROMIUM is the browser; URL is Locust's page
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import puppeteer from "puppeteer-core";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const looks = {
  light: { scheme: "light", width: 1280, height: 900 },
  dark: { scheme: "dark", width: 1280, height: 900 },
  phone: { scheme: "dark", width: 390, height: 844, phone: true },
};
const waits = { timeout: 30000 };

const given = process.argv.slice(2);
const shots = given[0] === "--shots" ? given.splice(0, 2)[1] : null;
const home = given[0].replace(/\/$/, "");
if (shots) mkdirSync(shots, { recursive: true });

async function opened(browser, look) {
  const page = await browser.newPage();
  const seen = { errors: [], foreign: [] };
  page.on("console", (said) => { if (["error", "warn"].includes(said.type())) seen.errors.push(said.text()); });
  page.on("pageerror", (error) => seen.errors.push(String(error)));
  page.on("requestfailed", (one) => seen.errors.push(`${one.url()}: ${one.failure()?.errorText}`));
  page.on("response", (one) => { if (one.status() >= 400) seen.errors.push(`${one.url()}: ${one.status()}`); });
  page.on("request", (one) => { if (!one.url().startsWith(`${home}/`) && !/^(data|blob):/.test(one.url())) seen.foreign.push(one.url()); });
  await page.setViewport({ width: look.width, height: look.height, isMobile: !!look.phone, deviceScaleFactor: 1 });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: look.scheme }]);
  return { page, seen };
}

// What a reader of our page has before them: in a window of its own, or in the frame beneath Locust's tab.
async function read(frame) {
  await frame.waitForFunction(() => !document.getElementById("body").hidden && document.querySelectorAll("#shares tr").length > 1, waits);
  await frame.evaluate(axe);
  return frame.evaluate(async () => {
    const found = await window.axe.run(document, { resultTypes: ["violations"] });
    const ground = (getComputedStyle(document.body).backgroundColor.match(/[\d.]+/g) || []).map(Number);
    return {
      word: document.getElementById("word").textContent,
      sentence: document.getElementById("sentence").textContent,
      rows: document.querySelectorAll("#shares tr").length,
      pictures: document.querySelectorAll("#charts svg").length,
      scheme: getComputedStyle(document.documentElement).colorScheme,
      ground,
      too_wide: document.documentElement.scrollWidth > window.innerWidth + 1,
      violations: found.violations.map((one) => `${one.id}: ${one.nodes.slice(0, 3).map((node) => node.target.join(" ")).join(", ")}`),
    };
  });
}

async function alone(browser, name, look) {
  const { page, seen } = await opened(browser, look);
  await page.goto(`${home}/experiment`, { waitUntil: "load" });
  Object.assign(seen, await read(page));
  // From the top, by the tabulator key: the link that skips to the split comes first, and works.
  await page.keyboard.press("Tab");
  seen.first = await page.evaluate(() => document.activeElement.textContent);
  await page.keyboard.press("Enter");
  seen.skipped = await page.evaluate(() => location.hash);
  seen.stops = [];
  for (let at = 0; at < 6; at++) {
    await page.keyboard.press("Tab");
    seen.stops.push(await page.evaluate(() => {
      const on = document.activeElement;
      if (on === document.body) return "";
      return `${on.getAttribute("aria-labelledby") || on.textContent}${getComputedStyle(on).outlineStyle === "none" ? " (not seen)" : ""}`;
    }));
  }
  if (shots) await page.screenshot({ path: `${shots}/experiment-${name}.png`, fullPage: true });
  await page.close();
  return seen;
}

const chosen = () => document.querySelector('[role="tab"][aria-selected="true"]')?.textContent.trim();

async function inLocusts(browser, name, look) {
  const { page, seen } = await opened(browser, look);
  await page.goto(`${home}/`, { waitUntil: "load" });
  await page.waitForSelector('[role="tab"][aria-selected="true"]', waits);
  // No mouse: to the tabs by the tabulator key, along them by the arrows.
  for (let at = 0; at < 40; at++) {
    if (await page.evaluate(() => document.activeElement.getAttribute("role") === "tab")) break;
    await page.keyboard.press("Tab");
  }
  for (let at = 0; at < 20; at++) {
    if (await page.evaluate(() => document.activeElement.textContent.trim() === "Experiment")) break;
    await page.keyboard.press("ArrowRight");
  }
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelector('iframe[title="Experiment"]'), waits);
  seen.tab = await page.evaluate(chosen);
  const frame = await (await page.$('iframe[title="Experiment"]')).contentFrame();
  Object.assign(seen, await read(frame));
  seen.behind = await page.evaluate(() => (getComputedStyle(document.body).backgroundColor.match(/[\d.]+/g) || []).map(Number));
  // On into the frame: its first stop is ours.
  seen.entered = false;
  for (let at = 0; at < 12 && !seen.entered; at++) {
    await page.keyboard.press("Tab");
    seen.entered = await page.evaluate(() => document.activeElement.tagName === "IFRAME");
  }
  if (shots) await page.screenshot({ path: `${shots}/tab-${name}.png`, fullPage: true });
  // Back to another tab: the frame goes, and with it what it asked for.
  await page.evaluate(() => [...document.querySelectorAll('[role="tab"]')][0].focus());
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => !document.querySelector('iframe[title="Experiment"]'), waits);
  seen.left = await page.evaluate(chosen);
  await page.close();
  return seen;
}

const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"],
});
const told = { experiment: {}, tab: {} };
try {
  for (const [name, look] of Object.entries(looks)) {
    told.experiment[name] = await alone(browser, name, look);
    told.tab[name] = await inLocusts(browser, name, look);
  }
} finally {
  await browser.close();
}
process.stdout.write(`${JSON.stringify(told, null, 1)}\n`);
