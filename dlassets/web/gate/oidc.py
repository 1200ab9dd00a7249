"""A log-in at an identity provider: OpenID Connect's authorization code with PKCE, by Authlib.

Authlib checks the state, the nonce, and the signature, audience and times of the ID token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from dlassets.errors import DlassetsError, SettingsError
from dlassets.settings import ROLES, OidcSettings
from dlassets.web.gate.cookies import Session, new_session

_DISCOVERY = "/.well-known/openid-configuration"
_LONGEST_NAME = 200


class RefusedLoginError(DlassetsError):
    """The provider let somebody in whom the settings do not, or its answer is not to be trusted."""


class Provider:
    """Raises DlassetsError from the start where it does not answer as one."""

    def __init__(self, settings: OidcSettings, public_url: str) -> None:
        self._settings, self._callback = settings, f"{public_url}/gate/oidc/callback"
        self._client = _client(settings)

    async def check(self) -> None:
        """Raise SettingsError where no provider answers at the address of the settings."""
        import httpx2

        issuer = self._settings.issuer
        try:
            metadata = await self._client.load_server_metadata()
        except (httpx2.HTTPError, ValueError) as error:
            raise SettingsError(
                f"No identity provider answers at {issuer}{_DISCOVERY} ({type(error).__name__}: {error}). Put "
                "access.oidc.issuer right, or see that it can be reached from here; or set access.login to basic."
            ) from error
        if str(metadata.get("issuer", "")).rstrip("/") != issuer.rstrip("/"):
            raise SettingsError(
                f"The identity provider at {issuer} calls itself {metadata.get('issuer')!r}: set access.oidc.issuer to "
                "that."
            )

    async def sent_there(self, request: Request, then: str) -> Response:
        """Return the answer that sends a browser to the provider; `then` is where it goes in the end."""
        request.session.clear()  # of log-ins that were given up
        request.session["then"] = then
        answer: Response = await self._client.authorize_redirect(request, self._callback)
        return answer

    async def came_back(self, request: Request) -> tuple[Session, str]:
        """Return the session of who the provider says it is, and where they go. Raises RefusedLoginError."""
        import httpx2
        from authlib.integrations.base_client import OAuthError
        from joserfc.errors import JoseError

        then = str(request.session.get("then", "/"))
        try:
            token = await self._client.authorize_access_token(request)
        except (OAuthError, JoseError) as error:
            raise RefusedLoginError(
                f"The log-in at the identity provider did not count ({error.error}). Begin again."
            ) from error
        except (httpx2.HTTPError, ValueError) as error:
            raise RefusedLoginError("The identity provider did not answer as one does. Try again later.") from error
        finally:
            request.session.clear()
        claims = {**(token.get("userinfo") or {})}
        name, roles = self._name(claims), self._roles(claims)
        if not roles:
            raise RefusedLoginError(
                f"{name} is in no group that has a role here (access.oidc.roles). An administrator can change that."
            )
        return new_session(name, roles=roles), then

    def _name(self, claims: Mapping[str, Any]) -> str:
        wanted = self._settings.name_claim
        name = claims.get(wanted)
        if not isinstance(name, str) or not name or len(name) > _LONGEST_NAME or not name.isprintable():
            raise RefusedLoginError(
                f"The identity provider gave no name: its ID token has no claim {wanted} (access.oidc.name_claim)."
            )
        # Where it is unverified, anybody could have typed anybody's.
        if wanted == "email" and claims.get("email_verified") is False:
            raise RefusedLoginError(
                f"The identity provider has not verified that {name} is the address of who logged in."
            )
        return name

    def _roles(self, claims: Mapping[str, Any]) -> tuple[str, ...]:
        given = claims.get(self._settings.roles_claim) or ()
        groups = {given} if isinstance(given, str) else {str(group) for group in given}
        found = {role for group in groups for role in self._settings.roles.get(group, ())}
        return tuple(role for role in ROLES if role in found)


def _client(settings: OidcSettings) -> Any:
    from authlib.integrations.starlette_client import OAuth

    return OAuth().register(
        "provider",
        client_id=settings.client_id,
        client_secret=settings.client_secret,
        server_metadata_url=settings.issuer.rstrip("/") + _DISCOVERY,
        client_kwargs={"scope": " ".join(settings.scopes), "code_challenge_method": "S256", "timeout": 20},
    )
