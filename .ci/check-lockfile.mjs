// Fails where the lockfile lacks an entry for another platform's optional package: npm leaves them out when it writes
// a lockfile beside an existing node_modules.
import { readFileSync } from "node:fs";

const { packages } = JSON.parse(readFileSync("package-lock.json", "utf8"));
const missing = [];
for (const [path, { optionalDependencies = {} }] of Object.entries(packages)) {
  for (const name of Object.keys(optionalDependencies)) {
    if (!packages[`node_modules/${name}`] && !packages[`${path}/node_modules/${name}`])
      missing.push(`${path} -> ${name}`);
  }
}
if (missing.length > 0) {
  console.error(
    `package-lock.json lacks optional packages:\n${missing.join("\n")}\nWrite it anew in a folder without node_modules.`,
  );
  process.exit(1);
}
console.log(`package-lock.json is complete for every platform (${Object.keys(packages).length} packages)`);
