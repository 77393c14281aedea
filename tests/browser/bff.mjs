// A user, another user and an attacker meet the example `bff` or `bff_actix` in Chromium.
//
// BASE=http://… ISSUER=http://… MODULES=folder CHROMIUM=file node bff.mjs
//
// BASE is the example, ISSUER the provider of tests/oidc, and MODULES the folder of its node_modules. With SCREENSHOTS=folder
// there are pictures of the pages in it. The step that fails is named at the end.
import assert from 'node:assert/strict';
import { mkdtemp } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const { BASE, ISSUER, MODULES, CHROMIUM, SCREENSHOTS } = process.env;
const { chromium } = createRequire(`${MODULES}/`)('playwright-core');
const COOKIE = '__Host-sid';
// Far more than a step takes, also on a busy machine.
const PATIENCE = 30_000;

let current = 'the server answers';
async function step(name, act) {
  current = name;
  const begun = Date.now();
  await act();
  console.log(`ok: ${name} (${Date.now() - begun} ms)`);
}

// Waits until `holds` gives something.
async function until(holds) {
  for (const end = Date.now() + PATIENCE; Date.now() < end; await new Promise((done) => setTimeout(done, 20))) {
    const found = await holds();
    if (found) return found;
  }
  throw new Error('it did not happen');
}

async function open(context, path = '/') {
  const page = await context.newPage();
  await page.goto(BASE + path);
  return page;
}

// A page in the background draws seldom, and Playwright waits for that.
const says = async (page, words) => {
  await page.bringToFront();
  await page.getByText(words).waitFor();
};
const isSignedOut = (page) => says(page, 'You are signed out.');
const isSignedInAs = (page, user) => says(page, `You are signed in as ${user}.`);
const signIn = (page) => page.getByRole('link', { name: 'Sign in' }).click();
const text = (page) => page.evaluate(() => document.body.innerText);
// What a browser tells a page when its tab is shown again.
const comeBack = (page) => page.evaluate(() => document.dispatchEvent(new Event('visibilitychange', { bubbles: true })));

// Presses the button that calls the API; the status of the answer.
async function call(page) {
  await page.bringToFront();
  const answer = page.waitForResponse((response) => response.url().startsWith(`${BASE}/bff/api/`));
  await page.getByRole('button', { name: 'Call the API' }).click();
  return (await answer).status();
}

async function showsAnswerFor(page, user) {
  assert.equal(await call(page), 200);
  await says(page, `${user}@example.test`);
}

// Of all cookies: by an address Playwright leaves out those that Chromium takes for secure on this machine alone.
const sid = async (context) => (await context.cookies()).find(({ name }) => name === COOKIE);

// The status of a request of the page's script, or why there is none.
const request = (page, path, options) => page.evaluate(
  ([url, more]) => fetch(url, more).then(({ status }) => status, ({ name }) => name),
  [BASE + path, options],
);

// What a thief of this cookie is told.
async function statusWith({ name, value }) {
  const headers = { cookie: `${name}=${value}`, 'x-csrf': '1' };
  return (await fetch(`${BASE}/bff/session`, { headers })).status;
}

// At the provider this user sits before the browser.
const sits = (context, user) => context.addCookies([{ name: 'user', value: user, url: ISSUER }]);

async function picture(page, name) {
  if (SCREENSHOTS) await page.screenshot({ path: join(SCREENSHOTS, `${name}.png`), fullPage: true });
}

async function newContext(browser) {
  const context = await browser.newContext();
  context.setDefaultTimeout(PATIENCE);
  // What a page shows in the moment in which the browser shows it, be it loaded or kept.
  await context.addInitScript(() => addEventListener('pageshow', ({ persisted }) => {
    localStorage.setItem('shown', JSON.stringify({ persisted, text: document.body.innerText }));
  }));
  return context;
}

