import { useEffect, useState } from "react";

/** While it is not known yet whether somebody is signed in. It says so only when that takes a while. */
export function Splash({ inside }: { inside?: boolean }) {
  const [slow, setSlow] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setSlow(true), 400);
    return () => clearTimeout(timer);
  }, []);
  const content = (
    <div className="splash" role="status">
      {slow && (
        <p className="muted">
          <span className="spinner" aria-hidden="true" /> One moment …
        </p>
      )}
    </div>
  );
  return inside ? content : <main id="main">{content}</main>;
}
