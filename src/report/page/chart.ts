import { type Html, html } from './html.ts';

/** One value at a time, milliseconds since 1970. */
export interface Point {
  readonly time: number;
  readonly value: number;
}

export interface ChartText {
  readonly title: string;
  /** What whoever hears the page is told in place of the picture. */
  readonly words: string;
  readonly format: (value: number) => string;
  /** `time`: values are seconds, and the scale ends at a round time. */
  readonly units?: 'time';
}

/** A value that has a mark of its own. */
export interface Mark extends Point {
  readonly kind: 'passed' | 'failed';
  /** What a pointer over it shows. */
  readonly words: string;
}

const height = 150;
/** Above and below what is drawn, for what is written there. */
const [top, bottom] = [22, 22];
const inner = height - top - bottom;
/** Points of one line; more would lie on one another. */
const mostPoints = 240;

/** A line over time from zero. Two points at least, oldest first. */
export function lineChart(points: readonly Point[], text: ChartText): Html {
  const scale = scaleOf(points, 0, text);
  const thinned = thin(points);
  const corners = thinned.map(
    (each) => `${coordinate(scale.x(each) * 10)} ${coordinate(100 - scale.part(each) * 100)}`,
  );
  const [first, last] = [thinned[0], thinned.at(-1)];
  if (first === undefined || last === undefined) return html``;
  const line = `M${corners.join('L')}`;
  const area = `${line}L${coordinate(scale.x(last) * 10)} 100L${coordinate(scale.x(first) * 10)} 100Z`;
  return chart(
    points,
    scale,
    text,
    html`<svg x="0" y="${top}" width="100%" height="${inner}" viewBox="0 0 1000 100" preserveAspectRatio="none"><path class="area" d="${area}"/><path class="line" d="${line}"/></svg>
<circle class="dot" cx="${coordinate(scale.x(last))}%" cy="${scale.y(last)}" r="4"/>`,
  );
}

/** A stem for each value, and a limit that they should stay below. */
export function stemChart(
  marks: readonly Mark[],
  limit: { readonly value: number; readonly words: string } | undefined,
  text: ChartText,
): Html {
  const scale = scaleOf(marks, limit?.value ?? 0, text);
  const level = limit && scale.y({ time: 0, value: limit.value });
  return chart(
    marks,
    scale,
    text,
    html`${marks.map((each) => stem(each, scale))}${
      limit &&
      html`<line class="limit" x1="0" x2="100%" y1="${level}" y2="${level}"/><text class="limit" x="100%" y="${(level ?? 0) - 5}" text-anchor="end">${limit.words}</text>`
    }`,
    limit?.value,
  );
}

function stem(mark: Mark, scale: Scale): Html {
  const x = `${coordinate(scale.x(mark))}%`;
  const y = scale.y(mark);
  const end =
    mark.kind === 'passed'
      ? html`<circle class="dot" cx="${x}" cy="${y}" r="4"/>`
      : html`<svg x="${x}" y="${y}" overflow="visible"><path class="cross" d="M-4-4L4 4M4-4L-4 4"/></svg>`;
  return html`<g class="${mark.kind}"><title>${mark.words}</title><line class="stem" x1="${x}" x2="${x}" y1="${height - bottom}" y2="${y}"/>${end}</g>`;
}

/**
 * Widths are in percent and heights in pixels, so that it fits any screen while its letters keep their size: the frame
 * has no view box, only what is drawn to scale inside it has one.
 */
function chart(
  points: readonly Point[],
  scale: Scale,
  { title, words, format }: ChartText,
  drawn: Html,
  /** Has its own words at this level. */
  said?: number,
): Html {
  const [first, last] = [points[0], points.at(-1)];
  if (first === undefined || last === undefined) return html``;
  const base = height - bottom;
  return html`<figure><figcaption>${title}</figcaption>
<svg class="chart" width="100%" height="${height}" role="img" aria-label="${words}">
<line class="grid" x1="0" x2="100%" y1="${top}" y2="${top}"/><line class="grid" x1="0" x2="100%" y1="${top + inner / 2}" y2="${top + inner / 2}"/><line class="axis" x1="0" x2="100%" y1="${base}" y2="${base}"/>
${drawn}
${scale.most !== said && html`<text x="0" y="${top - 6}">${format(scale.most)}</text>`}
<text x="0" y="${height - 5}">${dateOf(first.time)}</text>${dateOf(first.time) !== dateOf(last.time) && html`<text x="100%" y="${height - 5}" text-anchor="end">${dateOf(last.time)}</text>`}
</svg></figure>`;
}

interface Scale {
  readonly most: number;
  /** Percent from the left, with room for half a mark at both ends. */
  readonly x: (point: Point) => number;
  /** Pixels from the top. */
  readonly y: (point: Point) => number;
  /** Of the height, 0 to 1. */
  readonly part: (point: Point) => number;
}

function scaleOf(points: readonly Point[], least: number, { units }: ChartText): Scale {
  const highest = points.reduce((high, { value }) => Math.max(high, value), least);
  const most = units === 'time' ? roundTime(highest) : roundUp(highest);
  const times = points.map(({ time }) => time);
  const [from, to] = [times[0] ?? 0, times.at(-1) ?? 0];
  const part = ({ value }: Point): number => value / most;
  return {
    most,
    part,
    x: ({ time }) => (to === from ? 50 : 1.5 + (97 * (time - from)) / (to - from)),
    y: (point) => coordinate(top + (1 - part(point)) * inner),
  };
}

/** The same for seconds, on a clock. */
function roundTime(seconds: number): number {
  const unit = [1, 60, 3600].findLast((each) => seconds > each) ?? 1;
  const step = [1, 2, 3, 5, 10, 15, 20, 30, 45, 60].find((each) => each * unit >= seconds * 0.9999);
  return step === undefined ? roundUp(seconds / unit) * unit : step * unit;
}

/** To the next number that people would choose: 1, 1.5, 2, 3, 4, 5, 6, 8 and their tenfolds. */
function roundUp(value: number): number {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  const step = [1, 1.5, 2, 3, 4, 5, 6, 8].find((each) => each * power >= value * 0.9999);
  return (step ?? 10) * power;
}

/** Of many points those that make the outline: the lowest and the highest of each stretch, and both ends. */
function thin(points: readonly Point[]): Point[] {
  if (points.length <= mostPoints) return [...points];
  const stretch = Math.ceil((points.length * 2) / mostPoints);
  const kept = new Set<Point>();
  for (let at = 0; at < points.length; at += stretch) {
    const part = points.slice(at, at + stretch).sort((a, b) => a.value - b.value);
    for (const each of [part[0], part.at(-1)]) if (each !== undefined) kept.add(each);
  }
  return points.filter((each, at) => kept.has(each) || at === 0 || at === points.length - 1);
}

function coordinate(value: number): number {
  return Math.round(value * 100) / 100;
}

function dateOf(at: number): string {
  return new Date(at).toISOString().slice(0, 10);
}