async function meet(browser) {
  const context = await newContext(browser);
  const [first, second, third] = [await open(context), await open(context), await open(context)];

  await step('a page without a session says so, and sets no cookie', async () => {
    for (const page of [first, second, third]) await isSignedOut(page);
    assert.equal(await sid(context), undefined);
    await picture(first, 'signed-out');
  });

  await step('a login that is forged fails, and the page says so', async () => {
    await second.goto(`${BASE}/callback?code=c&state=s`);
    await says(second, 'The sign-in has failed.');
    await isSignedOut(second);
    await picture(second, 'failed');
    await second.goto(BASE);
  });

  await step('a user signs in, and the API is called with their token', async () => {
    await signIn(first);
    await isSignedInAs(first, 'alice');
    assert.equal(first.url(), `${BASE}/`);
    await showsAnswerFor(first, 'alice');
    assert.equal(await first.locator('#sessions tr').count(), 1);
    await picture(first, 'signed-in');
  });

  await step('the cookie is out of reach for scripts, other hosts and plain connections', async () => {
    const cookie = await sid(context);
    assert.ok(cookie, `there is none that is called ${COOKIE}`);
    const { httpOnly, secure, sameSite, path, domain, expires } = cookie;
    assert.deepEqual(
      { httpOnly, secure, sameSite, path, domain },
      { httpOnly: true, secure: true, sameSite: 'Lax', path: '/', domain: new URL(BASE).hostname },
    );
    const days = (expires - Date.now() / 1000) / 86_400;
    assert.ok(days > 13 && days < 15, `${days} days`);
    assert.ok(!(await first.evaluate(() => document.cookie)).includes('sid'));
  });

  await step('another tab sees the sign-in', async () => {
    await isSignedOut(second);
    for (const page of [second, third]) {
      await comeBack(page);
      await isSignedInAs(page, 'alice');
      await showsAnswerFor(page, 'alice');
    }
  });

  await step('a token that the API refuses is replaced, once', async () => {
    const refreshed = async () => (await (await fetch(`${ISSUER}/stats`)).json()).refreshed;
    const before = await refreshed();
    await fetch(`${ISSUER}/forget-access-tokens`, { method: 'POST' });
    await showsAnswerFor(second, 'alice');
    await showsAnswerFor(third, 'alice');
    assert.equal(await refreshed(), before + 1);
  });

  await step('an API that demands another login gets it, and the user stays signed in', async () => {
    const demand = (is) => fetch(`${ISSUER}/demand`, { method: 'PUT', body: is });
    await demand('true');
    assert.equal(await call(first), 401);
    await says(first, 'The API asks for another sign-in.');
    await isSignedInAs(first, 'alice');
    await picture(first, 'step-up');
    await first.getByRole('link', { name: 'Sign in for it' }).click();
    await isSignedInAs(first, 'alice');
    await showsAnswerFor(first, 'alice');
    assert.ok(await first.locator('#more').isHidden());
    await demand('false');
  });

  await step('a user whose tokens the provider refuses can sign in again', async () => {
    await fetch(`${ISSUER}/forget-tokens`, { method: 'POST' });
    assert.equal(await call(first), 401);
    await first.getByRole('link', { name: 'Sign in for it' }).click();
    await isSignedInAs(first, 'alice');
    await showsAnswerFor(first, 'alice');
  });

  await step('a request without the header is refused', async () => {
    for (const [method, path] of [
      ['GET', '/bff/session'], ['GET', '/bff/api/me'], ['POST', '/bff/api/me'],
      ['DELETE', '/bff/session'], ['DELETE', '/bff/sessions'],
    ]) assert.equal(await request(first, path, { method }), 403, `${method} ${path}`);
    await comeBack(first);
    await isSignedInAs(first, 'alice');
  });

  await step('a page of another origin cannot send it', async () => {
    // On the same host, so that the cookie would come along.
    const attacker = await context.newPage();
    await attacker.goto(`${ISSUER}/stats`);
    for (const [method, path] of [['GET', '/bff/session'], ['DELETE', '/bff/session'], ['DELETE', '/bff/sessions']]) {
      const options = { method, headers: { 'X-CSRF': '1' }, credentials: 'include' };
      assert.equal(await request(attacker, path, options), 'TypeError', `${method} ${path}`);
    }
    await attacker.close();
    await showsAnswerFor(first, 'alice');
  });

  await step('a sign-out in one tab is one for the others', async () => {
    const stolen = await sid(context);
    assert.equal(await statusWith(stolen), 200);
    await first.goto(`${ISSUER}/stats`);
    await second.getByRole('button', { name: 'Sign out', exact: true }).click();
    await isSignedOut(second);
    assert.equal(await sid(context), undefined);
    assert.equal(await call(third), 401);
    await isSignedOut(third);
    for (const page of [second, third]) assert.ok(!(await page.content()).includes('alice'));
    assert.equal(await statusWith(stolen), 401);
  });

  await step('the back button shows nothing of the user after that', async () => {
    await second.evaluate(() => localStorage.removeItem('shown'));
    await first.evaluate(() => history.back()).catch(() => {});
    const shown = JSON.parse(await until(() => second.evaluate(() => localStorage.getItem('shown'))));
    assert.ok(!shown.text.includes('alice'), JSON.stringify(shown));
    await isSignedOut(first);
    assert.ok(!(await first.content()).includes('alice'));
  });

  await step('nothing of one user is left for the next one in this browser', async () => {
    await signIn(first);
    await isSignedInAs(first, 'alice');
    await showsAnswerFor(first, 'alice');
    const before = await sid(context);
    assert.equal(await statusWith(before), 200);
    // Here alice stays signed in; the provider has forgotten her.
    await context.clearCookies({ name: /^_(?!_)/ });
    await sits(context, 'bob');
    await second.goto(`${BASE}/login`);
    await isSignedInAs(second, 'bob');
    await showsAnswerFor(second, 'bob');
    assert.equal(await second.locator('#sessions tr').count(), 1);
    assert.notEqual((await sid(context)).value, before.value);
    assert.equal(await statusWith(before), 401);
    await comeBack(first);
    await isSignedInAs(first, 'bob');
    for (const page of [first, second]) assert.ok(!(await page.content()).includes('alice'));
  });

  await step('a provider that ends the session of one user for the next one ends the login with it', async () => {
    await sits(context, 'alice');
    await second.goto(`${BASE}/login`);
    await says(second, 'The sign-in has failed.');
    await isSignedOut(second);
    assert.equal(await call(first), 401);
    await isSignedOut(first);
    await signIn(second);
    await isSignedInAs(second, 'alice');
    await second.getByRole('button', { name: 'Sign out', exact: true }).click();
    await isSignedOut(second);
    await context.clearCookies({ name: /^_(?!_)/ });
    await sits(context, 'bob');
    await first.goto(`${BASE}/login`);
    await isSignedInAs(first, 'bob');
  });

  await step('a sign-out everywhere ends the session in another browser', async () => {
    const other = await newContext(browser);
    await sits(other, 'bob');
    const page = await open(other, '/login');
    await isSignedInAs(page, 'bob');
    assert.equal(await page.locator('#sessions tr').count(), 2);
    await picture(page, 'two-sessions');
    await first.getByRole('button', { name: 'Sign out everywhere' }).click();
    await isSignedOut(first);
    assert.equal(await sid(context), undefined);
    assert.equal(await call(page), 401);
    await isSignedOut(page);
    await other.close();
  });

  await step('a user who signs out at the provider is signed out here', async () => {
    await signIn(first);
    await isSignedInAs(first, 'bob');
    const page = await context.newPage();
    await page.goto(`${ISSUER}/session/end?client_id=app`);
    const { xsrf } = JSON.parse(await text(page));
    const ended = await context.request.post(`${ISSUER}/session/end/confirm`, { form: { xsrf, logout: 'yes' } });
    assert.ok(ended.ok());
    assert.equal(await call(first), 401);
    await isSignedOut(first);
  });
}

const isUp = () => fetch(BASE).then(({ ok }) => ok, () => false);
const late = setTimeout(() => {
  console.error(`FAILED: ${current}: it takes too long`);
  process.exit(1);
}, 4 * PATIENCE);
let browser;
try {
  await until(isUp);
  browser = await chromium.launch({
    executablePath: CHROMIUM,
    args: ['--disable-gpu', '--disable-quic'],
    // Users have this cache, so what it keeps is tested.
    ignoreDefaultArgs: ['--disable-back-forward-cache'],
  });
  await meet(browser);
} catch (error) {
  const folder = await mkdtemp(join(tmpdir(), 'bff-'));
  const pages = browser?.contexts().flatMap((context) => context.pages()) ?? [];
  for (const [number, page] of pages.entries()) {
    await page.screenshot({ path: join(folder, `${number}.png`), timeout: 2000 }).catch(() => {});
  }
  console.error(`FAILED: ${current}\n${error.stack}\nwhat the pages showed is in ${folder}`);
  process.exitCode = 1;
} finally {
  clearTimeout(late);
  await browser?.close();
}
