import { describe, expect, it } from "vitest";
import { placeFiles } from "./dropped-files.js";

const placed = (...paths: string[]) => placeFiles(paths.map((path) => ({ path, file: new File(["x"], "f") })));
const names = (...paths: string[]) => placed(...paths).files.map(({ name }) => name);

describe("placeFiles", () => {
  it("names a set by the one folder that was dropped, and takes what is in it", () => {
    expect(placed("dogs/a.png", "dogs/more/b.png")).toMatchObject({ label: "dogs", leftOut: 0 });
    expect(names("dogs/a.png", "dogs/more/b.png")).toEqual(["a.png", "more/b.png"]);
  });

  it("keeps folders apart where there are several, and a folder whose number counts", () => {
    expect(names("dogs/a.png", "cats/a.png")).toEqual(["dogs/a.png", "cats/a.png"]);
    expect(names("10_dog/a.png")).toEqual(["10_dog/a.png"]);
    expect(names("dogs/a.png", "b.png")).toEqual(["dogs/a.png", "b.png"]);
  });

  it("leaves out what systems leave behind, and counts it", () => {
    const { files, leftOut } = placed("dogs/a.png", "dogs/.DS_Store", "dogs/Thumbs.db", "__MACOSX/dogs/._a.png");
    expect(files.map(({ name }) => name)).toEqual(["a.png"]);
    expect(leftOut).toBe(3);
  });
});
