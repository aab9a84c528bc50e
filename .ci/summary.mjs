// Prints, last of all, each test that failed with the first lines of its complaint, and how many passed and failed.
import { readFileSync } from "node:fs";

const results = process.argv.slice(2).map((file) => JSON.parse(readFileSync(file, "utf8")));
for (const suite of results.flatMap((result) => result.testResults)) {
  if (suite.status === "failed" && suite.message) console.log(`failed: ${suite.name}\n  ${firstLines(suite.message)}`);
  for (const test of suite.assertionResults) {
    if (test.status === "failed")
      console.log(`failed: ${test.fullName} (${suite.name})\n  ${firstLines(test.failureMessages.join("\n"))}`);
  }
}
const sum = (key) => results.reduce((total, result) => total + result[key], 0);
console.log(`${sum("numPassedTests")} passed, ${sum("numFailedTests")} failed`);

/** As many lines as name the cause, without the trace. */
function firstLines(message) {
  return message.split("\n").slice(0, 8).join("\n  ");
}
