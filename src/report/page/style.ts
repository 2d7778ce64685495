/** The page's only style sheet. Every pair of colours has a contrast of 4.5 to 1 or more, in both schemes. */
export const style = `
:root {
  color-scheme: light dark;
  --paper: #fbfaf7; --card: #ffffff; --ink: #20252a; --soft: #59616a; --line: #e3dfd6;
  --ok: #1f6a49; --ok-soft: #d3e8dc; --warn: #7a5400; --warn-soft: #f8edd3; --bad: #a3271d; --bad-soft: #fae1dd;
  --blue: #2b5c8c; --blue-soft: #dce7f1;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171a; --card: #1b1f23; --ink: #e9e7e2; --soft: #a4acb4; --line: #31373d;
    --ok: #84cfaa; --ok-soft: #214132; --warn: #e6bd66; --warn-soft: #3a301b; --bad: #f49a90; --bad-soft: #472725;
    --blue: #93bce4; --blue-soft: #22374c;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 0 1.25rem; max-width: 64rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", Arial, sans-serif;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere;
}
a { color: var(--blue); text-underline-offset: .15em; }
:focus-visible { outline: 3px solid var(--blue); outline-offset: 2px; border-radius: .2rem; }
code, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace; font-size: .875em; }
pre { margin: .5rem 0 1rem; padding: .75rem 1rem; background: var(--card); border: 1px solid var(--line); border-radius: .5rem; white-space: pre-wrap; }
p { margin: .5rem 0; }
h2 { font-size: 1.375rem; line-height: 1.25; margin: 2.5rem 0 1rem; }
h3 { font-size: 1.0625rem; line-height: 1.3; margin: 2.5rem 0 .75rem; }
.soft, footer { color: var(--soft); font-size: .875rem; }
.heard, .skip:not(:focus) { position: absolute; width: 1px; height: 1px; margin: -1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.skip:focus { position: absolute; left: 1rem; top: .5rem; padding: .5rem 1rem; background: var(--card); }
header { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 1.5rem; padding: 1rem 0; border-bottom: 1px solid var(--line); }
header p { margin: 0; }
header code { color: var(--soft); margin-left: .5rem; }
footer { margin-top: 4rem; padding: 1rem 0 2rem; border-top: 1px solid var(--line); }

.mark { width: 1.25rem; height: 1.25rem; flex: none; vertical-align: -.25em; fill: currentColor; stroke: none; }
.mark path:not(.fill) { fill: none; stroke: var(--paper); stroke-width: 2.6; stroke-linecap: round; stroke-linejoin: round; }
.mark path.ring { stroke: currentColor; } .mark.unproven { color: var(--soft); }
.mark.ok { color: var(--ok); } .mark.warning { color: var(--warn); } .mark.critical { color: var(--bad); }
.state { display: flex; gap: 1rem; align-items: flex-start; margin: 2.5rem 0 2rem; }
.state h1 { font-size: clamp(1.375rem, 1rem + 1.75vw, 1.875rem); line-height: 1.25; font-weight: 600; letter-spacing: -.01em; margin: 0; text-wrap: balance; }
.state .mark { width: 2.25rem; height: 2.25rem; margin-top: .125rem; }
.stale { margin: 1.5rem 0 0; padding: .75rem 1rem; background: var(--warn-soft); color: var(--warn); border: 1px solid; border-radius: .5rem; font-weight: 600; }

.findings, .legend { list-style: none; margin: 0; padding: 0; }
.findings li { display: flex; gap: .75rem; padding: .75rem 0; border-top: 1px solid var(--line); }
.findings li > .mark { margin-top: .15rem; }
.findings li:last-child { border-bottom: 1px solid var(--line); }
.findings p { margin: 0 0 .25rem; }

.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: 1px; margin: 1.5rem 0 0; background: var(--line); border: 1px solid var(--line); border-radius: .75rem; overflow: hidden; }
.figures > div { padding: .875rem 1rem; background: var(--card); }
dt { color: var(--soft); font-size: .875rem; }
dd { margin: 0; }
dd strong { display: block; font-size: 1.1875rem; line-height: 1.35; font-weight: 600; }

.months { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.25rem, 1fr)); gap: 1.25rem 1.5rem; align-items: start; }
.month { width: 100%; border-collapse: collapse; table-layout: fixed; font-size: .75rem; line-height: 1; }
.month caption { text-align: left; font-size: .875rem; font-weight: 600; padding-bottom: .375rem; }
.month th { font-weight: 400; color: var(--soft); padding: .125rem 0; }
.month abbr { text-decoration: none; }
.month td { padding: 1px; text-align: center; position: relative; }
.day { display: block; min-width: 1.25rem; padding: .3125rem 0; border: 1px solid transparent; border-radius: .25rem; text-align: center; color: var(--soft); }
.day.stored { background: var(--ok-soft); color: var(--ink); }
.day.proven { background: var(--ok); color: var(--paper); font-weight: 700; border-radius: 1rem; }
.day.failed { background: var(--bad-soft); color: var(--bad); border: 1px solid var(--bad); font-weight: 700; text-decoration: line-through; }
.day.missed { color: var(--bad); border: 1px dashed var(--bad); font-weight: 700; }
[aria-current] .day { outline: 2px solid var(--ink); outline-offset: 1px; }
.legend { display: flex; flex-wrap: wrap; gap: .375rem 1.25rem; margin: 1rem 0 .5rem; font-size: .875rem; color: var(--soft); }
.legend li { display: flex; align-items: center; gap: .5rem; }
.legend .day { flex: none; font-size: .75rem; line-height: 1; width: 1.5rem; }

.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); gap: 1.5rem 2rem; }
figure { margin: 0 0 1rem; }
figcaption { font-size: .875rem; margin-bottom: .5rem; }
.chart { display: block; overflow: visible; }
.chart text { font-size: 12px; fill: var(--soft); }
.chart .grid { stroke: var(--line); stroke-width: 1; } .chart .axis { stroke: var(--soft); stroke-width: 1; }
.chart .line { fill: none; stroke: var(--blue); stroke-width: 2; stroke-linejoin: round; vector-effect: non-scaling-stroke; }
.chart .area { fill: var(--blue-soft); stroke: none; opacity: .7; }
.chart .dot { fill: var(--blue); stroke: var(--paper); stroke-width: 1.5; }
.chart .stem { stroke: var(--blue); stroke-width: 1.5; opacity: .45; }
.chart .failed .stem { stroke: var(--bad); } .chart .cross { fill: none; stroke: var(--bad); stroke-width: 2.5; stroke-linecap: round; }
.chart line.limit { stroke: var(--ink); stroke-width: 1.5; stroke-dasharray: 5 4; }
.chart text.limit { fill: var(--ink); }

table.rows { width: 100%; border-collapse: collapse; font-size: .9375rem; line-height: 1.4; }
.rows th { text-align: left; white-space: nowrap; font-weight: 400; font-size: .875rem; color: var(--soft); padding: .375rem 1rem .375rem 0; border-bottom: 1px solid var(--line); }
.rows td { vertical-align: top; padding: .5rem 1rem .5rem 0; border-bottom: 1px solid var(--line); }
.rows td:last-child, .rows th:last-child { padding-right: 0; }
.rows code { color: var(--soft); white-space: nowrap; }
.rows .whole { white-space: nowrap; }
.rows .under { display: block; }
.word { font-weight: 600; } .word.passed { color: var(--ok); } .word.failed { color: var(--bad); }
.word.passed::before { content: "\\2713\\00a0" / ""; } .word.failed::before { content: "\\2715\\00a0" / ""; }
.tag { display: inline-block; padding: 0 .4375rem; font-size: .8125rem; color: var(--ink); background: var(--blue-soft); border-radius: .25rem; }
summary { cursor: pointer; padding: .5rem 0; }
.name > summary { padding: 1rem 0; }
.name > div { padding-bottom: 2rem; }
details.name { border-top: 1px solid var(--line); }
details.name:last-of-type { border-bottom: 1px solid var(--line); }
.name > summary h2 { display: inline; font-size: 1.125rem; margin: 0; }
.name > summary .mark { margin: 0 .25rem; }
.name > summary .soft { display: block; margin: .25rem 0 0 1.125rem; }
@media (max-width: 40rem) {
  body { padding: 0 1rem; }
  .state { margin: 1.75rem 0 1.5rem; gap: .75rem; }
  .state .mark { width: 1.75rem; height: 1.75rem; }
  .figures { grid-template-columns: 1fr 1fr; }
  .figures > :last-child:nth-child(odd) { grid-column: span 2; }
  .rows .under { display: inline; }
  .rows thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  .rows tr { display: block; padding: .625rem 0; border-bottom: 1px solid var(--line); }
  .rows td { display: block; padding: .0625rem 0; border: 0; }
}
@media print { .skip, #stale { display: none; } }
`;
