// The page of the streaming task: every group of digits as it is yielded.

import { badge, follow, isFinal, renew } from "./live.js";

const state = document.getElementById("state");

if (state.dataset.ended === "no") {
  const groups = document.getElementById("groups");
  const bar = document.getElementById("bar");
  const digits = document.querySelector(".digits");
  digits.classList.add("fresh");
  follow(state.dataset.events, {
    status(job) {
      badge(document.getElementById("status"), job.state);
      if (!isFinal(job)) return false;
      digits.classList.remove("fresh");
      if (job.state !== "completed") renew("state");
      return true;
    },
    stream(group) {
      // The stream begins with the first group, and after a crash of the server the task does too.
      if (group.at / 10 < groups.childElementCount) return;
      const part = document.createElement("span");
      part.textContent = group.digits;
      groups.append(part);
      bar.value = 10 * groups.childElementCount;
    },
  });
}
