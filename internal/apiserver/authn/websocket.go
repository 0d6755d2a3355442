package authn

import (
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"
)

// protocolPrefix marks the token among the WebSocket protocols a browser offers: browsers can't set headers on a WebSocket.
const protocolPrefix = "base64url.bearer.authorization.k8s.io."

// webSocketToken finds that token and removes it, so that it is neither negotiated nor passed on.
func webSocketToken(r *http.Request) string {
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		return ""
	}
	token := ""
	var rest []string
	for _, line := range r.Header.Values("Sec-WebSocket-Protocol") {
		for _, p := range strings.Split(line, ",") {
			p = strings.TrimSpace(p)
			if encoded, ok := strings.CutPrefix(p, protocolPrefix); ok && token == "" {
				if raw, err := base64.RawURLEncoding.DecodeString(encoded); err == nil && utf8.Valid(raw) {
					token = string(raw)
				}
				continue
			}
			rest = append(rest, p)
		}
	}
	// Without another protocol the handshake would have nothing to agree on, so upstream doesn't take such a token either.
	rest = slices.DeleteFunc(rest, func(p string) bool { return p == "" })
	if token == "" || len(rest) == 0 {
		return ""
	}
	r.Header.Set("Sec-WebSocket-Protocol", strings.Join(rest, ", "))
	return token
}
