// Browsers start no workers for pages on disk, and the search runs in one: there it gets a frame in its place.
if (location.protocol === "file:") {
  // By the second name the theme's worker knows that it is in a frame.
  window.Worker = window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super();
      const base = new URL(url, location.href);
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.documentElement.append(frame);
      const room = frame.contentWindow;
      const load = (address) =>
        new Promise((done, failed) => {
          const script = room.document.createElement("script");
          script.src = new URL(address, base);
          script.onload = done;
          script.onerror = failed;
          room.document.head.append(script);
        });
      room.importScripts = (...addresses) =>
        addresses.reduce((before, address) => before.then(() => load(address)), Promise.resolve());
      room.postMessage = (data) => {
        const event = new MessageEvent("message", { data });
        this.dispatchEvent(event);
        this.onmessage?.(event);
      };
      this.deliver = (data) => room.dispatchEvent(new room.MessageEvent("message", { data }));
      this.ready = load(base);
    }

    postMessage(data) {
      this.ready.then(() => this.deliver(data));
    }

    terminate() {}
  };
}
