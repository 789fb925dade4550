// The task page: starts a batch and fills its table from one event stream for all rows.

import { badge, follow, sentence, tell } from "./live.js";

const form = document.getElementById("start");
const count = document.getElementById("count");
const slider = document.getElementById("slider");
const section = document.getElementById("batch");
const rows = document.getElementById("rows");
const bar = document.getElementById("bar");
const summary = document.getElementById("summary");
const announcer = document.getElementById("announcer");

let byId = new Map([...rows.children].map((row) => [row.dataset.job, row]));
let announced = 0;

slider.addEventListener("input", () => {
  count.value = slider.value;
});
count.addEventListener("input", () => {
  if (count.value) slider.value = count.value;
});

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  tell(null);
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    const response = await fetch("/task", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ count: count.valueAsNumber }),
    });
    if (!response.ok) return tell(await sentence(response));
    const answer = await response.json();
    // Each batch has an address: the page can be loaded again, and sent to somebody.
    const page = response.headers.get("Location");
    fill(answer.task_ids);
    history.replaceState(null, "", page);
    watch(new URL(page, location.href).searchParams.get("batch"));
  } catch {
    tell("The server cannot be reached.");
  } finally {
    button.disabled = false;
  }
});

/** Put an empty row for each job into the table, so that nothing moves when the results come. */
function fill(ids) {
  const template = document.getElementById("row");
  byId = new Map();
  announced = 0;
  rows.replaceChildren(
    ...ids.map((id) => {
      const row = template.content.firstElementChild.cloneNode(true);
      row.dataset.job = id;
      const name = row.querySelector(".id");
      const [start, end] = name.firstElementChild.children;
      name.title = id;
      start.textContent = id.slice(0, -4);
      end.textContent = id.slice(-4);
      byId.set(id, row);
      return row;
    }),
  );
  bar.max = ids.length;
  bar.value = 0;
  summary.textContent = `0 of ${ids.length} complete`;
  section.hidden = false;
  section.firstElementChild.scrollIntoView({ block: "nearest" });
}

let current = "";

/** Follow a batch to its end. A batch started later takes the page over. */
function watch(batch) {
  current = batch;
  section.dataset.batch = batch;
  follow(`/batches/${batch}/events`, {
    rows(data) {
      if (batch !== current) return true;
      for (const { job_id, status, result } of data.rows) {
        const row = byId.get(job_id);
        badge(row.querySelector(".badge"), status);
        row.querySelector(".result").textContent = result ?? "";
      }
      bar.value = data.done;
      summary.textContent = data.summary;
      announce(data);
      return data.ended;
    },
  });
}

/** Tell a screen reader every tenth of the way, and no more often. */
function announce(data) {
  const tenth = Math.floor((10 * data.done) / data.total);
  if (tenth > announced) {
    announced = tenth;
    announcer.textContent = data.summary;
  }
}

if (section.dataset.batch && Number(bar.value) < Number(bar.max)) watch(section.dataset.batch);
