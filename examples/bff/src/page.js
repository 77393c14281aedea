// What the page asks the API for.
const PATH = '/me';

const at = (id) => document.getElementById(id);

// The server demands this header, which no page of another site can send.
const ask = (path, method = 'GET') =>
  fetch(`/bff${path}`, { method, headers: { 'X-CSRF': '1' } }).catch(() => new Response('', { status: 503 }));

const time = (millis) => (millis ? new Date(millis).toLocaleString() : '–');

// Shows who is signed in, and nothing of any other user.
async function show(note = '') {
  const answer = await ask('/session');
  const { user = '', sessions = [] } = answer.ok ? await answer.json() : {};
  if (at('user').textContent !== user) {
    at('answer').textContent = '';
    at('more').hidden = true;
  }
  at('user').textContent = user;
  at('sessions').replaceChildren(...sessions.map((session) => {
    const row = document.createElement('tr');
    for (const text of [time(session.created), time(session.last_seen), session.label ?? '–']) {
      row.insertCell().textContent = text;
    }
    return row;
  }));
  const isSignedOut = answer.status === 401;
  at('signed-in').hidden = !answer.ok;
  at('signed-out').hidden = !isSignedOut;
  at('note').textContent = answer.ok || isSignedOut ? note : `The server answers ${answer.status}: try again.`;
}

async function call() {
  const answer = await ask(`/api${PATH}`);
  const isRefused = answer.status === 401;
  at('answer').textContent = isRefused ? '' : `${answer.status}\n${await answer.text()}`;
  // Who is still signed in then can sign in for what the API wants: the server knows it.
  at('more').hidden = !isRefused;
  if (isRefused) await show();
}

async function signOut(path) {
  const { status } = await ask(path, 'DELETE');
  if (status === 204 || status === 401) await show();
  else if (status === 202) await show('Other servers may go on with your sessions for a while.');
  else await show(`The sign-out has failed: the server answers ${status}.`);
}

// One after the other, so that no answer is shown that is older than who is signed in.
let last = Promise.resolve();
const next = (act) => { last = last.then(act, act); };

at('call').onclick = () => next(call);
at('sign-out').onclick = () => next(() => signOut('/session'));
at('sign-out-everywhere').onclick = () => next(() => signOut('/sessions'));
// Another tab may have signed in or out.
addEventListener('visibilitychange', () => document.hidden || next(() => show()));
at('failed').hidden = location.search !== '?failed';
next(() => show());
