import { Link } from "react-router";
import { device, eventDetail, eventName } from "../service/events";
import type { Loaded } from "../service/hooks";
import type { AuditEvent, Page } from "../service/types";
import { Loading } from "./page";
import { More } from "./more";
import { Time } from "./time";

/** A list of security events; with `everybody` each says whose it is. */
export function Events({ events, everybody }: { events: Loaded<Page<AuditEvent>> & { more(): Promise<void> }; everybody?: boolean }) {
  return (
    <Loading loaded={events} rows={6}>
      {({ items, nextCursor }) => (
        <>
          {items.length ? (
            <ul className="rows card" aria-label="Events">
              {items.map((event) => (
                <li key={event.id} className="row row-event">
                  <span className={`dot dot-${event.outcome === "success" ? "good" : "bad"}`} aria-hidden="true" />
                  <div className="row-text">
                    <p className="row-title">
                      {eventName(event.type)}
                      {event.outcome !== "success" && <span className="badge badge-warn">refused</span>}
                    </p>
                    <p className="muted">
                      {[eventDetail(event), event.ip, event.userAgent && device(event.userAgent)].filter(Boolean).join(" · ")}
                      {everybody && event.userId && (
                        <>
                          {" "}
                          <Link to={`/admin/users/${event.userId}`} className="nowrap">
                            Show user
                          </Link>
                        </>
                      )}
                    </p>
                  </div>
                  <p className="row-when muted">
                    <Time at={event.at} />
                  </p>
                </li>
              ))}
            </ul>
          ) : (
            <p className="card muted">{nextCursor ? "Nothing in this part yet; look further back." : "Nothing has happened."}</p>
          )}
          {nextCursor && <More more={events.more} />}
        </>
      )}
    </Loading>
  );
}
