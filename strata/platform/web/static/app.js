// What HTML alone cannot do. Without it every page still works: Enter posts, links lead on.
"use strict";

(() => {
  // A scanner types a code and presses Enter: go on to the next field, and post only when nothing is left to fill in.
  const fields = (form) =>
    [...form.querySelectorAll("[data-scan]")].filter((field) => !field.disabled && field.offsetParent !== null);

  const onEnter = (event) => {
    const field = event.target;
    if (event.key !== "Enter" || event.isComposing || !(field instanceof HTMLElement) || !field.matches("[data-scan]")) return;
    const form = field.closest("form");
    event.preventDefault();
    const all = fields(form);
    const at = all.indexOf(field);
    const post = form.querySelector("[data-post]");
    if (field.dataset.scan === "sku" && field.value.trim() === "" && at > 0) {
      post.focus(); // an empty SKU after full lines: done, one more Enter posts
      return;
    }
    const next = all.slice(at + 1).find((other) => other.value.trim() === "") ?? all[at + 1];
    if (next) {
      next.focus();
      next.select();
    } else if (all.every((other) => other.value.trim() !== "")) {
      form.querySelector("[data-add-line]").click();
    } else {
      all.find((other) => other.value.trim() === "").focus();
    }
  };
  document.addEventListener("keydown", onEnter);

  // After a part has been swapped in: what is wrong comes first, else the field that waits for the next scan.
  document.addEventListener("htmx:afterSettle", (event) => {
    const target = event.detail.target.isConnected ? event.detail.target : document.getElementById("content");
    const wanted = target.querySelector("[aria-invalid=true]") ?? target.querySelector("[data-focus]");
    if (wanted) wanted.focus();
  });

  document.addEventListener("htmx:sendError", () => {
    const place = document.getElementById("messages");
    const notice = document.createElement("div");
    notice.className = "notice bad";
    notice.setAttribute("role", "alert");
    notice.textContent = "No answer: the connection seems to be down. Nothing you typed is lost; try again.";
    place.replaceChildren(notice);
  });
  // Only a form's own request: suggestions come and go while somebody reads.
  document.addEventListener("htmx:beforeRequest", (event) => {
    if (event.target instanceof HTMLFormElement) document.getElementById("messages").replaceChildren();
  });

  // Going back to a page kept by the browser must not show what a signed-out visitor may not see.
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) location.reload();
  });
})();
