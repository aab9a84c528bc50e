import { describe, expect, it } from "vitest";
import { placeFiles } from "./dropped-files.js";

const placed = (...paths: string[]) => placeFiles(paths.map((path) => ({ path, file: new File(["x"], "f") })));
const names = (...paths: string[]) => placed(...paths).files.map(({ name }) => name);

describe("placeFiles", () => {
  it("names a set by the one folder that was dropped, and takes what is in it", () => {
    expect(placed("dogs/a.png", "dogs/a.txt")).toMatchObject({ label: "dogs", leftOut: 0, isFlattened: false });
    expect(names("dogs/a.png", "dogs/a.txt")).toEqual(["a.png", "a.txt"]);
    expect(placed("a.png", "b.png").label).toBe("");
  });

  it("brings folders within into one, and says so", () => {
    expect(placed("dogs/a.png", "dogs/more/b.png")).toMatchObject({ label: "dogs", isFlattened: true });
    expect(names("dogs/a.png", "dogs/more/b.png")).toEqual(["a.png", "b.png"]);
  });

  it("keeps files of the same name apart, each with its caption", () => {
    const dropped = ["dogs/a.png", "dogs/a.txt", "cats/A.png", "cats/a.txt"];
    expect(names(...dropped)).toEqual(["dogs-a.png", "dogs-a.txt", "cats-A.png", "cats-a.txt"]);
  });

  it("leaves out what systems leave behind, and counts it", () => {
    const { files, leftOut } = placed("dogs/a.png", "dogs/.DS_Store", "dogs/Thumbs.db", "__MACOSX/dogs/._a.png");
    expect(files.map(({ name }) => name)).toEqual(["a.png"]);
    expect(leftOut).toBe(3);
  });
});
