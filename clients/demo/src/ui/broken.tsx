import { Component, type ReactNode } from "react";
import { Button } from "./button";

/** What is left when a page breaks: a way on, rather than nothing. */
export class Broken extends Component<{ children: ReactNode }> {
  state = { broken: false };

  static getDerivedStateFromError() {
    return { broken: true };
  }

  render() {
    if (!this.state.broken) return this.props.children;
    return (
      <main className="guest">
        <div className="guest-card" role="alert">
          <h1>This page has broken</h1>
          <p>That is our mistake. Nothing is lost that was saved.</p>
          <Button kind="primary" onClick={() => location.reload()}>
            Load it again
          </Button>
        </div>
      </main>
    );
  }
}
