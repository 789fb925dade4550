// What every live page shares: following an event stream through restarts of the server, and renewing a part of the page.

const banner = document.getElementById("connection");

function connected(yes) {
  banner.hidden = yes;
  if (!yes) banner.textContent = "The connection is lost. Trying again…";
}

/**
 * Follow an event stream until a handler says that it has ended, whatever happens to the connection meanwhile.
 *
 * While the server is away the browser comes back by itself and tells the last event it has seen. A stream that the
 * server refuses, though, the browser gives up: that one is opened anew here, and then it begins with its first event.
 *
 * @param {string} url the stream
 * @param {Object<string, (data: any) => boolean | void>} handlers by the event's name; returning true ends the stream.
 *   `begin` is called before the stream begins anew.
 */
export function follow(url, { begin, ...handlers }) {
  let source;
  let wait = 500;

  function open() {
    begin?.();
    source = new EventSource(url);
    source.onopen = () => {
      wait = 500;
      connected(true);
    };
    source.onerror = () => {
      connected(false);
      if (source.readyState === EventSource.CLOSED) setTimeout(again, wait);
      wait = Math.min(2 * wait, 5000);
    };
    for (const [name, handle] of Object.entries(handlers)) {
      source.addEventListener(name, (event) => {
        if (handle(JSON.parse(event.data)) === true) source.close();
      });
    }
  }

  async function again() {
    // What is gone for good has a page that says so.
    const page = await fetch(location.href, { headers: { Accept: "text/html" } }).catch(() => null);
    if (page?.status === 404) location.reload();
    else open();
  }

  addEventListener("pagehide", () => source.close());
  open();
}

/** Return whether a job, as its status events tell of it, has ended. */
export function isFinal(job) {
  return ["completed", "failed", "cancelled"].includes(job.state);
}

/** Fetch the page again and put the part with this id in the place of the present one. */
export async function renew(id) {
  for (let wait = 500; ; wait = Math.min(wait * 2, 5000)) {
    try {
      const response = await fetch(location.href, { headers: { Accept: "text/html" } });
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      const fresh = page.getElementById(id);
      if (!fresh) return location.reload();
      document.getElementById(id).replaceWith(document.adoptNode(fresh));
      connected(true);
      return fresh;
    } catch {
      connected(false);
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }
}

/** Show a status in arq's words or Oncue's, on a badge. */
export function badge(element, status) {
  element.dataset.status = status;
  element.textContent = status;
}

/** Return the sentence of a problem body, or a plain one if the server did not send any. */
export async function sentence(response) {
  try {
    return (await response.json()).detail;
  } catch {
    return `The server answered ${response.status}.`;
  }
}

/** Show a problem in the form, or hide it (null). */
export function tell(problem) {
  const place = document.getElementById("problem");
  place.hidden = problem === null;
  place.textContent = problem ?? "";
}
