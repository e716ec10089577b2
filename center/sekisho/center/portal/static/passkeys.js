// Passkeys: asks our server for a challenge, the browser for an answer, and goes on where the server says.
const bytes = (text) =>
  Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (char) => char.charCodeAt(0));
const text = (buffer) =>
  btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");

async function send(place, path, body) {
  const headers = { "content-type": "application/json", "x-csrf": place.querySelector("[name=csrf]").value };
  const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
  if (answer.redirected) {
    location.assign(answer.url);
    return null;
  }
  return { status: answer.status, body: await answer.json().catch(() => ({})) };
}

async function create(options) {
  options.challenge = bytes(options.challenge);
  options.user.id = bytes(options.user.id);
  for (const known of options.excludeCredentials ?? []) known.id = bytes(known.id);
  const made = await navigator.credentials.create({ publicKey: options });
  const response = {
    clientDataJSON: text(made.response.clientDataJSON),
    attestationObject: text(made.response.attestationObject),
  };
  return { id: made.id, rawId: text(made.rawId), type: made.type, response };
}

async function get(options) {
  options.challenge = bytes(options.challenge);
  delete options.allowCredentials;
  const found = await navigator.credentials.get({ publicKey: options });
  const { clientDataJSON, authenticatorData, signature, userHandle } = found.response;
  const response = {
    clientDataJSON: text(clientDataJSON),
    authenticatorData: text(authenticatorData),
    signature: text(signature),
    userHandle: userHandle ? text(userHandle) : null,
  };
  return { id: found.id, rawId: text(found.rawId), type: found.type, response };
}

async function run(place) {
  const asked = await send(place, place.dataset.options, {});
  if (!asked) return;
  const credential = await (place.dataset.passkey === "create" ? create : get)(asked.body);
  const body = { credential, name: place.querySelector("[data-name]")?.value ?? "", next: place.dataset.next };
  const answer = await send(place, place.dataset.answer, body);
  if (!answer) return;
  if (answer.body.to) location.assign(answer.body.to);
  else say(place, answer.status === 429 ? "wait" : "wrong");
}

function say(place, which) {
  const said = place.querySelector("[data-said]");
  said.textContent = place.querySelector(`[data-${which}]`).textContent;
  said.hidden = false;
}

if (window.PublicKeyCredential) {
  for (const place of document.querySelectorAll("[data-passkey]")) {
    place.hidden = false;
    place.querySelector("button").addEventListener("click", async (event) => {
      event.currentTarget.disabled = true;
      try {
        await run(place);
      } catch {
        say(place, "wrong");
      }
      event.target.disabled = false;
    });
  }
}
