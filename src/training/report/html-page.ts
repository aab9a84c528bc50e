// A page that needs nothing but itself: text escaped, plots and pictures inside, light and dark. Loads and runs nothing.

/** Text for an element or an attribute. */
export function escapeHtml(text: string): string {
  const names: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
  return text.replace(/[&<>"']/g, (character) => names[character]!);
}

/** A part of the page; `html` is trusted. */
export interface PageSection {
  title: string;
  html: string;
}

const STYLE = `
:root { color-scheme: light dark; --text: #222; --muted: #555; --line: #ddd; --page: #fff; --panel: #f6f7f9; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e8e8e8; --muted: #a8adb3; --line: #3a3f45; --page: #16181b; --panel: #1f2226; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; max-width: 76rem; background: var(--page); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2rem 0 .75rem; }
p { margin: .25rem 0; color: var(--muted); }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 32rem), 1fr)); gap: 1rem; }
figure { margin: 0; padding: .5rem; background: var(--panel); border: 1px solid var(--line); border-radius: .5rem; }
figure svg, figure img { display: block; width: 100%; height: auto; }
figcaption { color: var(--muted); padding: .25rem 0; overflow-wrap: anywhere; }
.pictures { display: grid; gap: 1rem; }
.pictures img { background: #fff; border-radius: .25rem; max-width: max-content; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--line); }
td { overflow-wrap: anywhere; }
th { font-weight: 600; white-space: nowrap; }
pre { margin: 0; padding: .75rem; background: var(--panel); border: 1px solid var(--line); border-radius: .5rem;
  white-space: pre-wrap; overflow-wrap: anywhere; }
/* Plots are drawn for white paper; here they take the page's colours. */
svg > rect[fill="#fff"] { fill: none; }
svg path[fill="#222"] { fill: var(--text); }
svg path[fill="#555"] { fill: var(--muted); }
svg path[stroke="#e4e4e4"] { stroke: var(--line); }
`;

/** The whole document. @param lines - Under the title. */
export function htmlPage(title: string, lines: readonly string[], sections: readonly PageSection[]): string {
  const body = sections.map((section) => `<section><h2>${escapeHtml(section.title)}</h2>${section.html}</section>`);
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>${escapeHtml(title)}</title>
<style>${STYLE}</style>
</head>
<body>
<header><h1>${escapeHtml(title)}</h1>${lines.map((line) => `<p>${escapeHtml(line)}</p>`).join("")}</header>
<main>
${body.join("\n")}
</main>
</body>
</html>
`;
}

/** A table of two columns. */
export function htmlTable(rows: readonly (readonly [name: string, value: string])[]): string {
  const cells = rows.map(
    ([name, value]) => `<tr><th scope="row">${escapeHtml(name)}</th><td>${escapeHtml(value)}</td></tr>`,
  );
  return `<table><tbody>${cells.join("")}</tbody></table>`;
}

/** A picture or plot with words under it. */
export const htmlFigure = (content: string, caption: string): string =>
  `<figure>${content}<figcaption>${escapeHtml(caption)}</figcaption></figure>`;

/** A picture as part of the page. */
export function htmlImage(bytes: Uint8Array, type: string, description: string): string {
  const data = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64");
  return `<img alt="${escapeHtml(description)}" src="data:${type};base64,${data}">`;
}
