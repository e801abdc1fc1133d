import { useState } from "react";
import { useLookout } from "../service/hooks";
import { explain, isOutage } from "../service/problems";
import { Button } from "./button";

/** The next page of a list, below the ones that are there. */
export function More({ more }: { more(): Promise<void> }) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<string | null>(null);
  const lookout = useLookout();
  const load = async () => {
    setBusy(true);
    setError(null);
    try {
      await more();
    } catch (thrown) {
      if (isOutage(thrown)) lookout.lost();
      setError(explain(thrown));
    } finally {
      setBusy(false);
    }
  };
  return (
    <div className="actions">
      <Button busy={busy} onClick={load}>
        Show more
      </Button>
      <div role="alert">{error && <p className="field-error">{error}</p>}</div>
    </div>
  );
}
