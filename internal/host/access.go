package host

import (
	"skiff.dev/skiff/internal/apiserver/authn"
	"skiff.dev/skiff/internal/config"
)

// authnSources are the settings of who else may say whose a token is.
func authnSources(c *config.Config) authn.Sources {
	return authn.Sources{
		TokenFile: c.TokenAuthFile, ConfigFile: c.AuthenticationConfig, WebhookConfig: c.AuthenticationWebhookConfig,
		OIDC: authn.OIDC{
			Issuer: c.OIDCIssuer, ClientID: c.OIDCClientID, UsernameClaim: c.OIDCUsernameClaim, UsernamePrefix: c.OIDCUsernamePrefix,
			GroupsClaim: c.OIDCGroupsClaim, GroupsPrefix: c.OIDCGroupsPrefix, CAFile: c.OIDCCAFile, RequiredClaims: c.OIDCRequiredClaims,
			Algorithms: c.OIDCAlgorithms,
		},
	}
}
