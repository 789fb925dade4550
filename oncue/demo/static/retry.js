// The page of the task that fails twice: renewed with every change, and a clock until the next attempt.

import { follow, isFinal, renew } from "./live.js";

const state = document.getElementById("state");
let due = 0;

if (state.dataset.ended === "no") {
  follow(state.dataset.events, {
    status(job) {
      renew("state").then(wind);
      return isFinal(job);
    },
  });
  wind();
  setInterval(tick, 100);
}

/** Set the clock by what the page says; the server's own time of day does not matter. */
function wind() {
  const clock = document.querySelector("[data-wait]");
  if (clock) due = performance.now() + 1000 * Number(clock.dataset.wait);
  tick();
}

function tick() {
  const clock = document.querySelector("[data-wait]");
  if (!clock) return;
  const seconds = Math.max(0, due - performance.now()) / 1000;
  clock.textContent = seconds > 0 ? `Next attempt in ${seconds.toFixed(1)} s.` : "The next attempt is due.";
}
