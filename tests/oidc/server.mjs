// A real OpenID provider for the tests: refresh tokens rotate, and reuse of a spent one ends the
// grant. A browser that comes is signed in without a page: as the user whose name is in its cookie `user`, or as the login hint
// says, or as alice. With the hint `denied` it is sent back with an error.
// The pages for devices and for the end of a session are JSON: what their form has to bring back as `xsrf`.
//
// A login that asks for the class `urn:example:mfa` is of it, and the browser is asked again where the one before was not
// (RFC 9470 §5). With the login hint `weak` it is of none, and with `long_ago` it was an hour ago. Introspection says `acr` and
// `auth_time` of an access token (§6.2).
//
// REDIRECT_URI=http://… (several with spaces between) AT_TTL=seconds node server.mjs      prints "READY <issuer>"
//
// For an access token of its own it gives others on behalf of the same user, with scope offline_access a refresh token,
// too (RFC 7523 §2.1 as Entra ID has it).
//
// PUT /clients registers the client of this metadata (RFC 7591 §2), or replaces it. PUT /lifetime sets how many seconds
// access tokens last from then on. POST /forget-access-tokens makes all access tokens invalid that were issued until then.
// POST /forget-tokens makes the refresh tokens invalid, too.
// PUT /demand with true has /me demand the class urn:example:mfa from then on, as an API does (RFC 9470 §3).
import http from 'node:http';
import { json } from 'node:stream/consumers';
import { Provider, errors, interactionPolicy } from 'oidc-provider';
import Adapter from 'oidc-provider/lib/adapters/memory_adapter.js';

let lifetime = Number(process.env.AT_TTL);
const MFA = 'urn:example:mfa';
const stats = { refreshed: 0, invalid_grant: 0, revoked: 0 };
const accessTokens = [];
const refreshTokens = [];
let isDemanding = false;

function start(issuer) {
  const provider = new Provider(issuer, {
    clients: [{
      client_id: 'app',
      client_secret: "the app's secret",
      grant_types: [
        'authorization_code', 'refresh_token', 'client_credentials', 'urn:ietf:params:oauth:grant-type:device_code',
      ],
      response_types: ['code'],
      redirect_uris: process.env.REDIRECT_URI.split(' '),
      post_logout_redirect_uris: ['http://127.0.0.1:1/signed-out'],
      token_endpoint_auth_method: 'client_secret_basic',
      backchannel_logout_uri: new URL('/backchannel-logout', process.env.REDIRECT_URI.split(' ')[0]).href,
      backchannel_logout_session_required: true,
    }],
    scopes: ['openid', 'offline_access'],
    claims: { openid: ['sub', 'email'] },
    acrValues: [MFA],
    // A token that was issued on behalf of a user is saved without a context.
    extraTokenClaims: (context) => {
      const { AuthorizationCode, RefreshToken } = context?.oidc.entities ?? {};
      const { acr, authTime } = AuthorizationCode ?? RefreshToken ?? {};
      return { acr, auth_time: authTime };
    },
    pkce: { required: () => true },
    findAccount: (_, id) => ({
      accountId: id,
      claims: () => ({ sub: id, email: `${id}@example.test` }),
    }),
    rotateRefreshToken: () => true,
    ttl: {
      AccessToken: () => lifetime, ClientCredentials: () => lifetime, IdToken: 3600, AuthorizationCode: 60,
      RefreshToken: 3600, Grant: 3600, Session: 3600, Interaction: 600, DeviceCode: 600,
    },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      introspection: { enabled: true },
      revocation: { enabled: true },
      backchannelLogout: { enabled: true },
      deviceFlow: {
        enabled: true,
        userCodeInputSource: xsrf,
        userCodeConfirmSource: xsrf,
        successSource: (context) => { context.body = { done: true }; },
      },
      rpInitiatedLogout: { enabled: true, logoutSource: xsrf },
    },
    enabledJWA: { clientAuthSigningAlgValues: ['RS256', 'PS256', 'ES256'] },
    interactions: { policy: policy(), url: (_, interaction) => `/interaction/${interaction.uid}` },
    cookies: { keys: ['of the tests'] },
  });
  provider.registerGrantType(JWT_BEARER, (context) => onBehalfOf(provider, context), ['assertion', 'requested_token_use', 'scope']);
  provider.on('server_error', (_, error) => console.error(error));
  provider.on('grant.success', (context) => {
    if (context.oidc.params.grant_type === 'refresh_token') stats.refreshed += 1;
  });
  provider.on('grant.error', (_, error) => {
    if (error.error === 'invalid_grant') stats.invalid_grant += 1;
  });
  provider.on('grant.revoked', () => { stats.revoked += 1; });
  provider.on('access_token.saved', (token) => accessTokens.push(token));
  provider.on('refresh_token.saved', (token) => refreshTokens.push(token));
  return provider;
}

