// The page of one picture: its steps as they are done, then what came of them.

import { badge, follow, isFinal, renew } from "./live.js";

const state = document.getElementById("state");

if (state.dataset.ended === "no") {
  const bar = document.getElementById("bar");
  const step = document.getElementById("step");
  const log = document.getElementById("log");
  follow(state.dataset.events, {
    begin() {
      log.replaceChildren();
    },
    status(job) {
      badge(state.querySelector(".badge"), job.state);
      if (isFinal(job)) renew("state");
      return isFinal(job);
    },
    progress({ done, total, message }) {
      bar.max = total;
      bar.value = done;
      step.textContent = message;
    },
    log({ message }) {
      const item = document.createElement("li");
      item.textContent = message;
      log.append(item);
    },
  });
}
