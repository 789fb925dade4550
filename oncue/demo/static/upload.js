// The upload form: a preview, a check before anything is sent, and the progress of sending.

import { tell } from "./live.js";

const form = document.getElementById("upload");
const drop = document.getElementById("drop");
const input = document.getElementById("file");
const preview = document.getElementById("preview");
const sent = document.getElementById("sent");
const button = form.querySelector("button");
const limit = Number(form.dataset.limit);

for (const name of ["dragenter", "dragover"]) {
  drop.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  if (!event.dataTransfer.files.length) return;
  input.files = event.dataTransfer.files;
  show();
});
input.addEventListener("change", show);

/** Draw the picture that was chosen, if the browser can read it. Whether it is one, the server decides. */
async function show() {
  tell(null);
  preview.hidden = true;
  const [file] = input.files;
  if (!file) return;
  if (file.size > limit) return tell(tooLarge(file));
  try {
    const picture = await createImageBitmap(file);
    const scale = Math.min(320 / picture.width, 240 / picture.height, 1);
    preview.width = Math.max(1, Math.round(picture.width * scale));
    preview.height = Math.max(1, Math.round(picture.height * scale));
    preview.getContext("2d").drawImage(picture, 0, 0, preview.width, preview.height);
    picture.close();
    preview.hidden = false;
  } catch {
    // No preview, then.
  }
}

function tooLarge(file) {
  return `The file is larger than the limit: ${(file.size / 1e6).toFixed(1)} MB, and at most ${form.dataset.limitWords} are taken.`;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  tell(null);
  const [file] = input.files;
  if (file && file.size > limit) return tell(tooLarge(file));
  const request = new XMLHttpRequest(); // `fetch` cannot tell how much has been sent
  request.open("POST", form.action);
  request.setRequestHeader("Accept", "application/json");
  request.responseType = "json";
  request.upload.onprogress = ({ loaded, total }) => {
    sent.value = loaded / total;
  };
  request.onload = () => {
    if (request.status === 202) return location.assign(`/images/${encodeURIComponent(request.response.job_id)}`);
    ready(request.response?.detail ?? `The server answered ${request.status}.`);
  };
  request.onerror = () => ready("The upload broke off. Is the server there, and the file still in its place?");
  button.disabled = true;
  sent.value = 0;
  sent.hidden = false;
  request.send(new FormData(form));
});

function ready(problem) {
  button.disabled = false;
  sent.hidden = true;
  tell(problem);
}

// Coming back with the browser's own button finds the form ready again.
addEventListener("pageshow", () => {
  button.disabled = false;
  sent.hidden = true;
});
