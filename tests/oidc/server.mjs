// A real OpenID provider for the tests: refresh tokens rotate, and reuse of a spent one ends the
// grant. Whoever comes is signed in as alice without a page.
//
// REDIRECT_URI=http://… AT_TTL=seconds node server.mjs      prints "READY <issuer>"
import http from 'node:http';
import { Provider } from 'oidc-provider';

const lifetime = Number(process.env.AT_TTL);
const stats = { refreshed: 0, invalid_grant: 0, revoked: 0 };

function start(issuer) {
  const provider = new Provider(issuer, {
    clients: [{
      client_id: 'app',
      client_secret: "the app's secret",
      grant_types: ['authorization_code', 'refresh_token', 'client_credentials'],
      response_types: ['code'],
      redirect_uris: [process.env.REDIRECT_URI],
      token_endpoint_auth_method: 'client_secret_basic',
      backchannel_logout_uri: new URL('/backchannel-logout', process.env.REDIRECT_URI).href,
      backchannel_logout_session_required: true,
    }],
    scopes: ['openid', 'offline_access'],
    claims: { openid: ['sub', 'email'] },
    pkce: { required: () => true },
    findAccount: (_, id) => ({
      accountId: id,
      claims: () => ({ sub: id, email: `${id}@example.test` }),
    }),
    rotateRefreshToken: () => true,
    ttl: {
      AccessToken: lifetime, ClientCredentials: lifetime, IdToken: 3600, AuthorizationCode: 60,
      RefreshToken: 3600, Grant: 3600, Session: 3600, Interaction: 600,
    },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      introspection: { enabled: true },
      revocation: { enabled: true },
      backchannelLogout: { enabled: true },
      // No page: tests read the form.
      rpInitiatedLogout: { logoutSource: (context, form) => { context.body = { form }; } },
    },
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
    cookies: { keys: ['of the tests'] },
  });
  provider.on('server_error', (_, error) => console.error(error));
  provider.on('grant.success', (context) => {
    if (context.oidc.params.grant_type === 'refresh_token') stats.refreshed += 1;
  });
  provider.on('grant.error', (_, error) => {
    if (error.error === 'invalid_grant') stats.invalid_grant += 1;
  });
  provider.on('grant.revoked', () => { stats.revoked += 1; });
  return provider;
}

// Signs in and consents.
async function interact(provider, request, response) {
  const { params, grantId } = await provider.interactionDetails(request, response);
  const accountId = 'alice';
  const grant = (grantId && await provider.Grant.find(grantId))
    || new provider.Grant({ accountId, clientId: params.client_id });
  grant.addOIDCScope(params.scope);
  const result = { login: { accountId }, consent: { grantId: await grant.save() } };
  await provider.interactionFinished(request, response, result);
}

const server = http.createServer();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = start(issuer);
  const answer = provider.callback();
  server.on('request', async (request, response) => {
    try {
      if (request.url === '/stats') response.end(JSON.stringify(stats));
      else if (!request.url.startsWith('/interaction/')) await answer(request, response);
      else await interact(provider, request, response);
    } catch (error) {
      console.error(error);
      response.writeHead(500).end();
    }
  });
  console.log('READY', issuer);
});
