// Shows what the server sends about a thing that goes on by itself. Without it the page shows how things were when it was made.
"use strict";

(() => {
  const place = document.querySelector("[data-live]");
  if (!place) return;
  const mark = document.querySelector("[data-live-mark]");
  const say = (text) => {
    if (mark && mark.textContent !== text) mark.textContent = text;
  };
  const source = new EventSource(place.dataset.live);
  for (const part of place.querySelectorAll("[data-part]")) {
    source.addEventListener(part.dataset.part, (event) => {
      // Whoever is about to press a button or has ticked a box must not lose it to a number that changed.
      const focused = part.contains(document.activeElement) ? document.activeElement.id : "";
      part.innerHTML = event.data;
      if (focused) document.getElementById(focused)?.focus();
    });
  }
  source.addEventListener("open", () => say("Live"));
  source.addEventListener("silent", (event) => say(event.data || "Live"));
  source.addEventListener("error", () => say("No answer: trying again"));
  source.addEventListener("end", () => {
    source.close();
    say("");
  });
})();