// Asks again for a class that the session at the provider is not of.
function policy() {
  const { base, Check } = interactionPolicy;
  const prompts = base();
  prompts.get('login').checks.add(new Check('step_up', 'another login is needed', ({ oidc }) => {
    const wanted = oidc.params.acr_values?.split(' ') ?? [];
    const is_done = !wanted.length || wanted.includes(oidc.acr) || oidc.result?.login;
    return is_done ? Check.NO_NEED_TO_PROMPT : Check.REQUEST_PROMPT;
  }));
  return prompts;
}

const JWT_BEARER = 'urn:ietf:params:oauth:grant-type:jwt-bearer';

async function onBehalfOf(provider, context) {
  const { client, params: { assertion, requested_token_use: use, scope } } = context.oidc;
  const user = await provider.AccessToken.find(assertion);
  if (!user?.isValid || use !== 'on_behalf_of') throw new errors.InvalidGrant('the assertion is not valid');
  const { accountId } = user;
  const grant = new provider.Grant({ accountId, clientId: client.clientId });
  grant.addOIDCScope(scope);
  const common = { accountId, client, grantId: await grant.save(), gty: JWT_BEARER, scope };
  const token = new provider.AccessToken(common);
  context.body = { access_token: await token.save(), expires_in: token.expiration, token_type: token.tokenType, scope };
  if (!scope.split(' ').includes('offline_access')) return;
  const refreshToken = new provider.RefreshToken({ ...common, authTime: Math.floor(Date.now() / 1000), rotations: 0 });
  context.body.refresh_token = await refreshToken.save();
}

// A page that is a form.
function xsrf(context) {
  context.body = { xsrf: context.oidc.session.state.secret };
}

// Signs in and consents.
async function interact(provider, request, response) {
  const { params, grantId } = await provider.interactionDetails(request, response);
  if (params.login_hint === 'denied') {
    await provider.interactionFinished(request, response, { error: 'access_denied' });
    return;
  }
  const cookie = /(?:^|; )user=(\w+)/.exec(request.headers.cookie)?.[1];
  const named = ['weak', 'long_ago'].includes(params.login_hint) ? undefined : params.login_hint;
  const accountId = cookie ?? named ?? 'alice';
  const known = grantId && await provider.Grant.find(grantId);
  const grant = known?.accountId === accountId
    ? known
    : new provider.Grant({ accountId, clientId: params.client_id });
  grant.addOIDCScope(params.scope);
  const login = { accountId };
  if (params.acr_values?.split(' ').includes(MFA) && params.login_hint !== 'weak') login.acr = MFA;
  if (params.login_hint === 'long_ago') login.ts = Math.floor(Date.now() / 1000) - 3600;
  const result = { login, consent: { grantId: await grant.save() } };
  await provider.interactionFinished(request, response, result);
}

// Whether the token of this request is not of the class that is demanded.
async function isTooWeak(provider, request) {
  if (!isDemanding || request.url !== '/me') return false;
  const token = await provider.AccessToken.find(request.headers.authorization.replace('Bearer ', ''));
  return token?.extra.acr !== MFA;
}

// A client that is not in the configuration is looked up for each request.
async function register(request, response) {
  const metadata = await json(request);
  await new Adapter('Client').upsert(metadata.client_id, metadata);
  response.writeHead(204).end();
}

const server = http.createServer();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = start(issuer);
  const answer = provider.callback();
  server.on('request', async (request, response) => {
    try {
      if (request.url === '/stats') response.end(JSON.stringify(stats));
      else if (request.method === 'PUT' && request.url === '/clients') await register(request, response);
      else if (request.method === 'PUT' && request.url === '/lifetime') {
        lifetime = await json(request);
        response.writeHead(204).end();
      } else if (request.method === 'PUT' && request.url === '/demand') {
        isDemanding = await json(request);
        response.writeHead(204).end();
      } else if (await isTooWeak(provider, request)) {
        const challenge = `Bearer error="insufficient_user_authentication", acr_values="${MFA}"`;
        response.writeHead(401, { 'WWW-Authenticate': challenge }).end();
      } else if (request.method === 'POST' && request.url === '/forget-tokens') {
        for (const token of [...accessTokens.splice(0), ...refreshTokens.splice(0)]) await token.destroy();
        response.writeHead(204).end();
      } else if (request.method === 'POST' && request.url === '/forget-access-tokens') {
        for (const token of accessTokens.splice(0)) await token.destroy();
        response.writeHead(204).end();
      } else if (!request.url.startsWith('/interaction/')) await answer(request, response);
      else await interact(provider, request, response);
    } catch (error) {
      console.error(error);
      response.writeHead(500).end();
    }
  });
  console.log('READY', issuer);
});
