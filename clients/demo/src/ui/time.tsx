/** Times as people say them, with the exact one at hand. */
const UNITS: readonly (readonly [Intl.RelativeTimeFormatUnit, number])[] = [
  ["year", 31_536_000],
  ["month", 2_592_000],
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const exact = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "short" });

export function ago(at: string, now = Date.now()): string {
  const seconds = (Date.parse(at) - now) / 1000;
  for (const [unit, length] of UNITS) {
    if (Math.abs(seconds) >= length) return relative.format(Math.round(seconds / length), unit);
  }
  return seconds > 0 ? "in less than a minute" : "just now";
}

export function Time({ at, never = "never", plain }: { at: string | null; never?: string; plain?: boolean }) {
  if (!at) return <>{never}</>;
  const written = exact.format(new Date(at));
  return (
    <time dateTime={at} title={plain ? undefined : written}>
      {plain ? written : ago(at)}
    </time>
  );
}
