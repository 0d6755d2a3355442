package image

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

type dockerAuth struct {
	Username      string `json:"username"`
	Password      string `json:"password"`
	Auth          string `json:"auth"`
	IdentityToken string `json:"identitytoken"`
}

// credentials lists what to try for an image, the most specific entry first; with none that fits, one anonymous attempt.
func credentials(image string, secrets []corev1.Secret) []*runtimeapi.AuthConfig {
	type candidate struct {
		prefix string
		auth   *runtimeapi.AuthConfig
	}
	var found []candidate
	for i := range secrets {
		for server, a := range entries(&secrets[i]) {
			if prefix := strip(server); matches(prefix, image) {
				found = append(found, candidate{prefix, a.config(server)})
			}
		}
	}
	if len(found) == 0 {
		return []*runtimeapi.AuthConfig{nil}
	}
	slices.SortStableFunc(found, func(a, b candidate) int { return len(b.prefix) - len(a.prefix) })
	out := make([]*runtimeapi.AuthConfig, len(found))
	for i := range found {
		out[i] = found[i].auth
	}
	return out
}

func entries(s *corev1.Secret) map[string]dockerAuth {
	switch s.Type {
	case corev1.SecretTypeDockerConfigJson:
		var file struct {
			Auths map[string]dockerAuth `json:"auths"`
		}
		if json.Unmarshal(s.Data[corev1.DockerConfigJsonKey], &file) == nil {
			return file.Auths
		}
	case corev1.SecretTypeDockercfg:
		var auths map[string]dockerAuth
		if json.Unmarshal(s.Data[corev1.DockerConfigKey], &auths) == nil {
			return auths
		}
	}
	return nil
}

func (a dockerAuth) config(server string) *runtimeapi.AuthConfig {
	c := &runtimeapi.AuthConfig{Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken, ServerAddress: server}
	if c.Username == "" && a.Auth != "" {
		if plain, err := base64.StdEncoding.DecodeString(a.Auth); err == nil {
			c.Username, c.Password, _ = strings.Cut(string(plain), ":")
		}
	}
	return c
}

// strip turns "https://registry.example/v1/" into "registry.example".
func strip(server string) string {
	_, rest, ok := strings.Cut(server, "://")
	if !ok {
		rest = server
	}
	rest = strings.TrimSuffix(rest, "/")
	for _, version := range []string{"/v1", "/v2"} {
		rest = strings.TrimSuffix(rest, version)
	}
	if rest == "index.docker.io" {
		return "docker.io"
	}
	return rest
}

// matches: the entry's host must be the image's (a leading *. label stands for any one label), its path a prefix of the image's.
func matches(entry, image string) bool {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return false
	}
	host, path, _ := strings.Cut(entry, "/")
	if domain := reference.Domain(named); host != domain {
		rest, wild := strings.CutPrefix(host, "*.")
		_, parent, dotted := strings.Cut(domain, ".")
		if !wild || !dotted || parent != rest {
			return false
		}
	}
	repo := reference.Path(named)
	return path == "" || repo == path || strings.HasPrefix(repo, path+"/")
}

// plain is an error's text without gRPC's wrapping.
func plain(err error) string {
	if err == nil {
		return ""
	}
	if s, ok := status.FromError(err); ok {
		return s.Message()
	}
	return err.Error()
}
