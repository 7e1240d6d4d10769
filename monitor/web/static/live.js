// Learns from the server that there was a poll, and fetches the documents that are shown.
//
// An event only says which cluster has something new. Hidden tabs hold no connection; a monitor that is
// away is looked for until it is back, and what was seen last stays, with its age.

const AGAIN_MS = 3000; // where the browser has given the connection up
const REFETCH_MS = 10000; // where the server has no room for one more live page

// Before the first event nobody knows which poll was the last.
const isOlder = (have, wanted) => wanted.poll !== undefined && wanted.poll !== have.poll;

const secondsAhead = (date) => (date ? (Date.parse(date) - Date.now()) / 1000 : 0);

export class Live {
  // `documentsOf(clusters)` returns [{key, url, poll}] that are to be shown; `show(live)` draws
  // them, `showAge(live)` how old they are.
  constructor(documentsOf, show, showAge) {
    this.documentsOf = documentsOf;
    this.show = show;
    // the page itself names them: the first documents need not wait for the first event
    this.clusters = JSON.parse(document.getElementById("clusters").textContent);
    this.isHeard = false;
    this.documents = new Map(); // key -> {data, error}
    this.fetching = new Set();
    this.lostSince = null;
    this.offset = 0; // server's clock less ours, in seconds
    this.source = null;
    document.addEventListener("visibilitychange", () => (document.hidden ? this.pause() : this.open()));
    window.addEventListener("pagehide", () => this.pause());
    window.addEventListener("pageshow", () => this.open());
    setInterval(() => document.hidden || showAge(this), 1000);
    this.open();
    this.update();
  }

  // The server's time now, in Unix seconds: ages are right even where our clock is wrong.
  now() {
    return Date.now() / 1000 + this.offset;
  }

  open() {
    if (this.source || document.hidden) return;
    clearTimeout(this.again);
    const source = new EventSource("/live");
    this.source = source;
    source.onmessage = (event) => this.heard(JSON.parse(event.data));
    source.onerror = () => {
      this.lostSince ??= this.now();
      if (source.readyState === EventSource.CLOSED) {
        this.pause();
        this.again = setTimeout(() => this.open(), AGAIN_MS);
        this.refetch();
      }
      this.show(this);
    };
  }

  pause() {
    clearTimeout(this.again);
    this.source?.close();
    this.source = null;
  }

  heard(told) {
    this.lostSince = null;
    this.isHeard = true;
    this.offset = told.now - Date.now() / 1000;
    this.clusters = told.clusters;
    this.update();
    this.show(this);
  }

  // Fetch what is shown and older than the last poll; `force` whatever its age.
  update(force = false) {
    for (const wanted of this.documentsOf(this.clusters)) {
      const have = this.documents.get(wanted.key);
      if (force || !have || isOlder(have, wanted)) this.fetch(wanted);
    }
  }

  refetch() {
    const now = Date.now();
    if (now - (this.refetchedAt ?? 0) < REFETCH_MS) return;
    this.refetchedAt = now;
    this.update(true);
  }

  async fetch({ key, url, poll }) {
    if (this.fetching.has(key)) return;
    this.fetching.add(key);
    const before = this.documents.get(key);
    try {
      const answer = await fetch(url, { headers: { Accept: "application/json" } });
      const told = await answer.json();
      if (!this.isHeard) this.offset = secondsAhead(answer.headers.get("Date"));
      if (answer.ok) this.documents.set(key, { data: told, before: before?.data, poll: told.poll ?? poll, error: null });
      else this.documents.set(key, { ...before, poll, error: told.error.message });
    } catch {
      // the monitor is away: what was seen last stays
      this.documents.set(key, { ...before, poll: null, error: before?.data ? null : "the monitor does not answer" });
    }
    this.fetching.delete(key);
    this.show(this);
    // another poll may have ended meanwhile
    const wanted = this.documentsOf(this.clusters).find((each) => each.key === key);
    const have = this.documents.get(key);
    if (wanted && have.poll !== null && isOlder(have, wanted) && !this.lostSince) this.fetch(wanted);
  }
}
