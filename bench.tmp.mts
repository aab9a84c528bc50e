import { exportSite } from "./src/studio/export-site.js";
import { serveFolder } from "./test/support/static-server.js";
import { launchChromium } from "./test/support/chromium.js";
import sharp from "sharp";
const [device = "wasm", resolution = "64", steps = "30", every = "10"] = process.argv.slice(2);
await exportSite("/tmp/fera-site");
const server = await serveFolder("/tmp/fera-site", "/sub/path/");
const browser = await launchChromium();
const context = await browser.newContext();
const page = await context.newPage();
page.on("console", (m) => console.log("console", m.type(), m.text()));
page.on("pageerror", (e) => console.log("pageerror", e));
const t0 = Date.now();
await page.goto(server.url + "?debug");
await page.waitForFunction("globalThis.feraBackend && globalThis.crossOriginIsolated", undefined, { timeout: 60000 });
console.log("opened", Date.now() - t0, await page.evaluate("feraBackend.state()"));
const images = await Promise.all([0, 1, 2, 3].map(async (i) => {
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="128" height="128"><rect width="128" height="128" fill="white"/><circle cx="64" cy="64" r="${30 + 6 * i}" fill="hsl(${i * 60},80%,50%)"/></svg>`;
  return [...(await sharp(Buffer.from(svg)).png().toBuffer())];
}));
console.log(await page.evaluate(async (images) => {
  const b = (globalThis as any).feraBackend;
  await b.createDataSet("dots");
  const files = images.flatMap((bytes: number[], i: number) => [new File([new Uint8Array(bytes)], `dot${i}.png`), new File([`a coloured dot ${i}`], `dot${i}.txt`)]);
  files.push(new File(["broken"], "bad.png"));
  return [await b.addFiles("dots", files), await b.dataSet("dots", { resolution: 64 })];
}, images).then((x: any) => JSON.stringify(x).slice(0, 1500)));
console.log(JSON.stringify(await page.evaluate(async ([device, resolution, steps, every]) => {
  const b = (globalThis as any).feraBackend;
  const settings = { data: ["dots"], steps: Number(steps), device, ...(Number(resolution) && { resolution: Number(resolution) }), ...(Number(every) && { validateEvery: Number(every), validationPrompts: ["a coloured dot"] }) };
  const c = await b.check(settings);
  const o = await b.options();
  return [c.problems, c.command, o.length, await b.start("", settings)];
}, [device, resolution, steps, every])));
const started = Date.now();
let seen = "";
for (;;) {
  const runs = (await page.evaluate("feraBackend.runs()")) as any[];
  const r = runs[0];
  const line = `${r.state} ${r.activity ?? ""} ${r.step}`;
  if (line !== seen) console.log(((Date.now() - started) / 1000).toFixed(1), line, r.stepsPerSecond?.toFixed(2), r.peakMemoryBytes && (r.peakMemoryBytes / 1e6).toFixed(0) + " MB", r.secondsLeft, r.error ?? "");
  seen = line;
  if (["finished", "failed", "stopped"].includes(r.state)) break;
  await new Promise((r) => setTimeout(r, 150));
}
console.log(JSON.stringify(await page.evaluate("feraBackend.run('fera-1')")).slice(0, 2500));
console.log(JSON.stringify(await page.evaluate("feraBackend.metrics('fera-1', 0)")).slice(0, 900));
console.log(JSON.stringify(await page.evaluate(async () => { try { return await (performance as any).measureUserAgentSpecificMemory(); } catch (e) { return String(e); } })).slice(0, 600));
await browser.close(); await server.close();
