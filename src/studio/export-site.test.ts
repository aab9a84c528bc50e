import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { exportSite } from "./export-site.js";

describe("exportSite", () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "site-"));
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  it("writes the page with ONNX Runtime and the model beside it, and no address that is not relative", async () => {
    const { files, sizeBytes } = await exportSite(join(folder, "new"));
    expect(files).toEqual(
      expect.arrayContaining([
        ...["index.html", "isolation-worker.js", "model/model_index.json", "model/unet/config.json"],
        ...["ort/ort-wasm-simd-threaded.asyncify.mjs", "ort/ort-wasm-simd-threaded.asyncify.wasm"],
      ]),
    );
    expect(files).not.toContain("model/README.md");
    for (const file of files) expect((await stat(join(folder, "new", file))).size).toBeGreaterThan(0);
    expect(sizeBytes).toBeGreaterThan(30e6);
    const page = await readFile(join(folder, "new/index.html"), "utf8");
    expect([...page.matchAll(/(?:src|href)="([^"]*)"/g)].map(([, address]) => address)).not.toContainEqual(
      expect.stringMatching(/^\/|^https?:/),
    );
  });

  it("replaces a site that it wrote before, and leaves what lies beside it", async () => {
    await exportSite(folder);
    const marker = join(folder, "fera-studio.json");
    const { files } = JSON.parse(await readFile(marker, "utf8")) as { files: string[] };
    await writeFile(join(folder, "old.js"), "");
    await writeFile(join(folder, "CNAME"), "example.org");
    await writeFile(marker, JSON.stringify({ files: [...files, "old.js"] }));
    await exportSite(folder);
    await expect(stat(join(folder, "old.js"))).rejects.toThrow(/ENOENT/);
    expect(await readFile(join(folder, "CNAME"), "utf8")).toBe("example.org");
    expect(JSON.parse(await readFile(marker, "utf8"))).toMatchObject({ files });
  });

  it("refuses a folder that holds anything else, and changes nothing in it", async () => {
    await writeFile(join(folder, "thesis.txt"), "important");
    await expect(exportSite(folder)).rejects.toThrow(/thesis\.txt.*Name a new or an empty folder/);
    await expect(stat(join(folder, "index.html"))).rejects.toThrow(/ENOENT/);
  });

  it("deletes nothing outside the folder, whatever the list of a site says", async () => {
    await exportSite(join(folder, "site"));
    await writeFile(join(folder, "precious.txt"), "");
    await writeFile(join(folder, "site/fera-studio.json"), JSON.stringify({ files: ["../precious.txt"] }));
    await expect(exportSite(join(folder, "site"))).rejects.toThrow(/fera-studio\.json is damaged/);
    await stat(join(folder, "precious.txt"));
  });
});
