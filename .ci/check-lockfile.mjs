// Fails where a lockfile lacks an entry for another platform's optional package: npm leaves them out when it writes a
// lockfile beside an existing node_modules.
import { readFileSync } from "node:fs";

for (const file of ["package-lock.json", "vendor/package-lock.json", "docs/reference/package-lock.json"]) {
  const { packages } = JSON.parse(readFileSync(file, "utf8"));
  const missing = [];
  for (const [path, { optionalDependencies = {} }] of Object.entries(packages)) {
    for (const name of Object.keys(optionalDependencies)) {
      if (!packages[`node_modules/${name}`] && !packages[`${path}/node_modules/${name}`])
        missing.push(`${path} -> ${name}`);
    }
  }
  if (missing.length > 0) {
    console.error(
      `${file} lacks optional packages:\n${missing.join("\n")}\nWrite it anew in a folder without node_modules.`,
    );
    process.exit(1);
  }
  console.log(`${file} is complete for every platform (${Object.keys(packages).length} packages)`);
}
