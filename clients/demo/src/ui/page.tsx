/** A page: its title in the window and as its heading, which takes the focus when one comes from another page. */
import { type ReactNode, useEffect, useId, useRef } from "react";
import { useLocation } from "react-router";
import { explain, hasCode } from "../service/problems";
import { Button } from "./button";

/** The page before this one; the first one, which the browser itself has opened, leaves the focus alone. */
let before = "";

export function Page({ title, lead, children }: { title: string; lead?: ReactNode; children: ReactNode }) {
  const heading = useRef<HTMLHeadingElement>(null);
  const mine = useId() + useLocation().key;
  useEffect(() => {
    document.title = `${title} · Gatepost`;
  }, [title]);
  useEffect(() => {
    if (before && before !== mine) heading.current?.focus();
    before = mine;
  }, [mine]);
  return (
    <>
      <header className="page-head">
        <h1 ref={heading} tabIndex={-1}>
          {title}
        </h1>
        {lead && <p className="lead">{lead}</p>}
      </header>
      {children}
    </>
  );
}

export function Card({ title, lead, danger, children }: { title: string; lead?: ReactNode; danger?: boolean; children: ReactNode }) {
  const heading = useId();
  return (
    <section className={`card ${danger ? "card-danger" : ""}`} aria-labelledby={heading}>
      <h2 id={heading}>{title}</h2>
      {lead && <p className="lead">{lead}</p>}
      {children}
    </section>
  );
}

/** What has the place of something that is loading: as high as that will be about, and told to nobody twice. */
export function Skeleton({ rows = 3, label = "Loading" }: { rows?: number; label?: string }) {
  return (
    <div className="skeleton" role="status">
      <span className="unseen">{label}</span>
      {Array.from({ length: rows }, (_, row) => (
        <div key={row} className="skeleton-row" />
      ))}
    </div>
  );
}

/** What was loaded, a skeleton until then, or why not; both where it was loaded before. */
export function Loading<T>(props: {
  loaded: { data: T | undefined; problem: Error | null; reload(): void };
  rows?: number;
  children(data: T): ReactNode;
}) {
  const { data, problem, reload } = props.loaded;
  return (
    <>
      {problem && (
        <div role="alert" className="notice notice-danger notice-row">
          <p>{explain(problem)}</p>
          {!hasCode(problem, "NOT_FOUND", "FORBIDDEN") && <Button onClick={reload}>Try again</Button>}
        </div>
      )}
      {data !== undefined ? props.children(data) : !problem && <Skeleton rows={props.rows} />}
    </>
  );
}
