import type { Condition, HealthStatus } from '../../health-findings.ts';
import { formatAge, formatTime } from '../../numbers.ts';
import { type Html, html } from './html.ts';
import { unbroken } from './words.ts';

/** A shape for each state, so that it is told apart without its colour. Whoever hears the page has the words beside it. */
export function statusMark(status: HealthStatus | 'unproven'): Html {
  const shape = {
    ok: html`<circle cx="12" cy="12" r="11"/><path d="M7 12.5l3.5 3.5L17.5 8.5"/>`,
    unproven: html`<path class="ring" d="M12 2a10 10 0 1 0 0 20a10 10 0 1 0 0-20"/><path class="ring" d="M7.5 12h9"/>`,
    warning: html`<path class="fill" d="M12 1.5L23.2 21.5H.8z"/><path d="M12 9v6M12 18.2v.6"/>`,
    critical: html`<path class="fill" d="M7.5 1h9L23 7.5v9L16.5 23h-9L1 16.5v-9z"/><path d="M8 8l8 8M16 8l-8 8"/>`,
  }[status];
  return html`<svg class="mark ${status}" viewBox="0 0 24 24" aria-hidden="true" focusable="false">${shape}</svg>`;
}

/** `2026-11-21 02:00 UTC` for machines and people. */
export function time(at: string | Date): Html {
  const text = formatTime(at);
  return html`<time datetime="${new Date(at).toISOString()}">${unbroken(text.replace(/:\d\d UTC$/, ' UTC'))}</time>`;
}

/** The same by its age; the time is behind it. */
export function age(at: string | Date, now: Date): Html {
  return html`<time datetime="${new Date(at).toISOString()}" title="${formatTime(at)}">${unbroken(formatAge(at, now))}</time>`;
}

/** Fine, but for that nobody has seen it restored. */
export function markOf({ status, proven }: Condition): Html {
  return statusMark(status === 'ok' && proven === undefined ? 'unproven' : status);
}

/** For whoever hears the page. */
export function heard(text: string): Html {
  return html`<span class="heard">${text}</span>`;
}
