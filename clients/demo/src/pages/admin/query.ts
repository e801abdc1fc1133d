/** The query of an address, without what is empty. */
export function query(values: Readonly<Record<string, string>>): string {
  const kept = Object.entries(values).filter(([, value]) => value);
  return kept.length ? `?${new URLSearchParams(kept)}` : "";
}
