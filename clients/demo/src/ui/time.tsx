/** Times as people say them, with the exact one at hand. */
import { LOCALES } from "../service/locale";

const UNITS: readonly (readonly [Intl.RelativeTimeFormatUnit, number])[] = [
  ["year", 31_536_000],
  ["month", 2_592_000],
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const exact = new Intl.DateTimeFormat(LOCALES, { dateStyle: "medium", timeStyle: "short" });
const day = new Intl.DateTimeFormat(LOCALES, { dateStyle: "long" });

export function ago(at: string, now = Date.now()): string {
  const seconds = (Date.parse(at) - now) / 1000;
  for (const [unit, length] of UNITS) {
    if (Math.abs(seconds) >= length) return relative.format(Math.round(seconds / length), unit);
  }
  return seconds > 0 ? "in less than a minute" : "just now";
}

/** `plain`: the time itself, or its day, in place of how long ago that is. */
export function Time({ at, plain }: { at: string | null; plain?: boolean | "day" }) {
  if (!at) return <>never</>;
  const written = exact.format(new Date(at));
  const said = plain === "day" ? day.format(new Date(at)) : plain ? written : ago(at);
  return (
    <time dateTime={at} title={said === written ? undefined : written}>
      {said}
    </time>
  );
}
