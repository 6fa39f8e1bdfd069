// A sign-in link carries its token behind the #, which no server and no log ever sees. It is taken out of the address
// at once, and posted, unless somebody is signed in here already: then a person decides.
"use strict";

(() => {
  const form = document.getElementById("sign-in");
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!form || !token) return;
  history.replaceState(null, "", location.pathname + location.search);
  form.elements.token.value = token;
  if (form.dataset.signedIn === "false") form.requestSubmit();
})();
