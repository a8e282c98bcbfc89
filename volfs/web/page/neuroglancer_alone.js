// Loaded before Neuroglancer's own scripts: there is no Python server that steers it, so it need not look for one.

window.EventSource = class {
  constructor() {
    setTimeout(() => this.onopen?.());
  }

  close() {}
};
