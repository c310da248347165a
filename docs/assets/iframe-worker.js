// A page that was opened from disk may start no worker, and Material searches in one. There this one
// runs in a hidden frame instead: the same messages in the same order.
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      this.inner = frame.contentWindow;
      addEventListener("message", event => {
        if (event.source === this.inner)
          this.dispatchEvent(new MessageEvent("message", { data: event.data }));
      });
      this.inner.document.open();
      this.inner.document.write(
        `<script>postMessage = data => parent.dispatchEvent(new parent.MessageEvent("message", { data, source: window }))<\/script>` +
        `<script src="${url}"><\/script>`
      );
      this.inner.document.close();
      this.loaded = new Promise(done => this.inner.addEventListener("load", done));
    }
    postMessage(data) {
      this.loaded.then(() => this.inner.dispatchEvent(new MessageEvent("message", { data })));
    }
    terminate() {}
  };
  window.Worker = window.IFrameWorker;
}
