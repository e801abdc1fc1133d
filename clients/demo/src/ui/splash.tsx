import { useEffect, useState } from "react";
import { useWaiting } from "../service/hooks";

/** While it is not known yet whether somebody is signed in. It says so only when that takes a while. */
export function Splash() {
  const [slow, setSlow] = useState(false);
  useWaiting();
  useEffect(() => {
    const timer = setTimeout(() => setSlow(true), 400);
    return () => clearTimeout(timer);
  }, []);
  return (
    <div className="splash" role="status">
      {slow && (
        <h1 className="splash-text">
          <span className="spinner" aria-hidden="true" /> One moment …
        </h1>
      )}
    </div>
  );
}
