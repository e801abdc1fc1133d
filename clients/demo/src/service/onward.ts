/** What of a query goes along to another page: where the person was going, not what went wrong on this one. */
export function onward(search: string): string {
  const next = new URLSearchParams(search).get("next");
  return next ? `?next=${encodeURIComponent(next)}` : "";
}
