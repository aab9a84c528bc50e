// Keeps the frame where a view fails: says so, and offers to show it anew.

import { Component, type ComponentChildren } from "preact";

interface State {
  error?: Error;
}

export class ViewBoundary extends Component<{ children: ComponentChildren }, State> {
  override state: State = {};

  static override getDerivedStateFromError(error: Error): State {
    return { error };
  }

  override render() {
    const { error } = this.state;
    if (!error) return this.props.children;
    return (
      <div class="panel stack" role="alert">
        <h1>This view cannot be shown</h1>
        <p>{error.message}</p>
        <p>Trainings go on without it. Show it anew, or reload the page; if that does not help, tell what you did.</p>
        <div class="row">
          <button type="button" onClick={() => this.setState({ error: undefined })}>
            Show it anew
          </button>
        </div>
      </div>
    );
  }
}
